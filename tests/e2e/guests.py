"""What tests need beside runner.Lodge: exact bytes, system containers, and the question whether
anything is left."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import time

from runner import LODGE, processes_of, wait_until

MEGABYTE = 1 << 20


def run_bytes(lodge, *args, input=None, timeout=60, **kwargs):
    """lodge(*args), with input and output as they are, not as text; any status."""
    if input is None:
        kwargs.setdefault("stdin", subprocess.DEVNULL)
    else:
        kwargs["input"] = input
    return subprocess.run([LODGE, *map(str, args)], env=lodge.env, timeout=timeout,
                          **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **kwargs})


def rows(lodge, query, *parameters):
    with contextlib.closing(sqlite3.connect(f"file:{lodge.state}/lodge.db?mode=ro", uri=True)) as db:
        return db.execute(query, parameters).fetchall()


def listed(directory):
    return sorted(os.listdir(directory)) if directory.exists() else []


def remains(lodge):
    """Whatever there is of guests and of unfinished images on this host, as a list of lines."""
    left = [f"row of guest {name}, {state}" for name, state in
            rows(lodge, "SELECT name, state FROM guests")]
    for directory in (lodge.state / "guests", lodge.runtime / "guests", lodge.state / "tmp"):
        left += [f"{directory}/{name}" for name in listed(directory)]
    left += [f"{lodge.runtime}/images/{name}" for name in listed(lodge.runtime / "images")
             if name != "mount.lock"]
    return left + lodge._leftovers()


def assert_nothing_left(lodge, patience=3):
    """That nothing is left of any guest. A monitor may take a moment after its guest's end; and
    control groups are the whole machine's, where others come and go: what is left stays there."""
    end = time.monotonic() + patience
    left = remains(lodge)
    while left and time.monotonic() < end:
        time.sleep(0.02)
        still = set(remains(lodge))
        left = [line for line in left if line in still]
    assert not left, "left behind:\n" + "\n".join(left)


def assert_one_line(result):
    """One line on stderr, in the user's words."""
    assert result.stderr.startswith("lodge: ") and result.stderr.endswith("\n"), result
    assert result.stderr.count("\n") == 1, f"more than one line: {result}"
    for internal in ("errno", "SQL", "sqlite", "sqlite3_", "src/", ".c:", "flock", "/proc/self/fd",
                     "constraint", "SELECT", "INSERT", "assert", "backtrace"):
        assert internal not in result.stderr.replace("sqlite3 lodge.db .recover", ""), \
            f"{internal!r} is nothing that a user knows: {result}"


def inspect(lodge, name):
    import json
    return json.loads(lodge("inspect", name).stdout)[0]


def state_of(lodge, name):
    return inspect(lodge, name)["state"]


def init_pid(lodge, name):
    return inspect(lodge, name)["pid"]


def monitor_pid(lodge, name):
    """The parent of the guest's init, as the host sees it."""
    with open(f"/proc/{init_pid(lodge, name)}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("PPid:"))


def send(process, signo=signal.SIGINT):
    os.kill(process.pid, signo)


def start_system(lodge, directory, name="system", script="", options=()):
    """Starts a system container whose init is a shell, and waits until it is up: it has the rights
    of a whole operating system, and boots in milliseconds."""
    init = directory / "init"
    init.write_text("#!/bin/sh\ntrap 'echo bye; exit 0' PWR TERM\n" + script +
                    "\necho up\nwhile :; do sleep 1000 & wait; done\n")
    init.chmod(0o755)
    lodge("run", "-d", "--name", name, "--volume", f"{init}:/sbin/init:ro", *options, "tiny",
          "/sbin/init")
    wait_until(lambda: "up" in lodge("logs", name).stdout, "the system's init")
    return name
