"""A whole Debian with systemd as a system container: boots, works, reboots and shuts down."""

import re
import time

import pytest

from guests import assert_nothing_left, init_pid, inspect, monitor_pid, state_of
from runner import Lodge, wait_until

BOOT_S = 60


def boot(host, *options, name="deb"):
    host("run", "-d", "--name", name, *options, "debian")
    wait_for_boot(host, name)
    return name


def wait_for_boot(host, name):
    def booted():
        done = host("exec", name, "systemctl", "is-system-running", status=None)
        return done.stdout.strip() in ("running", "degraded") and done.stdout.strip()
    return wait_until(booted, "systemd to have started everything", timeout=BOOT_S)


@pytest.fixture(scope="module")
def debian(template, debian_image):
    """One that runs, for tests that only look; debian("command") is run in it by a shell."""
    host = Lodge(template({"debian_image"}))
    boot(host, "--hostname", "testhost")

    def run(script, status=0):
        return host("exec", "deb", "sh", "-c", script, status=status).stdout

    run.host = host
    yield run
    left = host.close(patience=10)
    assert not left, "left behind:\n" + "\n".join(left)


def test_reaches_running_and_nothing_has_failed(debian):
    assert debian("systemctl --failed --no-legend --plain") == ""
    assert debian("systemctl is-system-running") == "running\n"


def test_knows_that_it_is_a_container(debian):
    assert debian("systemd-detect-virt --container") in ("lodge\n", "container-other\n")
    assert debian("cat /proc/1/comm") == "systemd\n"
    assert debian("cat /etc/hostname || true; hostname").splitlines()[-1] == "testhost"


def test_units_run_in_control_groups_of_their_own(debian):
    assert debian("systemd-run --wait --pipe -q cat /proc/self/cgroup").strip().endswith(".service")
    assert "system.slice" in debian("systemd-cgls --no-pager")


def test_transient_unit(debian):
    assert debian("systemd-run --wait --pipe --quiet sh -c 'echo out; id -un'") == "out\nroot\n"
    debian("systemd-run --wait --quiet --collect sh -c 'exit 7'", status=7)


@pytest.mark.parametrize("setting", [
    "PrivateTmp=yes", "ProtectSystem=strict", "ProtectHome=yes", "PrivateDevices=yes",
    "DynamicUser=yes", "ProtectKernelTunables=yes", "ProtectControlGroups=yes",
    "NoNewPrivileges=yes", "PrivateNetwork=yes", "SystemCallFilter=@system-service",
    "RestrictAddressFamilies=AF_UNIX", "MemoryDenyWriteExecute=yes", "User=nobody",
    "StateDirectory=x", "RuntimeDirectory=x", "TasksMax=10", "ProtectProc=invisible"])
def test_unit_with_a_sandbox_of_its_own(debian, setting):
    """What Debian's own units ask for works here too."""
    assert debian(f"systemd-run --wait --pipe --quiet -p {setting} echo works") == "works\n"


def test_private_tmp_is_private(debian):
    debian("touch /tmp/outside")
    assert debian("systemd-run --wait --pipe -q -p PrivateTmp=yes ls /tmp") == ""


def test_dynamic_user_is_no_root(debian):
    assert debian("systemd-run --wait --pipe -q -p DynamicUser=yes id -u").strip() not in ("0", "")


def test_journal_has_the_boot(debian):
    assert "Startup finished" in debian("journalctl -b --no-pager -o cat")


def test_packages_are_known(debian):
    assert re.search(r"^ii\s+systemd\s", debian("dpkg -l"), re.M)
    assert debian("dpkg --audit") == ""
    assert debian("apt-get check -qq && apt-cache policy systemd | head -1") == "systemd:\n"


