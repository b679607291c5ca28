"""A guest's life from create to rm, and everything that one can do with it meanwhile."""

import os
import re
import shutil
import signal
import subprocess
import termios
import threading
import time

import pytest

from guests import (assert_nothing_left, init_pid, inspect, listed, monitor_pid, rows, run_bytes,
                    send, start_system, state_of)
from runner import LODGE, PAYLOAD, wait_until


def run_forever(lodge, name="g", *options, words=("payload", "echo", "up", "+", "forever")):
    lodge("run", "-d", "--name", name, *options, "tiny", *words)
    return name


def logs(lodge, name, *options):
    return lodge("logs", *options, name).stdout


# ---- create, start, stop, rm ----

def test_a_whole_life(lodge, tiny_image):
    assert lodge("create", "--name", "g", "tiny", "payload", "echo", "up", "+",
                 "forever").stdout == "g\n"
    assert lodge("ls").lines[1:] == []
    assert state_of(lodge, "g") == "created"
    assert lodge("start", "g").stdout == ""
    assert state_of(lodge, "g") == "running"
    lodge("stop", "g")
    assert state_of(lodge, "g") == "stopped"
    lodge("start", "g")
    lodge("rm", "-f", "g")
    assert_nothing_left(lodge)


def test_created_guest_has_no_files_and_nothing_mounted(lodge, tiny_image):
    lodge("create", "--name", "g", "tiny", "true")
    assert listed(lodge.state / "guests") == [] and listed(lodge.runtime / "guests") == []
    assert lodge("logs", "g").stdout == ""
    lodge("rm", "g")
    assert_nothing_left(lodge)


def test_files_persist_over_stop_and_start(lodge, tiny_image):
    lodge("create", "--name", "g", "tiny", "sh", "-c",
          "echo x >>/root/count; rm -f /etc/group; mknod -m 600 /tmp/p p; wc -l </root/count; "
          "ls /etc /tmp")
    # The first start adds the two that name it.
    files = ["/etc:", "hostname", "hosts", "passwd", "", "/tmp:", "p"]
    assert lodge("start", "-a", "g").lines == ["1", *files]
    assert lodge("start", "-a", "g").lines == ["2", *files]


def test_shared_memory_and_processes_do_not_persist(lodge, tiny_image):
    lodge("create", "--name", "g", "tiny", "sh", "-c", "ls /dev/shm; echo x >/dev/shm/x; echo $$")
    for _ in range(2):
        assert lodge("start", "-a", "g").lines == ["1"]


def test_start_attached_gives_the_status(lodge, tiny_image):
    lodge("create", "--name", "g", "tiny", "payload", "err", "e", "+", "exit", "5")
    result = lodge("start", "--attach", "g", status=5)
    assert (result.stdout, result.stderr) == ("", "e\n")


def test_start_interactive(lodge, tiny_image):
    lodge("create", "-i", "--name", "g", "tiny", "cat")
    assert lodge("start", "-i", "g", input="hello").stdout == "hello"


def test_several_at_once(lodge, tiny_image):
    names = ["a", "b", "c"]
    for name in names:
        lodge("create", "--name", name, "tiny", "payload", "forever")
    lodge("start", *names)
    assert lodge("ls", "-q").lines == names
    lodge("stop", *names)
    assert lodge("ls", "-q").stdout == ""
    assert lodge("wait", *names).stdout.count("\n") == 3
    lodge("rm", *names)
    assert_nothing_left(lodge)


def test_guest_by_id_and_prefix(lodge, tiny_image):
    lodge("create", "--name", "g", "tiny", "true")
    guest_id = inspect(lodge, "g")["id"]
    assert re.fullmatch("[0-9a-f]{12}", guest_id)
    for text in (guest_id, guest_id[:6], guest_id[:3]):
        assert inspect(lodge, text)["name"] == "g"
    lodge.fails("inspect", guest_id[:2], match="no guest")


def test_name_wins_over_id(lodge, tiny_image):
    lodge("create", "--name", "a", "tiny", "true")
    prefix = inspect(lodge, "a")["id"][:4]
    lodge("create", "--name", prefix, "tiny", "true")
    assert inspect(lodge, prefix)["name"] == prefix


def test_restarted_many_times(lodge, tiny_image):
    """Nothing piles up: descriptors, mounts, control groups, ids."""
    lodge("create", "--name", "g", "tiny", "payload", "echo", "up")
    for _ in range(20):
        lodge("start", "-a", "g")
    assert logs(lodge, "g") == "up\n" * 20
    lodge("rm", "g")
    assert_nothing_left(lodge)


# ---- stop and kill ----

