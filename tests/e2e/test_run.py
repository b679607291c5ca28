"""`lodge run`: a command in a container behaves as it would without one."""

import os
import pathlib
import random
import re
import signal
import subprocess

import pytest

from guests import (MEGABYTE, assert_nothing_left, assert_one_line, inspect, listed, run_bytes, send,
                    start_system)
from runner import LODGE, processes_of, wait_until

# Every byte value, NUL and broken UTF-8 included; the same in each run.
NOISE = random.Random(1).randbytes(10 * MEGABYTE)


@pytest.fixture
def volume(tmp_path):
    """A directory of the host's with 10 MB of noise in it."""
    (tmp_path / "noise").write_bytes(NOISE)
    return tmp_path


# ---- exit status ----

@pytest.mark.parametrize("status", [0, 1, 7, 125, 255])
def test_exit_status_is_passed_through(lodge, tiny_image, status):
    result = lodge("run", "--rm", "tiny", "payload", "exit", status, status=status)
    assert (result.stdout, result.stderr) == ("", "")


def test_crash_is_128_and_signal(lodge, tiny_image):
    """A program that does not fit its address space dies of SIGSEGV in execve(). (A signal that it
    sends itself would be dropped: it is its namespace's init.)"""
    result = lodge("run", "--rm", "tiny", "sh", "-c", "ulimit -v 64; exec payload exit 0",
                   status=None)
    assert result.status in (128 + signal.SIGSEGV, 128 + signal.SIGKILL), result


def test_kill_is_137(lodge, tiny_image):
    run = lodge.start("run", "--rm", "--name", "g", "tiny", "payload", "echo", "up", "+", "forever")
    assert run.stdout.readline() == "up\n"
    lodge("kill", "g")
    assert run.wait(5) == 137
    assert run.stderr.read() == ""  # it was asked for


@pytest.mark.parametrize("command", ["/etc/passwd", "/etc", "../etc/passwd"])
def test_what_is_not_executable_is_126(lodge, tiny_image, command):
    result = lodge.fails("run", "--rm", "--workdir", "/etc", "tiny", command, match=command,
                         status=126)
    assert_one_line(result)
    assert_nothing_left(lodge)


def test_file_of_no_known_format_is_126(lodge, tiny_image, tmp_path):
    (tmp_path / "text").write_text("no program at all\n")
    (tmp_path / "text").chmod(0o755)
    lodge.fails("run", "--rm", "--volume", f"{tmp_path}:/v", "tiny", "/v/text", match="/v/text",
                status=126)


@pytest.mark.parametrize("command", ["no-such-command", "/bin/no-such-command", "./x",
                                     "/etc/passwd/x", ""])
def test_missing_command_is_127(lodge, tiny_image, command):
    result = lodge.fails("run", "--rm", "tiny", command, match=re.escape(command), status=127)
    assert_one_line(result)
    assert_nothing_left(lodge)


def test_missing_interpreter_is_127_and_named_as_such(lodge, tiny_image, tmp_path):
    (tmp_path / "script").write_text("#!/no/such/interpreter\n")
    (tmp_path / "script").chmod(0o755)
    lodge.fails("run", "--rm", "--volume", f"{tmp_path}:/v", "tiny", "/v/script",
                match="interpreter", status=127)


def test_command_that_could_not_run_leaves_no_guest_without_rm_either(lodge, tiny_image):
    lodge.fails("run", "--name", "g", "tiny", "no-such-command", match="no-such-command",
                status=127)
    assert_nothing_left(lodge)


def test_status_of_run_is_kept(lodge, tiny_image):
    lodge("run", "--name", "g", "tiny", "payload", "exit", "7", status=7)
    about = inspect(lodge, "g")
    assert (about["state"], about["exit_status"], about["exit_reason"]) == ("stopped", 7, None)


# ---- output ----

def test_stdout_and_stderr_are_separate(lodge, tiny_image):
    result = lodge("run", "--rm", "tiny", "payload", "echo", "out", "+", "err", "wrong")
    assert (result.stdout, result.stderr) == ("out\n", "wrong\n")


def test_output_without_newline_and_empty_output(lodge, tiny_image):
    assert run_bytes(lodge, "run", "--rm", "tiny", "printf", "a\\nb").stdout == b"a\nb"
    assert run_bytes(lodge, "run", "--rm", "tiny", "true").stdout == b""


