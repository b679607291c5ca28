"""What a container sees of its host, what it may do, and what its limits do."""

import os
import pathlib
import re
import shutil
import signal
import time

import pytest

from guests import (assert_nothing_left, init_pid, inspect, run_bytes, start_system)
from runner import PAYLOAD, processes_of, wait_until

NAMESPACES = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"]

# Bits of linux/capability.h.
CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND, CHROOT, SETFCAP = (
    0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 31)
APPLICATION = sum(1 << bit for bit in (CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID,
                                       SETPCAP, NET_BIND, CHROOT, SETFCAP))
# What acts on the host as a whole: modules, raw I/O, accounting, time, MAC, the log, wake alarms,
# suspending, audit, perf, BPF, checkpoints.
NEVER = sum(1 << bit for bit in (16, 17, 20, 25, 32, 33, 34, 35, 36, 37, 38, 39, 40))


@pytest.fixture
def system(lodge, tiny_image, tmp_path):
    """system("command") is run by the root of a system container."""
    name = start_system(lodge, tmp_path)

    def run(script, status=0):
        return lodge("exec", name, "sh", "-c", script, status=status)

    return run


def status_of(result):
    return dict(re.split(r":\s+", line, maxsplit=1) for line in result.lines if ":" in line)


# ENOENT: a kernel without that file.
REFUSED = ("EPERM", "EACCES", "EROFS", "ENOSYS", "ENOENT")


# ---- namespaces and ids ----

def test_all_namespaces_are_its_own(lodge, tiny_image):
    inside = lodge("run", "--rm", "tiny", "sh", "-c",
                   f"cd /proc/self/ns; for n in {' '.join(NAMESPACES)}; do readlink $n; done").lines
    host = [os.readlink(f"/proc/self/ns/{name}") for name in NAMESPACES]
    assert [line.split(":")[0] for line in inside] == NAMESPACES
    assert not set(inside) & set(host)


def test_ids_are_shifted_to_a_range_of_its_own(lodge, tiny_image):
    lodge("run", "-d", "--name", "a", "tiny", "payload", "forever")
    lodge("run", "-d", "--name", "b", "-u", "user", "tiny", "payload", "forever")
    bases = []
    for name, own in (("a", 0), ("b", 1000)):
        for kind in ("uid", "gid"):
            [words] = [line.split() for line in
                       lodge("exec", name, "cat", f"/proc/self/{kind}_map").lines]
            base = int(words[1])
            assert words[0] == "0" and words[2] == "65536" and base >= 1 << 30
        bases.append(base)
        pid = init_pid(lodge, name)
        assert os.stat(f"/proc/{pid}").st_uid == base + own
    assert abs(bases[0] - bases[1]) >= 65536


def test_files_of_the_image_have_their_owners(lodge, tiny_image):
    result = lodge("run", "--rm", "tiny", "payload", "stat", "/bin/payload", "/home/user", "/tmp")
    assert [line.split()[1:4] for line in result.lines] == [
        ["0755", "0", "0"], ["0755", "1000", "1000"], ["1777", "0", "0"]]


def test_processes_of_the_host_are_not_seen(lodge, tiny_image):
    result = lodge("run", "--rm", "tiny", "sh", "-c", "echo /proc/[0-9]*; kill -9 -1; echo alive")
    assert re.fullmatch(r"(/proc/\d+ ?){1,2}\nalive\n", result.stdout)


def test_network_is_loopback_only_and_up(lodge, tiny_image):
    result = lodge("run", "--rm", "tiny", "sh", "-c",
                   "ls /sys/class/net; nc -l -p 80 -e echo hi & sleep 0.2; nc 127.0.0.1 80")
    assert result.lines == ["lo", "hi"]


def test_host_network(lodge, tiny_image):
    result = lodge("run", "--rm", "--network", "host", "tiny", "readlink", "/proc/self/ns/net")
    assert result.stdout.strip() == os.readlink("/proc/self/ns/net")


def test_uptime_is_its_own(lodge, tiny_image):
    result = lodge("run", "--rm", "tiny", "sh", "-c", "cat /proc/uptime; sleep 0.3; cat /proc/uptime")
    first, second = [float(line.split()[0]) for line in result.lines]
    assert 0 <= first < 1 and 0.2 < second - first < 1.5