def test_stop_asks_first(lodge, tiny_image):
    run_forever(lodge, words=("payload", "catch", "15", "+", "exit", "4"))
    wait_until(lambda: logs(lodge, "g") == "ready\n", "the guest")
    lodge("stop", "g")
    assert logs(lodge, "g") == "ready\ncaught 15\n"
    assert (inspect(lodge, "g")["exit_status"], inspect(lodge, "g")["exit_reason"]) == (4, None)


def test_stop_kills_after_the_timeout_and_says_so(lodge, tiny_image):
    """A guest that handles SIGTERM, and then goes on."""
    run_forever(lodge, words=("sh", "-c", "trap 'echo no' TERM; echo up; "
                              "while :; do sleep 100 & wait; done"))
    wait_until(lambda: logs(lodge, "g") == "up\n", "the guest")
    begin = time.monotonic()
    lodge("stop", "-t", "1", "g")
    assert 0.9 < time.monotonic() - begin < 3
    about = inspect(lodge, "g")
    assert about["exit_status"] == 137 and "in time" in about["exit_reason"]
    assert logs(lodge, "g") == "up\nno\n"


def test_stop_of_a_guest_that_ignores_term_takes_the_timeout(lodge, tiny_image):
    run_forever(lodge, words=("payload", "ignore", "15", "+", "echo", "up", "+", "forever"))
    wait_until(lambda: logs(lodge, "g") == "up\n", "the guest")
    lodge("stop", "-t", "1", "g")
    assert inspect(lodge, "g")["exit_status"] == 137


def test_stop_of_a_command_without_handler_is_immediate(lodge, tiny_image):
    """The kernel drops the signal for an init; nobody wants to wait ten seconds for that."""
    run_forever(lodge)
    begin = time.monotonic()
    lodge("stop", "g")
    assert time.monotonic() - begin < 1
    about = inspect(lodge, "g")
    assert (about["exit_status"], about["exit_reason"]) == (143, None)


def test_stop_at_once(lodge, tiny_image):
    run_forever(lodge, words=("payload", "catch", "15"))
    lodge("stop", "-t", "0", "g")
    assert inspect(lodge, "g")["exit_status"] == 137


def test_stop_signal_of_its_own(lodge, tiny_image):
    run_forever(lodge, "g", "--stop-signal", "SIGUSR1", words=("payload", "catch", "10"))
    wait_until(lambda: logs(lodge, "g") == "ready\n", "the guest")
    lodge("stop", "g")
    assert logs(lodge, "g") == "ready\ncaught 10\n"


def test_second_stop_with_less_patience(lodge, tiny_image):
    run_forever(lodge, words=("payload", "ignore", "15", "+", "echo", "up", "+", "forever"))
    wait_until(lambda: logs(lodge, "g") == "up\n", "the guest")
    patient = lodge.start("stop", "-t", "60", "g")
    time.sleep(0.1)
    lodge("stop", "-t", "0", "g", timeout=5)
    assert patient.wait(5) == 0


def test_stop_of_a_stopped_guest_is_no_error(lodge, tiny_image):
    lodge("create", "--name", "g", "tiny", "true")
    lodge("stop", "g")
    assert state_of(lodge, "g") == "created"


def test_kill_sends_the_signal_that_was_asked_for(lodge, tiny_image):
    run_forever(lodge, words=("payload", "catch", "36", "+", "forever"))
    wait_until(lambda: logs(lodge, "g") == "ready\n", "the guest")
    lodge("kill", "--signal", "RTMIN+2", "g")
    wait_until(lambda: "caught 36\n" in logs(lodge, "g"), "the signal")
    assert state_of(lodge, "g") == "running"
    lodge("kill", "-s", "WINCH", "g")
    lodge("kill", "-s", "CONT", "g")
    lodge("exec", "g", "true")
    lodge("kill", "g")
    assert lodge("wait", "g").stdout == "137\n"


def test_wait_right_after_kill(lodge, tiny_image):
    lodge("create", "--name", "g", "tiny", "payload", "forever")
    for _ in range(20):
        lodge("start", "g")
        lodge("kill", "g")
        assert lodge("wait", "g").stdout == "137\n"


def test_wait_tells_the_status_before_and_after(lodge, tiny_image):
    run_forever(lodge, words=("payload", "sleep", "0.3", "+", "exit", "6"))
    assert lodge("wait", "g").stdout == "6\n"
    assert lodge("wait", "g").stdout == "6\n"


def test_wait_for_a_guest_with_rm(lodge, tiny_image):
    run_forever(lodge, "g", "--rm", words=("payload", "sleep", "0.3", "+", "exit", "6"))
    assert lodge("wait", "g").stdout == "6\n"
    assert_nothing_left(lodge)