@pytest.mark.parametrize("options", [[], ["--rm"]], ids=["kept", "rm"])
def test_10_mb_of_noise_pass_unchanged(lodge, tiny_image, volume, options):
    done = run_bytes(lodge, "run", *options, "--volume", f"{volume}:/v", "tiny", "cat", "/v/noise")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == NOISE


def test_10_mb_on_both_streams_at_once(lodge, tiny_image, volume):
    done = run_bytes(lodge, "run", "--rm", "--volume", f"{volume}:/v", "tiny", "sh", "-c",
                     "cat /v/noise & cat /v/noise >&2; wait")
    assert done.returncode == 0
    assert done.stdout == NOISE and done.stderr == NOISE


def test_output_of_a_process_that_outlives_the_command_is_not_waited_for(lodge, tiny_image):
    """Its init's end is the container's end, whoever holds the pipe."""
    result = lodge("run", "--rm", "tiny", "sh", "-c", "sleep 1000 & echo done", timeout=5)
    assert result.stdout == "done\n"


def test_last_words_of_a_crash_are_heard(lodge, tiny_image, volume):
    """What is still in the pipe when the guest ends belongs to its output."""
    for _ in range(5):
        done = run_bytes(lodge, "run", "--rm", "--volume", f"{volume}:/v", "tiny", "sh", "-c",
                         "dd if=/v/noise bs=60000 count=1 2>/dev/null; exit 9")
        assert (done.returncode, done.stdout) == (9, NOISE[:60000])


def test_reader_that_goes_ends_the_guest(lodge, tiny_image):
    """`lodge run ... | head -1` ends, as it would without lodge."""
    run = lodge.start("run", "--rm", "tiny", "yes", stdout=subprocess.PIPE)
    assert run.stdout.readline() == "y\n"
    run.stdout.close()
    assert run.wait(10) != 0
    assert_nothing_left(lodge)


def test_slow_reader_loses_nothing(lodge, tiny_image, volume):
    """A pipe that is read later holds the guest up; nothing is dropped."""
    run = subprocess.Popen(
        ["sh", "-c", '"$0" "$@" | (sleep 1; cat)', LODGE, "run", "--rm", "--volume",
         f"{volume}:/v", "tiny", "cat", "/v/noise"],
        env=lodge.env, stdout=subprocess.PIPE)
    out, _ = run.communicate(timeout=30)
    assert out == NOISE


def test_stdout_that_is_full_is_an_error_of_ours(lodge, tiny_image):
    with open("/dev/full", "w") as full:
        done = run_bytes(lodge, "run", "--rm", "tiny", "yes", stdout=full, timeout=10)
    assert done.returncode == 125
    assert re.fullmatch(rb"lodge: [^\n]*No space left on device\n", done.stderr)
    assert_nothing_left(lodge)


def test_stdout_that_is_closed(lodge, tiny_image):
    """`lodge run ... >&-`: descriptor 1 must not become something else of ours."""
    done = subprocess.run(
        ["sh", "-c", '"$0" "$@" >&-', str(LODGE), "run", "--rm", "tiny", "payload", "echo",
         "hi", "+", "err", "heard"], env=lodge.env, stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE, timeout=10)
    assert done.returncode == 0 and b"hi" not in done.stderr
    assert_nothing_left(lodge)


# ---- input ----

def test_without_i_stdin_is_empty(lodge, tiny_image):
    assert lodge("run", "--rm", "tiny", "cat", input="not for the guest").stdout == ""


def test_10_mb_both_ways(lodge, tiny_image):
    done = run_bytes(lodge, "run", "--rm", "-i", "tiny", "cat", input=NOISE)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == NOISE


def test_file_as_stdin(lodge, tiny_image, volume):
    with open(volume / "noise", "rb") as noise:
        done = run_bytes(lodge, "run", "--rm", "-i", "tiny", "cat", stdin=noise)
    assert done.stdout == NOISE


