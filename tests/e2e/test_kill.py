"""`kill -9` at any moment: tests/tools/killstep.c kills a command and the processes that it forked at
a chosen system call; then the next commands have to find a state that they can work with, and leave
nothing behind.

By default a choice of the steps is tried (the same each time), by --slow every single one.
"""

import dataclasses
import os
import random
import signal
import subprocess
import tarfile

import pytest

from guests import (assert_nothing_left, init_pid, inspect, listed, monitor_pid, rows, state_of)
from runner import BUILD, LODGE, Lodge, mounts_below, wait_until

KILLSTEP = BUILD / "tests" / "tools" / "killstep"

FOREVER = ["tiny", "payload", "forever"]


@dataclasses.dataclass
class Killed:
    steps: int    # how far it came
    killed: bool  # or was it quicker?
    status: int
    stderr: str


def killstep(host, step, args, options=()):
    report = host.dir / "steps"
    done = subprocess.run([KILLSTEP, *options, "-o", report, str(step), LODGE, *args], env=host.env,
                          stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode != 99, done.stderr
    words = report.read_text().split()
    return Killed(int(words[0]), "killed" in words, done.returncode, done.stderr)


def settled_guests(host):
    """All guests, once each that is said to run really does: a killed monitor's guest takes a
    moment to die."""
    def look():
        guests = host.json("ls", "-a")
        if all(guest["state"] != "running" or
               host("exec", guest["name"], "true", status=None).status == 0 for guest in guests):
            return [guests]
        return None
    return wait_until(look, "guests that run or don't", timeout=5)[0]


def use_and_remove(host, name, runnable):
    """Whatever state it is in: a user can go on with it."""
    if state_of(host, name) != "running":
        if not runnable:
            host.fails("start", name, match="no-such-command", status=127)
            host("rm", name)
            return
        host("start", name)
        settled_guests(host)
    host("stop", "-t", "0", name)
    if name in host("ls", "-aq").lines:  # not when it had --rm
        host("rm", name)


def check_guests(host, case, step):
    """What has to hold after a command was killed, whichever it was."""
    for guest in settled_guests(host):
        assert guest["name"] == "g" and guest["state"] in ("created", "running", "stopped"), guest
        if step % 2:
            use_and_remove(host, "g", case.runnable)
        elif host("rm", "-f", "g", status=None).status != 0:
            # What was killed had written its transaction to the database's log, but not yet told
            # other processes: a reader that comes first still sees the row.
            host.fails("rm", "-f", "g", match="no guest named 'g'")
            assert "rm" in " ".join(case.args)
    assert_nothing_left(host)
    # The name is free again, and everything works.
    assert host("run", "--rm", "--name", "g", "tiny", "payload", "echo", "works").stdout == "works\n"
    assert_nothing_left(host)


def check_images(host, case, step):
    """The tiny image is whole, the new one there or not; a new try works and sweeps up."""
    names = {image["name"] for image in host.json("image", "ls")}
    assert "tiny" in names and names <= {"tiny", "new"}
    if "new" in names:
        host("run", "--rm", "new", "/payload", "exit", "0")
    host("image", "import", "new", host.dir / "new.tar")
    host("run", "--rm", "new", "/payload", "exit", "0")
    host("image", "rm", "new")
    digests = {digest.partition(":")[2] for digest, in rows(host, "SELECT digest FROM images")}
    assert set(listed(host.state / "images" / "sha256")) == digests
    assert_nothing_left(host)


def make_tarball(host):
    with tarfile.open(host.dir / "new.tar", "w") as tar:
        tar.add(BUILD / "tests" / "payload" / "payload", "payload")
        for i in range(20):
            info = tarfile.TarInfo(f"dir/{i}")
            tar.addfile(info)


def created(host):
    host("create", "--name", "g", *FOREVER)


def running(host):
    host("run", "-d", "--name", "g", *FOREVER)


def running_with_rm(host):
    host("run", "-d", "--rm", "--name", "g", *FOREVER)


def stopped(host):
    """One that ends at its first start and stays at the others."""
    host("run", "--name", "g", "tiny", "sh", "-c", "[ -e /file ] && exec payload forever; >/file")


def imported(host):
    make_tarball(host)
    host("image", "import", "new", host.dir / "new.tar")


@dataclasses.dataclass
class Case:
    name: str
    args: list
    before: object = lambda host: None
    check: object = check_guests
    runnable: bool = True


CASES = [
    Case("create", ["create", "--name", "g", *FOREVER]),
    Case("run-detached", ["run", "-d", "--name", "g", *FOREVER]),
    Case("run-to-its-end", ["run", "--name", "g", "tiny", "payload", "echo", "hi", "+", "exit", "3"]),
    Case("run-rm", ["run", "--rm", "--name", "g", "tiny", "payload", "echo", "hi"]),
    Case("run-limits", ["run", "--rm", "--name", "g", "--memory", "64M", "--pids", "20", "--cpus",
                        "1", "tiny", "true"]),
    Case("run-that-fails", ["run", "--name", "g", "tiny", "no-such-command"],
         runnable=False),
    Case("start", ["start", "g"], created),
    Case("start-again", ["start", "g"], stopped),
    Case("stop", ["stop", "-t", "1", "g"], running),
    Case("stop-rm", ["stop", "-t", "1", "g"], running_with_rm),
    Case("rm", ["rm", "g"], stopped),
    Case("rm-force", ["rm", "-f", "g"], running),
    Case("ls", ["ls", "-a"], running),
    Case("image-import", ["image", "import", "new", "{dir}/new.tar"], make_tarball, check_images),
    Case("image-rm", ["image", "rm", "new"], imported, check_images),
]

# How many of a command's steps the default run tries.
CHOICE = 8


def try_step(host, case, step, options=()):
    case.before(host)
    args = [word.format(dir=host.dir) for word in case.args]
    result = killstep(host, step, args, options)
    if options and result.status not in (0, 3, 127, 137):
        # The command itself lived on, and lost its monitor.
        assert result.status == 125 and result.stderr.startswith("lodge: "), result
        assert result.stderr.count("\n") == 1, result
    case.check(host, case, step)
    return result


def try_steps(template, case, steps, options=()):
    """Tries them all, each after a failure on a host of its own; tells which ones failed."""
    host = Lodge(template({"tiny_image"}))
    failures = []
    try:
        for step in steps:
            try:
                try_step(host, case, step, options)
            except (AssertionError, subprocess.TimeoutExpired, ValueError) as error:
                failures.append(f"step {step}: {error}")
                host.close()
                host = Lodge(template({"tiny_image"}))
            if len(failures) == 10:
                break
    finally:
        left = host.close()
    assert not failures, f"{len(failures)} of {len(steps)} steps:\n" + "\n\n".join(failures)
    assert not left, "left behind:\n" + "\n".join(left)


def count_steps(template, case):
    host = Lodge(template({"tiny_image"}))
    try:
        return try_step(host, case, 0).steps
    finally:
        host.close()


def choice(case, options, total):
    """One step of each of CHOICE equal parts."""
    dice = random.Random(f"{case.name} {options}")
    return [total * part // CHOICE + 1 + dice.randrange(max(1, total // CHOICE))
            for part in range(CHOICE)]


WHO = pytest.mark.parametrize("options", [(), ("-1",)], ids=["all", "one"])
WHAT = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@WHO
@WHAT
def test_killed_at_some_steps(tiny_image, template, case, options):
    try_steps(template, case, choice(case, options, count_steps(template, case)), options)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@WHO
@WHAT
def test_killed_at_every_step(tiny_image, template, case, options):
    try_steps(template, case, range(1, count_steps(template, case) + 1), options)


def test_killstep_kills_at_the_step(tiny_image, template, lodge):
    """The tool does what the tests above believe: fewer steps, no output."""
    whole = killstep(lodge, 0, ["version"])
    assert whole.status == 0 and not whole.killed and whole.steps > 5
    part = killstep(lodge, whole.steps // 2, ["version"])
    assert part.killed and part.steps == whole.steps // 2 and part.status == 137


def test_monitor_killed_under_a_running_guest(lodge, tiny_image):
    """The guest dies with it; the next command says so and tidies up."""
    running(lodge)
    os.kill(monitor_pid(lodge, "g"), signal.SIGKILL)
    wait_until(lambda: inspect(lodge, "g")["state"] == "stopped", "the guest to be seen stopped")
    about = inspect(lodge, "g")
    assert about["exit_status"] == 137 and "monitor" in about["exit_reason"]
    lodge("start", "g")
    lodge("exec", "g", "true")
    lodge("rm", "-f", "g")
    assert_nothing_left(lodge)


def test_clients_hear_of_a_killed_monitor(lodge, tiny_image):
    run = lodge.start("run", "--name", "g", "tiny", "payload", "echo", "up", "+", "forever")
    assert run.stdout.readline() == "up\n"
    waiter = lodge.start("wait", "g")
    wait_until(lambda: waits(waiter.pid), "wait to wait")
    os.kill(monitor_pid(lodge, "g"), signal.SIGKILL)
    assert run.wait(5) == 125
    line = run.stderr.read()
    assert line.startswith("lodge: ") and line.count("\n") == 1, line
    assert waiter.wait(5) == 0 and waiter.stdout.read() == "137\n"


def waits(pid):
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "S"


def test_init_killed_from_the_host(lodge, tiny_image):
    running(lodge)
    os.kill(init_pid(lodge, "g"), signal.SIGKILL)
    assert lodge("wait", "g").stdout == "137\n"
    assert inspect(lodge, "g")["exit_reason"] == "killed"


def test_everything_of_the_run_directory_lost(lodge, tiny_image):
    """As after a reboot of the host: /run is empty, and rows still say "running"."""
    running(lodge)
    os.kill(monitor_pid(lodge, "g"), signal.SIGKILL)
    for path in mounts_below(lodge.runtime):
        subprocess.run(["umount", "-l", path], check=True)
    subprocess.run(["rm", "-rf", lodge.runtime], check=True)
    assert inspect(lodge, "g")["state"] == "stopped"
    lodge("start", "g")
    lodge("exec", "g", "true")
    lodge("rm", "-f", "g")
    assert_nothing_left(lodge)