def test_rm_of_a_guest_right_after_its_end(lodge, tiny_image):
    for _ in range(15):
        run_forever(lodge, words=("payload", "forever"))
        lodge("stop", "-t", "0", "g")
        lodge("rm", "g")
    assert_nothing_left(lodge)


def test_pids_limit_and_zombies(lodge, tiny_image):
    """Orphans that end in the container don't keep it, nor their control group."""
    lodge("run", "--rm", "tiny", "payload", "orphan", "50", "+", "orphan", "5000", "+", "sleep",
          "0.1")
    assert_nothing_left(lodge)


# ---- ls and inspect ----

def test_ls(lodge, tiny_image):
    lodge("create", "--name", "c", "tiny", "true")
    run_forever(lodge, "r")
    lodge("run", "--name", "s", "tiny", "payload", "exit", "3", status=3)
    assert lodge("ls", "-q").lines == ["r"]
    assert lodge("ls", "-aq").lines == ["c", "r", "s"]
    table = [re.split(r"  +", line.strip()) for line in lodge("ls", "-a").lines]
    assert table[0] == ["NAME", "KIND", "STATUS", "IMAGE", "CREATED", "COMMAND"]
    assert [row[:4] for row in table[1:]] == [
        ["c", "container", "created", "tiny"], ["r", "container", "running", "tiny"],
        ["s", "container", "stopped (3)", "tiny"]]


def test_ls_json(lodge, tiny_image):
    assert lodge.json("ls", "-a") == []
    run_forever(lodge, "g")
    [guest] = lodge.json("ls")
    assert guest["name"] == "g" and guest["kind"] == "container" and guest["state"] == "running"
    assert guest["image"] == "tiny" and guest["command"] == ["payload", "echo", "up", "+", "forever"]
    assert abs(guest["created_at"] - time.time()) < 60


def test_ls_with_hostile_words(lodge, tiny_image):
    """What a command line contains can't drive the terminal of who lists it."""
    lodge("create", "--name", "g", "tiny", "payload", "\x1b[31mred", "a\nb")
    listing = lodge("ls", "-a").stdout
    assert listing.count("\n") == 2 and "\x1b" not in listing
    assert lodge.json("ls", "-a")[0]["command"][1] == "\x1b[31mred"


def test_inspect(lodge, tiny_image):
    run_forever(lodge, "g", "--memory", "64M", "--cpus", "0.5", "--pids", "30", "-e", "A=b")
    about = inspect(lodge, "g")
    config = about["config"]
    assert (config["memory_bytes"], config["cpu_millis"], config["pids"]) == (64 << 20, 500, 30)
    assert "A=b" in config["env"] and about["image_digest"].startswith("sha256:")
    assert abs(about["started_at"] - time.time()) < 60
    with open(f"/proc/{about['pid']}/cmdline", "rb") as cmdline:
        assert cmdline.read() == b"payload\0echo\0up\0+\0forever\0"
    lodge("stop", "g")
    assert "pid" not in inspect(lodge, "g")


# ---- logs ----

def test_logs_keep_streams_apart_and_bytes_exact(lodge, tiny_image):
    run_bytes(lodge, "run", "--name", "g", "tiny", "sh", "-c",
              "printf 'a\\000\\377\\r\\nno end'; printf 'e' >&2")
    done = run_bytes(lodge, "logs", "g")
    assert (done.stdout, done.stderr) == (b"a\0\xff\r\nno end", b"e")


def test_logs_outlive_the_monitor_and_add_up(lodge, tiny_image):
    lodge("create", "--name", "g", "tiny", "payload", "lines", "3")
    lodge("start", "-a", "g")
    lodge("start", "-a", "g")
    assert logs(lodge, "g") == "line 1\nline 2\nline 3\n" * 2
    assert logs(lodge, "g", "--tail", "2") == "line 2\nline 3\n"
    assert logs(lodge, "g", "--tail", "0") == ""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z line 3\n",
                        logs(lodge, "g", "-t", "--tail", "1"))
    assert logs(lodge, "g", "--since", "1h").count("\n") == 6
    assert logs(lodge, "g", "--since", "2100-01-01") == ""


def test_logs_of_a_killed_monitor_are_kept(lodge, tiny_image):
    run_forever(lodge)
    wait_until(lambda: logs(lodge, "g") == "up\n", "its output")
    os.kill(monitor_pid(lodge, "g"), signal.SIGKILL)
    wait_until(lambda: state_of(lodge, "g") == "stopped", "its end")
    lodge("start", "g")
    wait_until(lambda: logs(lodge, "g") == "up\n" * 2, "more output")