def test_dev_null_and_empty_file_as_stdin(lodge, tiny_image, tmp_path):
    (tmp_path / "empty").touch()
    for path in ("/dev/null", tmp_path / "empty"):
        with open(path, "rb") as stdin:
            done = run_bytes(lodge, "run", "--rm", "-i", "tiny", "sh", "-c", "cat; echo end",
                             stdin=stdin, timeout=10)
        assert done.stdout == b"end\n", path


def test_stdin_that_is_closed(lodge, tiny_image):
    done = subprocess.run(
        ["sh", "-c", '"$0" "$@" <&-', str(LODGE), "run", "--rm", "-i", "tiny", "sh", "-c",
         "cat; echo end"], env=lodge.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        timeout=10)
    assert (done.returncode, done.stdout) == (0, b"end\n"), done
    assert_nothing_left(lodge)


def test_input_comes_at_once_and_stays_open(lodge, tiny_image):
    run = lodge.start("run", "--rm", "-i", "tiny", "cat")
    for word in ("one\n", "two\n"):
        run.stdin.write(word)
        run.stdin.flush()
        assert run.stdout.readline() == word
    run.stdin.close()
    assert run.wait(5) == 0


def test_guest_that_reads_a_little_of_an_endless_input(lodge, tiny_image):
    with open("/dev/zero", "rb") as zero:
        done = run_bytes(lodge, "run", "--rm", "-i", "tiny", "head", "-c", "100000", stdin=zero,
                         timeout=10)
    assert (done.returncode, done.stdout) == (0, bytes(100000))


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_guest_that_never_reads_can_be_interrupted(lodge, tiny_image, kind):
    """Input that waits for the guest must not keep Ctrl-C from it."""
    with subprocess.Popen(["yes"], stdout=subprocess.PIPE) as yes, open("/dev/zero") as zero:
        run = lodge.start("run", "--rm", "-i", "tiny", "payload", "echo", "up", "+", "forever",
                          stdin=yes.stdout if kind == "pipe" else zero)
        try:
            assert run.stdout.readline() == "up\n"
            wait_until(lambda: sleeps(run.pid), "all buffers to be full")
            send(run, signal.SIGINT)
            assert run.wait(5) in (130, 137)
        finally:
            yes.kill()
            if run.poll() is None:  # its monitor does not listen
                for pid in processes_of(lodge.dir):
                    os.kill(pid, signal.SIGKILL)
    assert_nothing_left(lodge)


def sleeps(pid):
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "S"


def test_guest_that_closes_its_stdin(lodge, tiny_image):
    """The rest of the input is of no use; the guest goes on, and so does run."""
    done = run_bytes(lodge, "run", "--rm", "-i", "tiny", "sh", "-c",
                     "exec <&-; sleep 0.2; echo end", input=NOISE, timeout=10)
    assert (done.returncode, done.stdout) == (0, b"end\n")


# ---- signals ----

@pytest.mark.parametrize("signo", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT,
                                   signal.SIGUSR1, signal.SIGUSR2])
def test_signals_are_passed_on(lodge, tiny_image, signo):
    run = lodge.start("run", "--rm", "tiny", "payload", "catch", int(signo), "+", "exit", "3")
    assert run.stdout.readline() == "ready\n"
    send(run, signo)
    assert run.wait(5) == 3
    assert run.stdout.read() == f"caught {int(signo)}\n"


@pytest.mark.parametrize("signo", [signal.SIGINT, signal.SIGTERM])
def test_signal_without_a_handler_ends_the_guest_as_a_shell_would_report_it(
        lodge, tiny_image, signo):
    run = lodge.start("run", "--rm", "tiny", "payload", "echo", "up", "+", "forever")
    assert run.stdout.readline() == "up\n"
    send(run, signo)
    assert run.wait(5) == 128 + signo
    assert run.stderr.read() == ""


# ---- the environment of the command ----

def env_of(result):
    return dict(line.split("=", 1) for line in result.lines)


def test_environment_is_small_and_known(lodge, tiny_image):
    """Nothing of the host's gets in: not the caller's variables, not Lodge's own."""
    result = lodge("run", "--rm", "--name", "g", "tiny", "payload", "env",
                   env={"SECRET_OF_THE_HOST": "1"})
    assert env_of(result) == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root", "HOSTNAME": "g", "container": "lodge"}


