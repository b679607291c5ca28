"""Limits on the ways in which hosts mount control groups. The host of the test shows one of them in a
mount namespace; whatever it has itself is tried by the other tests."""

import os
import stat

import pytest

from runner import LODGE

CGROUP = "/sys/fs/cgroup"
V1 = "mount --make-rprivate / && umount /sys/fs/cgroup/unified"
V2 = ("mount --make-rprivate / && umount -l /sys/fs/cgroup &&"
      " mount -t cgroup2 cgroup2 /sys/fs/cgroup")


def is_hybrid():
    return os.path.ismount(f"{CGROUP}/unified") and os.path.ismount(f"{CGROUP}/memory")


pytestmark = pytest.mark.skipif(not is_hybrid(), reason="needs a host with v1 and v2 to hide one")


@pytest.fixture
def host_with(lodge, tmp_path):
    """Gives a program that runs lodge where only some control groups are mounted."""

    def make(setup):
        program = tmp_path / "lodge"
        program.write_text(
            f"#!/bin/sh\nexec unshare -m sh -c '{setup} && exec {LODGE} \"$@\"' lodge \"$@\"\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return program

    return make


def test_version_1_alone(lodge, tiny_image, host_with):
    v1 = host_with(V1)
    assert lodge("host", "--format", "json", program=v1).stdout.count("unified") == 0
    result = lodge("run", "--rm", "--memory", "32M", "tiny", "payload", "alloc", "64",
                   program=v1, status=137)
    assert "memory limit" in result.stderr
    assert lodge("run", "--rm", "--pids", "5", "tiny", "payload", "fork", "20",
                 program=v1).stdout == "fork: EAGAIN\nforked 4\n"
    # The guest sees version 2 all the same.
    assert "cgroup.procs" in lodge("run", "--rm", "tiny", "ls", CGROUP, program=v1).stdout


def test_version_2_alone(lodge, tiny_image, host_with):
    v2 = host_with(V2)
    assert lodge("run", "--rm", "tiny", "tail", "-n1", "/proc/self/cgroup",
                 program=v2).stdout == "0::/\n"
    with open(f"{CGROUP}/unified/cgroup.controllers") as controllers:
        if "memory" not in controllers.read().split():
            lodge.fails("run", "--rm", "--memory", "32M", "tiny", "true", program=v2,
                        match="no control group controller for memory")