def test_logs_rotate(lodge, tiny_image):
    """50 MB of output: not all of it is kept, but its end, in few files."""
    lodge("run", "--name", "g", "tiny", "sh", "-c", "seq 1 6000000; echo end",
          timeout=60)
    files = [f for f in (lodge.state / "guests" / inspect(lodge, "g")["id"]).iterdir()
             if f.name.startswith("log")]
    assert 2 <= len(files) <= 3 and sum(f.stat().st_size for f in files) < 32 << 20
    kept = logs(lodge, "g").splitlines()
    assert kept[-1] == "end" and kept[-2] == "6000000"
    numbers = [int(line) for line in kept[1:-1]]
    assert numbers == list(range(numbers[0], 6000001)), "lines are missing in the middle"


def test_logs_follow_ends_with_the_guest(lodge, tiny_image):
    run_forever(lodge, words=("sh", "-c", "echo one; sleep 0.5; echo two; sleep 0.5; echo three"))
    follow = lodge.start("logs", "-f", "g")
    out, err = follow.communicate(timeout=10)
    assert (follow.returncode, out, err) == (0, "one\ntwo\nthree\n", "")


def test_logs_follow_of_a_stopped_guest_ends_at_once(lodge, tiny_image):
    lodge("run", "--name", "g", "tiny", "payload", "echo", "x")
    assert lodge("logs", "-f", "g", timeout=5).stdout == "x\n"


def test_logs_follow_sees_output_at_once(lodge, tiny_image):
    run_forever(lodge, "g", words=("payload", "echo", "up", "+", "catch", "10"))
    follow = lodge.start("logs", "--follow", "g")
    assert follow.stdout.readline() == "up\n"
    assert follow.stdout.readline() == "ready\n"
    lodge("kill", "-s", "USR1", "g")
    assert follow.stdout.readline() == "caught 10\n"
    assert follow.wait(5) == 0


def test_logs_to_a_reader_that_goes(lodge, tiny_image):
    lodge("run", "--name", "g", "tiny", "seq", "100000")
    done = lodge.start("logs", "g")
    assert done.stdout.readline() == "1\n"
    done.stdout.close()
    assert done.wait(5) in (-signal.SIGPIPE, 125, 141)


# ---- attach ----

def test_attach_sees_what_comes_and_the_status(lodge, tiny_image):
    run_forever(lodge, words=("sh", "-c", "trap 'echo bye; exit 3' USR1; echo up; "
                              "while :; do sleep 100 & wait; done"))
    wait_until(lambda: logs(lodge, "g") == "up\n", "the guest")
    attached = [lodge.start("attach", "--no-stdin", "g") for _ in range(3)]
    time.sleep(0.2)
    lodge("kill", "-s", "USR1", "g")
    for process in attached:
        out, err = process.communicate(timeout=5)
        assert (process.returncode, out, err) == (3, "bye\n", "")


def test_attach_passes_input_on(lodge, tiny_image):
    run_forever(lodge, "g", "-i", words=("cat",))
    attached = lodge.start("attach", "g")
    attached.stdin.write("hello\n")
    attached.stdin.flush()
    assert attached.stdout.readline() == "hello\n"


def test_end_of_an_attachment_is_not_the_guests(lodge, tiny_image):
    run_forever(lodge, words=("sh", "-c", "while :; do echo x; sleep 0.05; done"))
    attached = lodge.start("attach", "--no-stdin", "g")
    assert attached.stdout.readline() == "x\n"
    send(attached, signal.SIGINT)
    attached.wait(5)
    attached = lodge.start("attach", "--no-stdin", "g")
    assert attached.stdout.readline() == "x\n"
    attached.kill()
    attached.wait(5)
    lodge("exec", "g", "true")


def test_stopped_attachment_does_not_hold_up_the_guest(lodge, tiny_image):
    """A client that is suspended (Ctrl-Z) for hours must not stop a service."""
    run_forever(lodge, words=("sh", "-c", "trap 'seq 1000000; touch /done' USR1; echo up; "
                              "while :; do sleep 100 & wait; done"))
    wait_until(lambda: logs(lodge, "g") == "up\n", "the guest")
    attached = lodge.start("attach", "--no-stdin", "g")
    time.sleep(0.1)
    send(attached, signal.SIGSTOP)
    try:
        lodge("kill", "-s", "USR1", "g")
        wait_until(lambda: lodge("exec", "g", "test", "-e", "/done", status=None).status == 0,
                   "the guest to write it all", timeout=15)
        lodge("stop", "-t", "0", "g", timeout=10)
    finally:
        send(attached, signal.SIGCONT)