def test_env_sets_replaces_and_takes_over(lodge, tiny_image):
    env = env_of(lodge(
        "run", "--rm", "--env", "A=1", "-e", "A=2", "-e", "EMPTY=", "-e", "X=a=b c\td", "-e", "MINE",
        "-e", "NOT_THERE", "-e", "HOME=/x", "-e", "PATH=/bin", "tiny", "payload", "env",
        env={"MINE": "yes"}))
    assert env["A"] == "2" and env["EMPTY"] == "" and env["X"] == "a=b c\td"
    assert env["MINE"] == "yes" and env["HOME"] == "/x" and env["PATH"] == "/bin"
    assert "NOT_THERE" not in env


def test_command_is_found_by_the_guests_path(lodge, tiny_image, tmp_path):
    (tmp_path / "greet").write_text("#!/bin/sh\necho greetings\n")
    (tmp_path / "greet").chmod(0o755)
    result = lodge("run", "--rm", "-v", f"{tmp_path}:/opt/x", "-e", "PATH=/opt/x:/bin", "tiny",
                   "greet")
    assert result.stdout == "greetings\n"


def test_workdir(lodge, tiny_image):
    assert lodge("run", "--rm", "tiny", "payload", "cwd").stdout == "/root\n"
    assert lodge("run", "--rm", "-w", "/tmp", "tiny", "payload", "cwd").stdout == "/tmp\n"


@pytest.mark.parametrize("directory", ["relative", "/etc/passwd"])
def test_workdir_that_is_none(lodge, tiny_image, directory):
    assert_one_line(lodge.fails("run", "--rm", "-w", directory, "tiny", "true",
                                match=re.escape(directory)))
    assert_nothing_left(lodge)


@pytest.mark.parametrize("user, expected", [
    ("user", "uid=1000 gid=1000 euid=1000 egid=1000 groups=2000 "),
    ("1000", "uid=1000 gid=1000 euid=1000 egid=1000 groups=2000 "),
    ("user:extra", "uid=1000 gid=2000 euid=1000 egid=2000 groups="),
    ("12345", "uid=12345 gid=0 euid=12345 egid=0 groups= "),
    ("12345:54321", "uid=12345 gid=54321 euid=12345 egid=54321 groups= "),
    ("root", "uid=0 gid=0 euid=0 egid=0 groups= "),
])
def test_user(lodge, tiny_image, user, expected):
    assert lodge("run", "--rm", "-u", user, "tiny", "payload", "id").stdout.startswith(expected)