def test_control_groups_of_the_host_are_not_seen(lodge, tiny_image):
    result = lodge("run", "--rm", "tiny", "sh", "-c",
                   "cat /proc/self/cgroup; ls -d /sys/fs/cgroup/lodge; mkdir /sys/fs/cgroup/x",
                   status=1)
    assert all(line.endswith(":/") for line in result.lines), result
    assert "No such file" in result.stderr and "Read-only file system" in result.stderr


# ---- rights ----

def rights_words():
    return ["payload", "status", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs",
            "Seccomp"]


def test_rights_of_an_application(lodge, tiny_image):
    status = status_of(lodge("run", "--rm", "tiny", *rights_words()))
    caps = f"{APPLICATION:016x}"
    none = "0" * 16
    assert status == {"CapInh": none, "CapPrm": caps, "CapEff": caps, "CapBnd": caps, "CapAmb": none,
                      "NoNewPrivs": "1", "Seccomp": "2"}


def test_rights_of_a_system(system):
    status = status_of(system(" ".join(rights_words())))
    bound = int(status["CapBnd"], 16)
    assert bound & APPLICATION == APPLICATION and bound & NEVER == 0
    assert bound & 1 << 21, "a system has CAP_SYS_ADMIN in its user namespace"
    assert int(status["CapEff"], 16) == bound and int(status["CapAmb"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("0", "2")


def test_capabilities_are_added_and_dropped(lodge, tiny_image):
    def bound(*options):
        return int(status_of(lodge("run", "--rm", *options, "tiny", "payload", "status",
                                   "CapBnd"))["CapBnd"], 16)
    assert bound("--cap-add", "NET_ADMIN") == APPLICATION | 1 << 12
    assert bound("--cap-drop", "ALL") == 0
    assert bound("--cap-drop", "all", "--cap-add", "cap_chown") == 1
    assert bound("--cap-drop", "KILL") == APPLICATION & ~(1 << KILL)


def test_set_user_id_gives_nothing_to_an_application(lodge, tiny_image):
    """no_new_privs."""
    lodge("run", "-d", "--name", "g", "-u", "user", "tiny", "payload", "forever")
    lodge("exec", "-u", "root", "g", "sh", "-c", "cp /bin/payload /tmp/p; chmod 4755 /tmp/p")
    assert "uid=1000 gid=1000 euid=1000 " in lodge("exec", "g", "/tmp/p", "id").stdout


@pytest.mark.parametrize("what", ["mount", "mknod", "reboot", "kexec", "init_module", "bpf", "keyctl",
                                  "unshare-user", "unshare-mount", "settime", "raw-socket",
                                  "write-sysrq"])
def test_application_may_not(lodge, tiny_image, what):
    [line] = lodge("run", "--rm", "tiny", "payload", "try", what).lines
    assert line in [f"{what}: {errno}" for errno in REFUSED]


@pytest.mark.parametrize("what", ["mknod", "kexec", "init_module", "bpf", "settime", "write-sysrq"])
def test_system_may_not(system, what):
    [line] = system(f"payload try {what}").lines
    assert line in [f"{what}: {errno}" for errno in REFUSED]


# ---- mounts ----

def test_masked_files_are_empty(lodge, tiny_image):
    script = """for f in acpi asound interrupts kcore keys latency_stats sched_debug scsi timer_list
                do f=/proc/$f; if [ -d $f ]; then ls $f; elif [ -e $f ]; then head -c 10 $f; fi; done
                ls /sys/firmware /sys/dev/block; echo end"""
    result = lodge("run", "--rm", "tiny", "sh", "-c", script)
    assert re.sub(r"/sys/\S+:\n|\n(?=\n)", "", result.stdout).strip() == "end", result


@pytest.mark.parametrize("path", ["/proc/sys/kernel/panic", "/proc/sys/vm/drop_caches",
                                  "/proc/sysrq-trigger", "/proc/irq/default_smp_affinity",
                                  "/sys/kernel/uevent_helper", "/sys/fs/cgroup/cgroup.procs"])
def test_read_only_paths(lodge, tiny_image, path):
    result = lodge("run", "--rm", "tiny", "sh", "-c", f"echo 1 > {path}", status=1)
    assert re.search("Read-only file system|Permission denied|nonexistent", result.stderr)


@pytest.mark.parametrize("path", ["/proc/sys/kernel/panic", "/proc/sys/vm/drop_caches",
                                  "/proc/sysrq-trigger", "/sys/kernel/mm/ksm/run",
                                  "/proc/sys/kernel/core_pattern", "/proc/sys/fs/file-max"])
def test_a_system_can_not_set_what_is_the_hosts(system, path):
    before = pathlib.Path(path).read_text() if os.access(path, os.R_OK) and "trigger" not in path \
        and "drop" not in path else None
    assert system(f"echo 1 > {path}", status=None).status != 0
    if before is not None:
        assert pathlib.Path(path).read_text() == before


@pytest.mark.parametrize("script", [
    "umount /proc/kcore || umount /proc/interrupts", "umount -l /proc/keys", "umount /proc/acpi",
    "umount -l /sys/firmware", "mount -o remount,rw /sys", "mount -o remount,bind,rw /sys",
    "mount -o remount,bind,rw /proc/sysrq-trigger", "umount -l /proc",
    "umount -l /proc/sysrq-trigger", "mkdir -p /p && mount -t proc proc /p && cat /p/keys",
    "mkdir -p /s && mount -t sysfs sysfs /s", "unshare -m umount -l /proc/keys",
    "unshare -m umount -l /sys/firmware", "mount -t debugfs none /tmp", "mount -t tracefs none /tmp",
    "mount -t securityfs none /tmp", "mount -t ext4 /dev/vda /tmp", "mount -t bpf none /tmp",
    "mount -o remount,dev /", "mount -o remount,bind,dev,suid,exec /dev",
    "mkdir -p /b && mount --bind /proc /b && cat /b/keys | grep ."])
def test_masks_can_not_be_undone_by_a_system(system, script):
    assert system(f"( {script} )", status=None).status != 0, f"this worked: {script}"


def test_device_nodes_on_a_volume_are_dead(lodge, tiny_image, tmp_path):
    os.mknod(tmp_path / "null", 0o20666, os.makedev(1, 3))
    os.chmod(tmp_path / "null", 0o666)
    result = lodge("run", "--rm", "-v", f"{tmp_path}:/v", "tiny", "sh", "-c",
                   "echo x > /v/null; mknod /v/sda b 8 0; mknod /v/c c 1 3; ls /v", status=None)
    assert result.stdout == "null\n" and "Permission denied" in result.stderr


def test_dev_has_what_belongs_there(lodge, tiny_image):
    result = lodge("run", "--rm", "tiny", "ls", "/dev")
    assert result.lines == sorted(["fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm",
                                   "stderr", "stdin", "stdout", "tty", "urandom", "zero"])


def test_way_out_of_the_root(system, lodge):
    """Neither .., nor a chroot inside a chroot, nor /proc/1/root lead to the host's files."""
    marker = lodge.dir / "marker"
    marker.write_text("host")
    assert system(f"cat /../../..{marker} /proc/1/root{marker} /proc/1/cwd/..{marker}",
                  status=1).stdout == ""
    assert system("mkdir -p /x; cd /; chroot /x /bin/true; "
                  f"cd ../../../..; cat .{marker}", status=1).stdout == ""


def test_nothing_of_the_host_is_mounted(lodge, tiny_image):
    """No path of the host's in the mount table, but where the layers are named by descriptor."""
    mounts = lodge("run", "--rm", "tiny", "payload", "mounts").stdout
    assert str(lodge.dir) not in mounts and "/old" not in mounts
    assert {line.split(" - ")[1].split()[0] for line in mounts.splitlines()} == {
        "overlay", "tmpfs", "proc", "sysfs", "devpts", "mqueue", "cgroup2"}


def test_no_descriptor_of_the_host_leaks(lodge, tiny_image):
    with open("/etc/hostname") as leak:
        os.set_inheritable(leak.fileno(), True)
        done = run_bytes(lodge, "run", "--rm", "tiny", "payload", "fds", pass_fds=[leak.fileno()])
    lines = done.stdout.decode().splitlines()
    assert [line.split()[0] for line in lines] == ["0", "1", "2"]
    assert lines[0] == "0 /dev/null" and all("pipe:" in line for line in lines[1:])


def test_executable_of_lodge_can_not_be_written(system, lodge):
    """A process that joins has /proc/PID/exe for a moment (CVE-2019-5736)."""
    lodge("exec", "system", "/proc/self/exe", "version", status=None)
    assert system("for i in 1 2 3; do echo x > /proc/1/exe; done", status=1)


@pytest.mark.parametrize("file", ["passwd", "group"])
def test_guest_can_not_hang_its_host(lodge, tiny_image, file):
    """What is read in its root may be anything: here nobody ever writes to it."""
    lodge("create", "--name", "g", "tiny", "sh", "-c",
          f"[ -p /etc/{file} ] || {{ rm /etc/{file}; mkfifo /etc/{file}; }}; exec payload forever")
    lodge("start", "g")
    wait_until(lambda: lodge("exec", "g", "true", status=None, timeout=5).status == 0, "the guest")
    lodge("exec", "g", "true", status=None, timeout=5)
    lodge("stop", "-t", "0", "g", timeout=5)
    try:
        lodge("start", "g", status=None, timeout=3)
    finally:
        for pid in processes_of(lodge.dir):
            os.kill(pid, signal.SIGKILL)
        lodge("rm", "-f", "g", timeout=5)


def test_endless_passwd_file(lodge, tiny_image):
    lodge("create", "--name", "g", "tiny", "sh", "-c",
          "rm /etc/passwd; ln -s /dev/zero /etc/passwd; truncate -s 8G /etc/group")
    lodge("start", "-a", "g")
    lodge("start", "-a", "g", status=None, timeout=10)


@pytest.mark.parametrize("script", [
    "rm -rf /run && ln -s /proc/self/fd/7 /run", "rm -rf /root /home; ln -s / /root",
    "rm -rf /bin/sh; mkfifo /bin/sh", "rm -rf /tmp; ln -s /dev/shm /tmp", "chmod 0 / /bin /etc"])
def test_guest_that_breaks_its_own_root_can_still_be_removed(lodge, tiny_image, script):
    lodge("create", "--name", "g", "tiny", "sh", "-c", script)
    lodge("start", "-a", "g", status=None, timeout=10)
    lodge("start", "-a", "g", status=None, timeout=10)
    lodge("rm", "g", timeout=10)
    assert_nothing_left(lodge)


@pytest.mark.parametrize("links", [
    {"proc": "../../../../{host}"}, {"dev": "{host}"}, {"sys": "/proc/self/cwd/../..{host}"}])
def test_mount_points_that_are_links_do_not_lead_out(lodge, tiny_image, tmp_path, links):
    """An image can be anybody's."""
    tree, host = tmp_path / "tree", tmp_path / "host"
    (tree / "bin").mkdir(parents=True)
    host.mkdir()
    shutil.copy(PAYLOAD, tree / "bin" / "payload")
    for name, target in links.items():
        (tree / name).symlink_to(target.format(host=host))
    lodge("image", "import", "evil", tree)
    result = lodge("run", "--rm", "evil", "payload", "echo", "x", status=None)
    assert result.status in (0, 125)
    assert list(host.iterdir()) == [] and not os.path.ismount(host)
    assert_nothing_left(lodge)


def test_image_without_any_directory(lodge, tiny_image, tmp_path):
    """Mount points are made where they are missing, also under a read-only root."""
    (tmp_path / "payload").write_bytes(PAYLOAD.read_bytes())
    (tmp_path / "payload").chmod(0o755)
    lodge("image", "import", "bare", tmp_path)
    for options in ([], ["--read-only"]):
        assert lodge("run", "--rm", *options, "bare", "/payload", "echo", "x").stdout == "x\n"


def test_control_groups_of_a_system_are_removed_however_many(lodge, tiny_image, tmp_path):
    name = start_system(lodge, tmp_path)
    lodge("exec", name, "sh", "-c",
          "cd /sys/fs/cgroup && for i in $(seq 300); do mkdir g$i; done; "
          "for i in $(seq 25); do mkdir d && cd d; done; echo 1 > cgroup.freeze", status=None)
    lodge("stop", "-t", "0", name, timeout=20)
    lodge("rm", name)
    assert_nothing_left(lodge)


# ---- limits ----

def limit_file(lodge, name, v1, v2):
    """What the kernel enforces for the guest, by the hierarchy that this host uses."""
    own = inspect(lodge, name)["id"]
    files = [pathlib.Path("/sys/fs/cgroup") / path for path in (
        f"{v1[0]}/lodge/{own}/{v1[1]}", f"lodge/{own}/{v2}", f"unified/lodge/{own}/{v2}")]
    [text] = [file.read_text() for file in files if file.exists()][:1]
    return text.split()


def test_limits_are_set(lodge, tiny_image):
    lodge("run", "-d", "--name", "g", "--memory", "64M", "--pids", "33", "--cpus", "1.5", "tiny",
          "payload", "forever")
    assert limit_file(lodge, "g", ("memory", "memory.limit_in_bytes"), "memory.max") == \
        [str(64 << 20)]
    assert limit_file(lodge, "g", ("pids", "pids.max"), "pids.max") == ["33"]
    assert limit_file(lodge, "g", ("cpu", "cpu.cfs_quota_us"), "cpu.max")[0] == "150000"


def test_out_of_memory_is_137_and_told(lodge, tiny_image):
    result = lodge("run", "--name", "g", "--memory", "32M", "tiny", "payload", "alloc", "100",
                   status=137)
    assert re.fullmatch("lodge: [^\n]*memory limit[^\n]*\n", result.stderr)
    assert "memory" in inspect(lodge, "g")["exit_reason"]


def test_memory_within_the_limit(lodge, tiny_image):
    assert lodge("run", "--rm", "--memory", "64M", "tiny", "payload", "alloc", "32").stdout == \
        "allocated 32 MB\n"


def test_out_of_memory_of_a_child_is_its_parents_business(lodge, tiny_image):
    result = lodge("run", "--rm", "--memory", "32M", "tiny", "sh", "-c",
                   "payload alloc 100; echo status $?; exit 3", status=3)
    assert result.stdout == "status 137\n" and "lodge:" not in result.stderr


def test_memory_limit_counts_what_is_in_tmpfs(lodge, tiny_image):
    lodge("run", "--rm", "--memory", "32M", "tiny", "dd", "if=/dev/zero", "of=/dev/shm/x", "bs=1M",
          "count=100", status=137)


def test_pids_limit(lodge, tiny_image):
    result = lodge("run", "--rm", "--pids", "10", "tiny", "payload", "fork", "100")
    assert result.lines == ["fork: EAGAIN", "forked 9"]


def test_fork_bomb_is_survived(lodge, tiny_image):
    lodge("run", "-d", "--name", "g", "--pids", "50", "tiny", "sh", "-c",
          "b() { b | b & }; while :; do b; done")
    time.sleep(0.5)
    lodge("stop", "-t", "0", "g", timeout=20)
    lodge("rm", "g")
    assert_nothing_left(lodge)


@pytest.mark.parametrize("processes", [1, 2])
def test_cpu_limit(lodge, tiny_image, processes):
    """CPU time over wall time, for all its processes together."""
    spin = "payload spin 1500 & " * processes
    result = lodge("run", "--rm", "--cpus", "0.4", "tiny", "sh", "-c", f"{spin} wait; times")
    minutes_seconds = re.findall(r"(\d+)m([\d.]+)s", result.lines[1])
    used = sum(int(m) * 60 + float(s) for m, s in minutes_seconds)
    assert 0.4 * 1.5 * 0.6 < used < 0.4 * 1.5 * 1.35, result


def test_limits_hold_for_the_whole_of_a_system(lodge, tiny_image, tmp_path):
    """It may make control groups of its own below, and can't raise what holds for all."""
    name = start_system(lodge, tmp_path, options=["--pids", "20", "--memory", "64M"])
    run = lodge.start("exec", name, "sh", "-c",
                      "mkdir /sys/fs/cgroup/own && echo $$ > /sys/fs/cgroup/own/cgroup.procs; "
                      "exec payload fork 100 + forever")
    assert run.stdout.readline() == "fork: EAGAIN\n"
    lodge("rm", "-f", name)
    assert_nothing_left(lodge)