def test_stopped_run_does_not_keep_stop_and_rm_waiting(lodge, tiny_image):
    """The one that started it holds the guest up, as a terminal would, but not for ever."""
    run = lodge.start("run", "--name", "g", "tiny", "yes")
    assert run.stdout.readline() == "y\n"
    send(run, signal.SIGSTOP)
    try:
        time.sleep(0.3)
        lodge("stop", "-t", "1", "g", timeout=10)
        assert state_of(lodge, "g") == "stopped"
        lodge("rm", "g", timeout=10)
    finally:
        send(run, signal.SIGCONT)
        run.kill()
    assert_nothing_left(lodge)


# ---- terminals ----

def test_terminal_is_one(lodge, tiny_image):
    terminal = lodge.terminal("run", "--rm", "-it", "tiny", "sh", "-c",
                              "payload tty; stty size; tty", rows=31, columns=91)
    for pattern in (r"0 /dev/pts/0\r\n1 /dev/pts/0\r\n2 /dev/pts/0\r\n", r"31 91\r\n",
                    r"/dev/pts/0\r\n"):
        terminal.expect(pattern)
    assert terminal.wait() == 0


def test_resize_reaches_the_guest(lodge, tiny_image):
    terminal = lodge.terminal("run", "--rm", "-it", "tiny", "payload", "wait-winsize", rows=24,
                              columns=80)
    terminal.expect("waiting")
    time.sleep(0.1)  # the first size may be told after the command has begun
    terminal.resize(50, 132)
    terminal.expect("rows")
    assert terminal.wait() == 0


def test_size_is_right_from_the_start_and_after_a_resize(lodge, tiny_image):
    terminal = lodge.terminal("run", "--rm", "-it", "tiny", "sh", rows=33, columns=99)
    terminal.expect(r"# ")
    terminal.send("stty size\n")
    terminal.expect(r"33 99\r\n")
    terminal.resize(12, 34)
    time.sleep(0.2)
    terminal.send("stty size\n")
    terminal.expect(r"12 34\r\n")
    terminal.send("exit 7\n")
    assert terminal.wait() == 7


def test_ctrl_c_is_the_guests(lodge, tiny_image):
    """The shell survives it, what it runs does not."""
    terminal = lodge.terminal("run", "--rm", "-it", "tiny", "sh")
    terminal.expect("# ")
    terminal.send("sleep 1000\n")
    terminal.expect("sleep 1000\r\n")
    time.sleep(0.3)
    terminal.send("\x03")
    terminal.expect(r"\^C\r\n")
    terminal.send("echo status $?\n")
    terminal.expect(r"status 130\r\n")
    terminal.send("exit 3\n")
    assert terminal.wait() == 3


def test_job_control_works(lodge, tiny_image):
    terminal = lodge.terminal("run", "--rm", "-it", "tiny", "sh")
    terminal.expect("# ")
    assert "can't access tty" not in terminal.output
    terminal.send("sleep 1000\n")
    terminal.expect("sleep 1000\r\n")
    time.sleep(0.3)
    terminal.send("\x1a")
    terminal.expect("Stopped")
    terminal.send("kill %1; fg; exit\n")
    terminal.wait()


def test_terminal_is_as_before_after_the_guest(lodge, tiny_image):
    """Raw mode is taken back, also when the guest is killed."""
    terminal = lodge.terminal("run", "--rm", "--name", "g", "-it", "tiny", "payload", "echo", "up",
                              "+", "forever")
    before = termios.tcgetattr(terminal.fd)
    terminal.expect("up")
    wait_until(lambda: not termios.tcgetattr(terminal.fd)[3] & termios.ICANON, "raw mode")
    lodge("kill", "g")
    assert terminal.wait() == 137
    after = termios.tcgetattr(terminal.fd)
    assert after[3] & termios.ICANON and after[3] & termios.ECHO and after[1] & termios.OPOST
    assert before[0] & termios.ICRNL == after[0] & termios.ICRNL


@pytest.mark.parametrize("options, keys", [([], "\x10\x11"), (["--detach-keys", "ctrl-a,d"], "\x01d")],
                         ids=["default", "chosen"])
def test_detach_keys(lodge, tiny_image, options, keys):
    terminal = lodge.terminal("run", "--name", "g", "-it", *options, "tiny", "sh")
    terminal.expect("# ")
    terminal.send("x=kept\n")
    terminal.expect("# ")
    terminal.send(keys)
    assert terminal.wait() == 0
    assert state_of(lodge, "g") == "running"
    again = lodge.terminal("attach", "g")
    again.send("echo $x\n")
    again.expect(r"kept\r\n")
    again.send("\x10\x11")
    assert again.wait() == 0
    assert state_of(lodge, "g") == "running"


def test_half_of_the_detach_keys_is_input(lodge, tiny_image):
    terminal = lodge.terminal("run", "--rm", "-it", "tiny", "sh", "-c",
                              "stty raw -echo; echo ready; head -c 3 | od -An -tx1")
    terminal.expect("ready")
    time.sleep(0.1)
    terminal.send("\x10\x10x")
    terminal.expect("10 10 78")