def test_user_has_a_home_and_no_capabilities(lodge, tiny_image):
    result = lodge("run", "--rm", "--user", "user", "tiny", "payload", "cwd", "+", "status",
                   "CapEff", "CapPrm", "CapInh", "CapAmb")
    assert result.lines == ["/home/user"] + [f"{name}:\t0000000000000000"
                                             for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")]


@pytest.mark.parametrize("user", ["nobody-knows-me", "root:no-such-group", "70000", "-1", "0:70000",
                                  "99999999999999999999"])
def test_user_that_is_not_there(lodge, tiny_image, user):
    assert_one_line(lodge.fails("run", "--rm", f"--user={user}", "tiny", "true", match="."))
    assert_nothing_left(lodge)


def test_hostname(lodge, tiny_image):
    assert lodge("run", "--rm", "--hostname", "h.example", "tiny", "payload",
                 "hostname").stdout == "h.example\n"
    assert lodge("run", "--rm", "--name", "n", "tiny", "payload", "hostname").stdout == "n\n"


def test_umask_and_working_standard_devices(lodge, tiny_image):
    result = lodge("run", "--rm", "tiny", "sh", "-c",
                   "payload umask; echo x >/dev/null; echo out >/dev/stdout; "
                   "echo err >/dev/stderr; head -c 3 /dev/zero | wc -c; head -c 5 /dev/urandom | "
                   "wc -c; echo y >/dev/full || true")
    assert result.lines == ["0022", "out", "3", "5"]
    assert result.stderr.startswith("err\n") and "No space left" in result.stderr


# ---- files ----

def test_root_is_writable_and_private(lodge, tiny_image):
    lodge("run", "--rm", "--name", "a", "tiny", "payload", "write", "/file", "x", "+", "cat",
          "/file")
    lodge("run", "--rm", "--name", "b", "tiny", "payload", "cat", "/file", status=1)


def test_read_only(lodge, tiny_image, tmp_path):
    result = lodge("run", "--rm", "--read-only", "-v", f"{tmp_path}:/v", "tiny", "sh", "-c",
                   "payload try write-root; payload write /v/a 1; payload write /dev/shm/b 2; "
                   "cat /v/a /dev/shm/b")
    assert result.lines == ["write-root: EROFS", "1", "2"]


def test_volume_shows_owners_as_they_are(lodge, tiny_image, tmp_path):
    """What is root's on the host is root's in the container, in both directions."""
    os.chmod(tmp_path, 0o777)
    for owner in (0, 1000):
        path = tmp_path / f"of-{owner}"
        path.write_text("x")
        path.chmod(0o640)
        os.chown(path, owner, owner)
    result = lodge("run", "--rm", "-v", f"{tmp_path}:/v", "tiny", "payload", "stat", "/v/of-0",
                   "/v/of-1000", "+", "write", "/v/by-0", "x")
    assert result.lines == ["- 0640 0 0 1 /v/of-0", "- 0640 1000 1000 1 /v/of-1000"]
    lodge("run", "--rm", "-u", "user", "-v", f"{tmp_path}:/v", "tiny", "payload", "write",
          "/v/by-1000", "x", "+", "cat", "/v/of-1000")
    assert [(tmp_path / f"by-{n}").stat().st_uid for n in (0, 1000)] == [0, 1000]


def test_volume_of_a_user_is_closed_to_others(lodge, tiny_image, tmp_path):
    os.chmod(tmp_path, 0o755)
    (tmp_path / "private").write_text("x")
    (tmp_path / "private").chmod(0o600)
    lodge("run", "--rm", "-u", "user", "-v", f"{tmp_path}:/v", "tiny", "cat", "/v/private",
          status=1)


def test_read_only_volume_and_single_file(lodge, tiny_image, tmp_path):
    (tmp_path / "file").write_text("from the host\n")
    result = lodge("run", "--rm", "-v", f"{tmp_path}:/v:ro", "-v", f"{tmp_path}/file:/etc/f:ro",
                   "tiny", "payload", "write", "/v/new", "x", "+", "write", "/etc/f", "x", "+",
                   "cat", "/etc/f")
    assert result.lines == ["/v/new: EROFS", "/etc/f: EROFS", "from the host"]
    assert listed(tmp_path) == ["file"]


def test_read_only_volume_stays_so_for_the_root_of_a_system(lodge, tiny_image, tmp_path):
    """It has CAP_SYS_ADMIN in its user namespace, and still can't change or uncover the mount."""
    host = tmp_path / "host"
    host.mkdir()
    (host / "file").write_text("untouched")
    name = start_system(lodge, tmp_path, options=["-v", f"{host}:/v:ro"])
    for script in ("mount -o remount,rw /v", "mount -o remount,rw,bind /v", "umount /v",
                   "umount -l /v", "echo x > /v/file", "touch /v/new",
                   "mkdir /tmp/b; mount --bind /v /tmp/b && mount -o remount,rw,bind /tmp/b",
                   "unshare -m mount -o remount,rw,bind /v", "unshare -m umount /v"):
        result = lodge("exec", name, "sh", "-c", script, status=None)
        assert result.status != 0, f"this worked: {script}"
    assert (listed(host), (host / "file").read_text()) == (["file"], "untouched")


def test_volume_over_a_symbolic_link_stays_inside(lodge, tiny_image, tmp_path):
    """The image's /v -> /etc (of the container, not of the host)."""
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "seen").write_text("here\n")
    lodge("run", "--name", "g", "tiny", "ln", "-s", "/etc", "/v")
    result = lodge("run", "--rm", "-v", f"{tmp_path}/v:/lodge-e2e-a/b/../c", "tiny", "sh", "-c",
                   "cat /lodge-e2e-a/c/seen", status=None)
    assert result.stdout == "here\n" or result.status == 125, result
    assert not pathlib.Path("/etc/seen").exists() and not pathlib.Path("/lodge-e2e-a").exists()


# ---- names, --rm, -d ----