def test_package_is_unpacked_and_removed(debian):
    """dpkg makes files of all sorts, with owners, and moves directories."""
    debian("""set -e; d=$(mktemp -d); mkdir -p $d/DEBIAN $d/opt/x
              printf 'Package: x\\nVersion: 1\\nArchitecture: all\\nMaintainer: m <m@x>\\n' \
                  >$d/DEBIAN/control
              printf 'Description: x\\n' >>$d/DEBIAN/control
              echo y >$d/opt/x/file; ln -s file $d/opt/x/link; chown -R 33:33 $d/opt/x
              dpkg-deb -b $d /tmp/x.deb >/dev/null; dpkg -i /tmp/x.deb >/dev/null""")
    assert debian("stat -c '%u %F' /opt/x/file /opt/x/link; cat /opt/x/link") == \
        "33 regular file\n33 symbolic link\ny\n"
    debian("dpkg -P x >/dev/null; test ! -e /opt/x")


def test_other_users(debian):
    assert debian("su - nobody -s /bin/sh -c 'id -u; id -gn'") == "65534\nnogroup\n"
    assert debian("runuser -u daemon -- id -un") == "daemon\n"


def test_new_user_with_files(debian):
    debian("useradd -m u && su - u -c 'echo x >file && chmod 600 file'")
    assert debian("stat -c '%U %a' /home/u/file") == "u 600\n"
    debian("su - u -c 'cat /etc/shadow'", status=1)


def test_set_user_id_programs_work(debian):
    """A system has no no_new_privs: su and passwd need it so."""
    assert debian("su - nobody -s /bin/sh -c 'cp /usr/bin/id /tmp/id-s && echo' >/dev/null; "
                  "chown root /tmp/id-s && chmod 4755 /tmp/id-s; "
                  "su - nobody -s /bin/sh -c '/tmp/id-s -u'") == "0\n"


def test_time_is_its_own_and_the_host_can_not_be_changed(debian):
    assert float(debian("cat /proc/uptime").split()[0]) < 600
    for script in ("date -s 2000-01-01", "echo c >/proc/sysrq-trigger", "mknod /tmp/sda b 8 0",
                   "mount -t proc p /mnt && echo b > /mnt/sysrq-trigger", "swapoff -a; swapon /dev/sda",
                   "modprobe dummy", "dmesg", "hwclock -w", "mount /dev/vda /mnt"):
        assert debian(f"( {script} ) >/dev/null 2>&1; echo $?") != "0\n", f"this worked: {script}"


def test_exec_does_not_break_the_systems_own_groups(debian):
    """A process that joins must not make systemd's control group tree unusable."""
    for _ in range(5):
        debian("true")
    debian("systemctl restart systemd-journald && systemctl is-active systemd-journald")
    assert debian("systemctl --failed --no-legend --plain") == ""


def test_login_prompt_on_the_console(debian):
    """A console as a machine has one."""
    terminal = debian.host.terminal("attach", "deb")
    terminal.send("\n")
    terminal.expect("testhost login: ", timeout=20)
    terminal.send("\x10\x11")
    assert terminal.wait() == 0
    assert "login:" in debian.host("logs", "deb").stdout


def test_memory_limit_is_the_systems(lodge, debian_image):
    boot(lodge, "--memory", "300M", "--pids", "200", "--cpus", "1.5")
    assert lodge("exec", "deb", "systemctl", "is-system-running").stdout == "running\n"


def test_reboot_from_inside(lodge, debian_image):
    """The same monitor, the same files, a new system."""
    boot(lodge)
    monitor, init = monitor_pid(lodge, "deb"), init_pid(lodge, "deb")
    boot_id = lodge("exec", "deb", "journalctl", "--list-boots", "-q", "--no-pager").stdout
    lodge("exec", "deb", "touch", "/root/kept", "/run/not-kept")
    lodge("exec", "deb", "systemctl", "reboot", status=None)
    wait_until(lambda: inspect(lodge, "deb").get("pid", init) != init, "the new init", timeout=30)
    wait_for_boot(lodge, "deb")
    assert monitor_pid(lodge, "deb") == monitor
    lodge("exec", "deb", "test", "-e", "/root/kept")
    lodge("exec", "deb", "test", "!", "-e", "/run/not-kept")
    assert boot_id
    lodge("stop", "deb")
    assert inspect(lodge, "deb")["exit_status"] == 0