def test_terminal_in_the_background_and_many_attached(lodge, tiny_image):
    lodge("run", "-d", "--name", "g", "-it", "tiny", "sh")
    first, second = lodge.terminal("attach", "g"), lodge.terminal("attach", "g")
    time.sleep(0.2)
    first.send("echo to-$((40+2))-both\n")
    first.expect("to-42-both")
    second.expect("to-42-both")
    second.send("exit 5\n")
    assert (first.wait(), second.wait()) == (5, 5)


def test_attachment_with_a_terminal_hung_up(lodge, tiny_image):
    """The window is closed: the attachment ends, the guest does not."""
    lodge("run", "-d", "--name", "g", "-it", "tiny", "sh")
    terminal = lodge.terminal("attach", "g")
    terminal.send("echo $((1+1))up\n")
    terminal.expect("2up")
    process = terminal.process
    del terminal  # closes our side of it
    assert process.wait(5) is not None
    lodge("exec", "g", "true")


def test_t_without_a_terminal_of_ours(lodge, tiny_image):
    """In a script: the guest has one, we pass on what it writes."""
    result = lodge("run", "--rm", "-t", "tiny", "payload", "tty")
    assert result.lines == [f"{fd} /dev/pts/0" for fd in range(3)]


# ---- exec ----

def test_exec_status_and_streams(lodge, tiny_image):
    run_forever(lodge)
    result = lodge("exec", "g", "payload", "echo", "out", "+", "err", "e", "+", "exit", "9", status=9)
    assert (result.stdout, result.stderr) == ("out\n", "e\n")
    lodge.fails("exec", "g", "no-such-command", match="no-such-command", status=127)
    lodge.fails("exec", "g", "/etc/passwd", match="/etc/passwd", status=126)
    assert lodge("exec", "g", "sh", "-c", "kill -9 $$", status=137).stderr == ""
    assert lodge("exec", "g", "cat", input="hello").stdout == "hello"