def test_rm_leaves_nothing(lodge, tiny_image):
    lodge("run", "--rm", "tiny", "payload", "write", "/file", "x")
    assert_nothing_left(lodge)
    assert lodge("ls", "-aq").stdout == ""


def test_rm_leaves_nothing_of_orphans(lodge, tiny_image):
    lodge("run", "--rm", "tiny", "sh", "-c", "for i in 1 2 3 4 5 6 7 8; do (sleep 1000 &) ; done")
    assert_nothing_left(lodge)


def test_rm_leaves_nothing_when_detached(lodge, tiny_image):
    name = lodge("run", "-d", "--rm", "tiny", "payload", "forever").stdout.strip()
    assert lodge("ls", "-q").lines == [name]
    lodge("stop", name)
    assert_nothing_left(lodge)


def test_detached_prints_its_name_and_goes_on(lodge, tiny_image):
    assert lodge("run", "-d", "--name", "g", "tiny", "payload", "echo", "up", "+",
                 "forever").stdout == "g\n"
    assert lodge("ls", "-q").lines == ["g"]
    wait_until(lambda: lodge("logs", "g").stdout == "up\n", "its output in the log")


def test_detached_command_that_can_not_run_is_told_at_once(lodge, tiny_image):
    lodge.fails("run", "-d", "tiny", "no-such-command", match="no-such-command", status=127)
    assert_nothing_left(lodge)


def test_detached_guest_holds_none_of_our_descriptors(lodge, tiny_image):
    """`x=$(lodge run -d ...)` must return though the guest goes on."""
    run = lodge.start("run", "-d", "tiny", "payload", "forever")
    assert run.communicate(timeout=5)[1] == ""


def test_made_up_name(lodge, tiny_image):
    name = lodge("run", "-d", "tiny", "payload", "forever").stdout.strip()
    assert re.fullmatch(r"tiny-[0-9a-f]{4}", name)
    assert lodge("exec", name, "payload", "hostname").stdout == f"{name}\n"


def test_name_that_is_taken(lodge, tiny_image):
    lodge("create", "--name", "g", "tiny", "true")
    for verb in ("run", "create"):
        assert_one_line(lodge.fails(verb, "--name", "g", "tiny", "true", match="'g' exists"))
    assert lodge("ls", "-aq").lines == ["g"]
    lodge("rm", "g")
    assert_nothing_left(lodge)


@pytest.mark.parametrize("name", ["", "-x", ".", "..", "a/b", "../../x", "a b", "a\nb", "ä", "x" * 64,
                                  "%s%n"])
def test_name_that_is_none(lodge, tiny_image, name):
    assert_one_line(lodge.fails("run", f"--name={name}", "tiny", "true", match="name"))
    assert_nothing_left(lodge)


@pytest.mark.parametrize("words", [["--rm", "tiny", "--", "payload", "echo"],
                                   ["--rm", "--", "tiny", "payload", "echo"],
                                   ["--rm", "tiny", "payload", "echo"]])
def test_what_follows_the_command_is_its_own(lodge, tiny_image, words):
    result = lodge("run", *words, "--rm", "-d", "--name", "x", "--help", "--")
    assert result.stdout == "--rm -d --name x --help --\n"


def test_arguments_arrive_as_they_are(lodge, tiny_image):
    words = ["", " ", "a b", "'", '"', "$HOME", "*", "\\", "ä€", "a\nb"]
    result = lodge("run", "--rm", "tiny", "sh", "-c", 'printf "<%s>" "$@"', "sh", *words)
    assert result.stdout == "".join(f"<{w}>" for w in words)


def test_many_arguments(lodge, tiny_image):
    words = ["x" * 100] * 5000
    result = lodge("run", "--rm", "tiny", "sh", "-c", "echo $#", "sh", *words)
    assert result.stdout == "5000\n"


def test_arguments_too_long_for_the_kernel(lodge, tiny_image):
    """126 and one line, whatever the reason for which execve() refuses."""
    result = lodge("run", "--rm", "-e", "A=" + "x" * 120000, "-e", "B=" + "x" * 120000, "tiny", "sh",
                   "-c", "ulimit -s 64; exec payload exit 0 || exit 5", status=None)
    assert result.status not in (0, 125), result
    assert_nothing_left(lodge)
