"""What tests drive `lodge` with: see Lodge. Fixtures are in conftest.py."""

import dataclasses
import fcntl
import json
import os
import pathlib
import pty
import re
import select
import shlex
import shutil
import signal
import sqlite3
import struct
import subprocess
import tempfile
import termios
import time

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("LODGE_BUILD") or SOURCE / "build").resolve()
LODGE = BUILD / "lodge"
PAYLOAD = BUILD / "tests" / "payload" / "payload"


@dataclasses.dataclass
class Result:
    command: str
    status: int
    stdout: str
    stderr: str

    @property
    def lines(self):
        return self.stdout.splitlines()

    def __str__(self):
        return (f"{self.command}\n-- status {self.status}\n-- stdout\n{self.stdout}"
                f"-- stderr\n{self.stderr}")


def wait_until(condition, what, timeout=10):
    """Calls condition() until it is true, and returns what it returned."""
    end = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {timeout} s in vain for {what}"
        time.sleep(0.02)
    return value


class Lodge:
    """A host of its own: `lodge` with state and runtime directories that nobody else uses.

    lodge("run", "--rm", "tiny", "payload", "exit", "3", status=3)
    """

    unclosed = set()  # closed by conftest.py at the end, if nobody did it before

    def __init__(self, template=None):
        # Not below pytest's directory: a socket's path may be only 107 characters long.
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="lodge-", dir="/var/tmp"))
        self.state = self.dir / "state"
        self.runtime = self.dir / "run"
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("LODGE")}
        self.env["LODGE_STATE_DIR"] = str(self.state)
        self.env["LODGE_RUNTIME_DIR"] = str(self.runtime)
        self._processes = []
        self._cgroups = cgroups()
        self.unclosed.add(self)
        if template:
            copy_images(template.state, self.state)

    def __call__(self, *args, status=0, input=None, timeout=60, env=None, program=LODGE):
        """Runs `lodge ARGS`, expects it to exit with `status` (None: with any), and returns its
        output. Its stdin is `input`, or else /dev/null."""
        command = [str(program), *map(str, args)]
        done = subprocess.run(
            command, env={**self.env, **(env or {})}, timeout=timeout, text=True,
            errors="backslashreplace", stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            **({"stdin": subprocess.DEVNULL} if input is None else {"input": input}))
        result = Result(shlex.join(["lodge", *command[1:]]), done.returncode, done.stdout,
                        done.stderr)
        assert status is None or result.status == status, f"expected status {status}: {result}"
        return result

    def fails(self, *args, match, status=125, **kwargs):
        """Expects Lodge itself to fail, with one line on stderr in which `match` is found."""
        result = self(*args, status=status, **kwargs)
        assert re.fullmatch(r"lodge: [^\n]+\n", result.stderr), result
        assert re.search(match, result.stderr), f"no {match!r} in: {result}"
        return result

    def json(self, *args, **kwargs):
        """A listing, as what `--format json` says."""
        return json.loads(self(*args, "--format", "json", **kwargs).stdout)

    def inspect(self, guest):
        return json.loads(self("inspect", guest).stdout)[0]

    def start(self, *args, **kwargs):
        """Runs `lodge ARGS` beside the test, with pipes; returns the subprocess.Popen."""
        for stream in ("stdin", "stdout", "stderr"):
            kwargs.setdefault(stream, subprocess.PIPE)
        process = subprocess.Popen([str(LODGE), *map(str, args)], env=self.env, text=True, **kwargs)
        self._processes.append(process)
        return process

    def terminal(self, *args, rows=24, columns=80):
        """Runs `lodge ARGS` on a terminal, as a user would."""
        terminal = Terminal([str(LODGE), *map(str, args)], self.env, rows, columns)
        self._processes.append(terminal.process)
        return terminal

    def close(self, patience=2):
        """Ends everything, and returns what is still there after `patience` seconds and should not
        be, as a list of lines."""
        try:
            return self._end(patience)
        finally:
            self._sweep()

    def _end(self, patience):
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        problems = []
        if (self.state / "lodge.db").exists():
            for name in self("ls", "-aq", status=None).stdout.split():
                result = self("rm", "-f", name, status=None)
                # One that was started with --rm may just have ended.
                if result.status != 0 and "no guest named" not in result.stderr:
                    problems.append(str(result))
        end = time.monotonic() + patience
        while (left := self._leftovers()) and time.monotonic() < end:
            time.sleep(0.05)
        return problems + left

    def _leftovers(self):
        left = [f"process {pid}: {command_line(pid)}" for pid in processes_of(self.dir)]
        left += [f"mount at {path}" for path in mounts_below(self.dir)]
        left += [f"loop device of {path}" for path in loops_below(self.dir)]
        left += [f"cgroup {path}" for path in cgroups() - self._cgroups if cgroup_is_empty(path)]
        return left

    def _sweep(self):
        for pid in processes_of(self.dir):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for path in reversed(mounts_below(self.dir)):
            subprocess.run(["umount", "-l", path])
        shutil.rmtree(self.dir, ignore_errors=True)
        self.unclosed.discard(self)


