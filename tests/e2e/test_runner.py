"""The tests' own safety net: what a guest leaves behind is found and taken away."""

import shutil
import signal
import subprocess

import pytest

from runner import (Lodge, Terminal, cgroups, in_mount_namespace, mounts_below, processes_of,
                    wait_until)


@pytest.fixture
def host(root):
    host = Lodge()
    yield host
    host.close()


def test_nothing_is_left(host):
    assert host("version").stdout.startswith("lodge ")
    assert host.close() == []
    assert not host.dir.exists()


def test_mount_is_found(host):
    path = host.runtime / "with space"
    path.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", path], check=True)
    assert host.close(patience=0) == [f"mount at {path}"]
    assert mounts_below(host.dir) == [] and not host.dir.exists()


def test_process_is_found(host):
    """A monitor: it has the environment of the command that started it, but another session."""
    process = subprocess.Popen(["sleep", "100"], env=host.env, start_new_session=True)
    wait_until(lambda: processes_of(host.dir) == [process.pid], "the process")
    assert host.close(patience=0) == [f"process {process.pid}: sleep 100 "]
    assert process.wait(5) == -signal.SIGKILL


def test_guest_is_found(host):
    """A guest that outlives its monitor: nothing of the host's environment, but its root."""
    for name in ("lower/old", "upper", "work", "root"):
        (host.state / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", host.state / "lower" / "busybox")
    overlay = f"lowerdir={host.state}/lower,upperdir={host.state}/upper,workdir={host.state}/work"
    script = (f"mount -t overlay -o {overlay} none {host.state}/root && cd {host.state}/root && "
              "pivot_root . old && exec /busybox env -i /busybox sh -c "
              "'/busybox umount -l /old && exec /busybox sleep 100'")
    process = subprocess.Popen(["unshare", "-m", "sh", "-c", script])
    wait_until(lambda: processes_of(host.dir) == [process.pid], "the guest")
    assert host.close(patience=0) == [f"process {process.pid}: /busybox sleep 100 "]
    assert process.wait(5) == -signal.SIGKILL


def test_cgroup_is_found(host):
    in_mount_namespace("mkdir -p /mnt/lodge/left-by-test")
    try:
        assert host.close(patience=0) == ["cgroup /mnt/lodge/left-by-test"]
    finally:
        in_mount_namespace("rmdir /mnt/lodge/left-by-test")
    assert "/mnt/lodge/left-by-test" not in cgroups()


def test_terminal(host):
    terminal = Terminal(["sh", "-c", "stty size; read x; stty size; echo \"<$x>\"; exit 3"], {},
                        rows=30, columns=90)
    terminal.expect("30 90")
    terminal.resize(31, 91)
    terminal.send("hello\n")
    terminal.expect("31 91\r\n<hello>")
    assert terminal.wait() == 3