def test_exec_is_in_all_namespaces(lodge, tiny_image):
    run_forever(lodge)
    pid = init_pid(lodge, "g")
    inside = lodge("exec", "g", "sh", "-c",
                   "for n in cgroup ipc mnt net pid time user uts; do readlink /proc/self/ns/$n; "
                   "done").lines
    assert inside == [os.readlink(f"/proc/{pid}/ns/{n}") for n in
                      ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")]


def test_exec_is_in_all_control_groups(lodge, tiny_image):
    run_forever(lodge, "g", "--memory", "64M", "--pids", "20", "--cpus", "1")
    run = lodge.start("exec", "g", "payload", "echo", "up", "+", "forever")
    assert run.stdout.readline() == "up\n"
    own = inspect(lodge, "g")["id"]

    def groups(pid):
        with open(f"/proc/{pid}/cgroup") as text:
            return {line.split(":", 1)[1].strip() for line in text if own in line}

    init = init_pid(lodge, "g")
    joined = [int(p) for p in os.listdir("/proc") if p.isdigit() and int(p) != init
              and groups_or_none(groups, p)]
    assert len(joined) == 1
    paths = {re.sub(r"/lodge-exec$", "", g) for g in groups(joined[0])}
    assert paths == {re.sub(r"/lodge-[a-z]+$", "", g) for g in groups(init)} and len(paths) == 4
    lodge("stop", "g")
    run.wait(5)


def groups_or_none(groups, pid):
    try:
        return groups(pid)
    except OSError:
        return None


def test_exec_has_the_same_limits_on_rights(lodge, tiny_image):
    words = ("payload", "status", "CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb", "NoNewPrivs",
             "Seccomp")
    run_forever(lodge, words=(*words, "+", "forever"))
    wait_until(lambda: logs(lodge, "g").count("\n") == 7, "the guest")
    assert lodge("exec", "g", *words).stdout == logs(lodge, "g")


def test_exec_counts_against_the_pids_limit(lodge, tiny_image):
    run_forever(lodge, "g", "--pids", "10")
    run = lodge.start("exec", "g", "payload", "fork", "50", "+", "forever")
    assert run.stdout.readline() == "fork: EAGAIN\n"
    # Ours and the guest's init count too; the kernel may count one that is just going.
    assert run.stdout.readline() in ("forked 8\n", "forked 7\n")
    lodge("stop", "g")
    run.wait(5)


def test_exec_user_workdir_env(lodge, tiny_image):
    run_forever(lodge, "g", "-e", "A=1", "-u", "user", "-w", "/tmp")
    assert lodge("exec", "g", "payload", "id", "+", "cwd").stdout.startswith("uid=1000 gid=1000 ")
    assert lodge("exec", "g", "payload", "cwd").stdout == "/tmp\n"
    assert lodge("exec", "-u", "root", "g", "payload", "id").stdout.startswith("uid=0 gid=0 ")
    assert lodge("exec", "-w", "/etc", "-e", "A=2", "-e", "B=3", "g", "sh", "-c",
                 "pwd; echo $A$B").stdout == "/etc\n23\n"
    assert lodge("exec", "-u", "root", "g", "sh", "-c", "echo $HOME $A $container").stdout == \
        "/root 1 lodge\n"
    lodge.fails("exec", "-u", "nobody-knows", "g", "true", match="nobody-knows")


def test_exec_has_the_guests_environment_only(lodge, tiny_image):
    run_forever(lodge, "g", "-e", "A=1")
    lines = set(lodge("exec", "g", "payload", "env", env={"SECRET": "1"}).lines)
    assert {line.split("=")[0] for line in lines} <= {"A", "PATH", "HOME", "container", "HOSTNAME"}
    assert "HOSTNAME=g" in lines


def test_exec_with_a_terminal(lodge, tiny_image):
    run_forever(lodge)
    terminal = lodge.terminal("exec", "-it", "g", "sh", rows=40, columns=100)
    terminal.expect("# ")
    terminal.send("stty size; tty\n")
    terminal.expect(r"40 100\r\n/dev/pts/\d+\r\n")
    terminal.send("sleep 100\n")
    time.sleep(0.3)
    terminal.send("\x03")
    terminal.expect("# ")
    terminal.send("exit 4\n")
    assert terminal.wait() == 4
    lodge("exec", "g", "true")


def test_exec_ends_with_the_guest(lodge, tiny_image):
    run_forever(lodge)
    run = lodge.start("exec", "g", "payload", "echo", "up", "+", "forever")
    assert run.stdout.readline() == "up\n"
    lodge("stop", "g")
    assert run.wait(5) == 137
    lodge("rm", "g")
    assert_nothing_left(lodge)


def test_rm_force_where_an_exec_was_killed(lodge, tiny_image):
    """Its process is then a child of the host's process 1, which may take its time to reap it; the
    guest's init can't end before."""
    run_forever(lodge, "g", "--pids", "10")
    run = lodge.start("exec", "g", "payload", "fork", "50", "+", "forever")
    assert run.stdout.readline() == "fork: EAGAIN\n"
    run.kill()
    run.wait()
    lodge("rm", "-f", "g")
    assert_nothing_left(lodge)


def test_exec_leaks_nothing(lodge, tiny_image):
    run_forever(lodge)
    with open("/etc/hostname") as leak:
        os.set_inheritable(leak.fileno(), True)
        done = run_bytes(lodge, "exec", "g", "payload", "fds", pass_fds=[leak.fileno()])
    assert [line.split()[0] for line in done.stdout.decode().splitlines()] == ["0", "1", "2"]


def test_exec_signals(lodge, tiny_image):
    run_forever(lodge)
    run = lodge.start("exec", "g", "payload", "catch", "15", "+", "exit", "3")
    assert run.stdout.readline() == "ready\n"
    send(run, signal.SIGTERM)
    assert run.wait(5) == 3


# ---- two at once ----

def parallel(*commands):
    """Starts them all, then waits; returns the processes with `out` and `err`."""
    def finish(process):
        process.out, process.err = process.communicate(timeout=60)

    processes = [command() for command in commands]
    threads = [threading.Thread(target=finish, args=(p,)) for p in processes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return processes


def test_twenty_runs_at_once(lodge, tiny_image):
    done = parallel(*[lambda i=i: lodge.start("run", "--rm", "tiny", "payload", "echo", str(i))
                      for i in range(20)])
    assert [(p.returncode, p.out, p.err) for p in done] == [(0, f"{i}\n", "") for i in range(20)]
    assert_nothing_left(lodge)


def test_twenty_runs_at_once_in_a_fresh_directory(lodge, tiny_image):
    """The first command of all makes directories and database: so may two."""
    fresh = lodge.dir / "fresh"
    done = parallel(*[lambda: subprocess.Popen(
        ["env", f"LODGE_STATE_DIR={fresh}/state", f"LODGE_RUNTIME_DIR={fresh}/run",
         LODGE, "ls", "-aq"], text=True, env=lodge.env, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE) for _ in range(20)])
    assert [(p.returncode, p.out, p.err) for p in done] == [(0, "", "")] * 20


def test_two_of_one_name_at_once(lodge, tiny_image):
    for _ in range(5):
        done = parallel(*[lambda: lodge.start("create", "--name", "g", "tiny", "true")] * 4)
        assert sorted(p.returncode for p in done) == [0, 125, 125, 125]
        assert all(p.returncode == 0 or "'g' exists" in p.err for p in done)
        lodge("rm", "g")


def test_two_starts_of_one_guest(lodge, tiny_image):
    lodge("create", "--name", "g", "tiny", "payload", "forever")
    for _ in range(8):
        done = parallel(*[lambda: lodge.start("start", "g")] * 2)
        assert sorted(p.returncode for p in done) == [0, 125]
        [loser] = [p for p in done if p.returncode]
        assert re.fullmatch("lodge: [^\n]*'g' is running already[^\n]*\n", loser.err), loser.err
        lodge("exec", "g", "true")
        lodge("stop", "-t", "0", "g")


def test_start_against_rm(lodge, tiny_image):
    """Either the guest runs and rm was refused, or it is gone. Nothing between."""
    seen = set()
    for i in range(25):
        lodge("create", "--name", "g", "tiny", "payload", "forever")
        commands = [lambda: lodge.start("start", "g"), lambda: lodge.start("rm", "g")]
        done = parallel(*(commands if i % 2 else reversed(commands)))
        guests = lodge.json("ls", "-a")
        assert sorted(p.returncode for p in done) == [0, 125], [p.err for p in done]
        [loser] = [p for p in done if p.returncode]
        assert re.fullmatch("lodge: [^\n]*'g'[^\n]*\n", loser.err), loser.err
        if guests:
            assert guests[0]["state"] == "running"
            lodge("exec", "g", "true")
            lodge("rm", "-f", "g")
        seen.add(bool(guests))
        assert_nothing_left(lodge)


def test_stop_against_exec_and_logs(lodge, tiny_image):
    for _ in range(8):
        lodge("run", "-d", "--rm", "--name", "g", "tiny", "payload", "forever")
        done = parallel(lambda: lodge.start("stop", "-t", "0", "g"),
                        lambda: lodge.start("exec", "g", "true"),
                        lambda: lodge.start("wait", "g"),
                        lambda: lodge.start("inspect", "g"),
                        lambda: lodge.start("rm", "-f", "g"))
        for process in done:
            assert process.returncode in (0, 125, 137), process.err
            assert re.fullmatch("(lodge: [^\n]*\n)?", process.err), process.err
        assert_nothing_left(lodge)


def test_image_rm_against_run(lodge, tiny_image, tmp_path):
    """The image goes, or the guest gets it; no third."""
    (tmp_path / "t").mkdir()
    shutil.copy(PAYLOAD, tmp_path / "t" / "payload")
    for _ in range(8):
        lodge("image", "import", "new", tmp_path / "t")
        run, rm = parallel(lambda: lodge.start("run", "--name", "g", "new", "/payload", "echo", "x"),
                           lambda: lodge.start("image", "rm", "new"))
        assert run.returncode in (0, 125) and rm.returncode in (0, 125)
        assert run.out == ("x\n" if run.returncode == 0 else "")
        for name in lodge("ls", "-aq").lines:
            lodge("rm", name)
        if "new" in [i["name"] for i in lodge.json("image", "ls")]:
            lodge("image", "rm", "new")
    assert_nothing_left(lodge)


def test_id_ranges_of_guests_do_not_overlap(lodge, tiny_image):
    done = parallel(*[lambda: lodge.start("create", "tiny", "true")] * 10)
    assert all(p.returncode == 0 for p in done)
    bases = [base for base, in rows(lodge, "SELECT id_base FROM guests ORDER BY id_base")]
    assert len(bases) == 10 and all(b - a >= 65536 for a, b in zip(bases, bases[1:]))


def test_system_can_be_stopped_by_its_signal(lodge, tiny_image, tmp_path):
    """A system whose init is not systemd is told that power fails."""
    name = start_system(lodge, tmp_path)
    begin = time.monotonic()
    lodge("stop", name)
    assert time.monotonic() - begin < 5
    assert "bye" in logs(lodge, name)
    assert inspect(lodge, name)["exit_status"] == 0


def test_suspended_exec_does_not_keep_the_guest_from_ending(lodge, tiny_image):
    """Its process is reaped by nobody then, and the kernel holds the init's end back."""
    lodge("run", "-d", "--name", "g", "tiny", "payload", "forever")
    client = lodge.start("exec", "g", "payload", "forever")
    wait_until(lambda: lodge("exec", "g", "ps").stdout.count("forever") == 2, "the command")
    send(client, signal.SIGSTOP)
    try:
        lodge("stop", "-t", "1", "g", timeout=10)
        assert state_of(lodge, "g") == "stopped"
        lodge("rm", "g")
    finally:
        send(client, signal.SIGCONT)
    client.wait(5)