class Terminal:
    """A program on a pseudo-terminal."""

    def __init__(self, command, env, rows, columns):
        self.fd, slave = pty.openpty()
        self.output = ""
        self.resize(rows, columns)
        self.process = subprocess.Popen(
            command, env={**env, "TERM": "xterm"}, stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(slave)

    def __del__(self):
        os.close(self.fd)

    def resize(self, rows, columns):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def send(self, text):
        os.write(self.fd, text.encode())

    def _read(self, timeout):
        if not select.select([self.fd], [], [], max(timeout, 0))[0]:
            return False
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # EIO: nobody has the other side open any more
            return False
        self.output += data.decode(errors="backslashreplace")
        return bool(data)

    def expect(self, pattern, timeout=10):
        """Waits for the pattern, takes the output up to it away, and returns the match."""
        end = time.monotonic() + timeout
        while not (match := re.search(pattern, self.output)):
            alive = self._read(end - time.monotonic())
            assert alive or re.search(pattern, self.output), \
                f"no {pattern!r} in the terminal's output: {self.output!r}"
        self.output = self.output[match.end():]
        return match

    def wait(self, timeout=10):
        """Waits for the end of the program; returns its status."""
        end = time.monotonic() + timeout
        while self.process.poll() is None:
            assert time.monotonic() < end, f"still running; its output: {self.output!r}"
            self._read(0.02)
        while self._read(0):
            pass
        return self.process.returncode


def copy_images(source, target):
    """Gives a new state directory the images of another, without copying what is large."""
    def link(src, dst):
        try:
            os.link(src, dst)
        except OSError:
            shutil.copy2(src, dst)

    target.mkdir(parents=True)
    shutil.copytree(source / "images", target / "images", copy_function=link)
    with sqlite3.connect(source / "lodge.db") as old, sqlite3.connect(target / "lodge.db") as new:
        old.backup(new)


def unescape(path):
    """A path as /proc/self/mountinfo writes it."""
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), path)


def mounts_below(directory):
    text = pathlib.Path("/proc/self/mountinfo").read_text()
    paths = [unescape(line.split()[4]) for line in text.splitlines()]
    return [p for p in paths if (p + "/").startswith(f"{directory}/")]


def loops_below(directory):
    files = pathlib.Path("/sys/block").glob("loop*/loop/backing_file")
    return [text for f in files if (text := f.read_text()).startswith(f"{directory}/")]


def processes_of(directory):
    """Processes that were started for the directory, or whose root is mounted from below it."""
    found = []
    for proc in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            ours = f"={directory}/".encode() in (proc / "environ").read_bytes()
            roots = [line for line in (proc / "mountinfo").read_text(errors="replace").splitlines()
                     if line.split()[4] == "/"]
        except OSError:  # it is gone, or a zombie
            continue
        if ours or any(f"{directory}/" in line for line in roots):
            found.append(int(proc.name))
    return found


def command_line(pid):
    try:
        data = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
        return data.replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return "?"


def in_mount_namespace(script):
    """The output of a shell script that sees cgroup2's tree at /mnt, wherever it is mounted, or
    whether it is at all. Nobody else sees that mount."""
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", f"mount -t cgroup2 none /mnt || exit\n{script}"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


def cgroups():
    """All control groups of Lodge's: those of cgroup2, then those of the v1 hierarchies."""
    return set(in_mount_namespace(
        "find /mnt $(awk '$(NF-2) == \"cgroup\" { print $5 }' /proc/self/mountinfo) "
        "-path '*/lodge/*' -prune -type d").splitlines())


def cgroup_is_empty(path):
    """Whether no process is in it or below: one with processes may be somebody else's guest, and
    processes of ours are looked for by themselves."""
    return not in_mount_namespace(
        f"find {shlex.quote(path)} -name cgroup.procs -exec cat {{}} +")