@pytest.mark.parametrize("command", ["poweroff", "halt"])
def test_poweroff_from_inside(lodge, debian_image, command):
    boot(lodge)
    lodge("exec", "deb", "systemctl", command, status=None)
    assert lodge("wait", "deb", timeout=30).stdout == "0\n"
    about = inspect(lodge, "deb")
    assert (about["state"], about["exit_status"], about["exit_reason"]) == ("stopped", 0, None)


def test_stop_is_clean_and_quick(lodge, debian_image):
    boot(lodge)
    begin = time.monotonic()
    lodge("stop", "deb")
    assert time.monotonic() - begin < 8
    about = inspect(lodge, "deb")
    assert (about["exit_status"], about["exit_reason"]) == (0, None)
    assert re.search("Reached target.*(Power|Halt|[Ss]hutdown|System)", lodge("logs", "deb").stdout)
    lodge("start", "deb")
    wait_for_boot(lodge, "deb")
    # The journal of the boot before was closed properly.
    journal = lodge("exec", "deb", "journalctl", "--no-pager", "-o", "cat").stdout
    assert "corrupted or uncleanly" not in journal


def test_stop_right_after_the_start(lodge, debian_image):
    """The init may not have its signal handlers yet."""
    for _ in range(2):
        lodge("run", "-d", "--name", "deb", "debian")
        begin = time.monotonic()
        lodge("stop", "-t", "15", "deb", timeout=30)
        assert time.monotonic() - begin < 10
        assert inspect(lodge, "deb")["exit_status"] == 0
        lodge("rm", "deb")


def test_attached_boot_and_poweroff(lodge, debian_image):
    """`lodge run debian` on a terminal: messages of the boot, a login prompt, and status 0."""
    terminal = lodge.terminal("run", "--name", "deb", "-i", "debian")
    terminal.expect("login: ", timeout=BOOT_S)
    lodge("exec", "deb", "systemctl", "poweroff", status=None)
    assert terminal.wait(30) == 0


def test_command_from_the_same_image(lodge, debian_image):
    """One image for both: an application container of it starts in milliseconds."""
    lodge("run", "--rm", "debian", "true")
    begin = time.monotonic()
    assert "bookworm" in lodge("run", "--rm", "debian", "cat", "/etc/os-release").stdout
    assert time.monotonic() - begin < 1
    assert_nothing_left(lodge)


def test_two_systems_side_by_side(lodge, debian_image):
    for name in ("one", "two"):
        lodge("run", "-d", "--name", name, "debian")
    for name in ("one", "two"):
        wait_for_boot(lodge, name)
        assert lodge("exec", name, "hostname").stdout == f"{name}\n"
    lodge("stop", "one", "two")
    assert state_of(lodge, "one") == state_of(lodge, "two") == "stopped"


def test_knows_its_own_name(debian):
    assert debian("cat /etc/hostname; hostname -f") == "testhost\ntesthost\n"
    assert debian("getent hosts testhost").split() == ["127.0.1.1", "testhost"]


def test_boot_id_is_its_own(debian):
    with open("/proc/sys/kernel/random/boot_id") as host:
        assert debian("cat /proc/sys/kernel/random/boot_id") != host.read()


def test_command_from_the_image_is_asked_by_term(lodge, debian_image):
    """The image's stop signal is its init's."""
    lodge("run", "-d", "--name", "g", "debian", "sh", "-c",
          "trap 'echo asked; exit 3' TERM; echo up; while :; do sleep 0.1; done")
    wait_until(lambda: "up" in lodge("logs", "g").stdout, "the command")
    lodge("stop", "g")
    assert inspect(lodge, "g")["exit_status"] == 3
    assert lodge("logs", "g").stdout == "up\nasked\n"
