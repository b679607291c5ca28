"""What goes wrong gets one clear line, status 125, and leaves nothing behind."""

import contextlib
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import threading
import time

import pytest

from guests import (assert_nothing_left, assert_one_line, init_pid, inspect, listed, run_bytes, send,
                    state_of)
from runner import LODGE, Lodge, mounts_below, wait_until


def refused(lodge, *args, match, status=125, clean=True):
    result = lodge.fails(*args, match=match, status=status)
    assert_one_line(result)
    assert result.stdout == "", result
    if clean:
        assert_nothing_left(lodge)
    return result


# ---- words ----

def test_unknown_image(lodge, tiny_image):
    refused(lodge, "run", "nothing-like-it", "true", match="'nothing-like-it'")


def test_unknown_image_with_a_suggestion(lodge, tiny_image):
    refused(lodge, "run", "tinny", "true", match="did you mean '?tiny'?")
    refused(lodge, "create", "tin", "true", match="did you mean '?tiny'?")


def test_unknown_image_where_there_is_none(lodge):
    refused(lodge, "run", "debian", match="no image")


@pytest.mark.parametrize("option, value", [
    ("--memory", "12Q"), ("--memory", ""), ("--memory", "-1"),
    ("--memory", "99999999999999999999"), ("--memory", "20000000T"), ("--memory", "1.5.2M"),
    ("--memory", "1M "), ("--memory", "nan"), ("--memory", "inf"), ("--memory", "0x10"),
    ("--cpus", "x"), ("--cpus", "0"), ("--cpus", "-1"), ("--cpus", "1,5"), ("--cpus", "1e99"),
    ("--cpus", "nan"), ("--cpus", "inf"), ("--cpus", ""),
    ("--pids", "0"), ("--pids", "-3"), ("--pids", "many"), ("--pids", "99999999999999999999"),
    ("--env", "=x"), ("--env", ""),
    ("--volume", "/tmp"), ("--volume", "/tmp:"), ("--volume", ":/tmp"), ("--volume", "/tmp:relative"),
    ("--volume", "/tmp:/"), ("--volume", "/tmp:/v:rx"), ("--volume", "/tmp:/v:ro:rw"),
    ("--volume", "/no/such/directory:/v"), ("--volume", ""),
    ("--network", "nowhere"), ("--hostname", "a/b"), ("--hostname", "x" * 65),
    ("--stop-signal", "NOTHING"), ("--stop-signal", "0"), ("--stop-signal", "65"),
    ("--stop-signal", "RTMIN+99"), ("--stop-signal", "RTMIN+"),
    ("--cap-add", "NOTHING"), ("--cap-drop", "CAP_"), ("--detach-keys", "ctrl-1,nonsense"),
    ("--workdir", "relative"),
])
def test_bad_value(lodge, tiny_image, option, value):
    refused(lodge, "run", "--rm", f"{option}={value}", "tiny", "true",
            match=re.escape(value.strip() if option != "--volume" else value.partition(":")[0]))


@pytest.mark.parametrize("option", ["--memory", "--name", "--volume", "-e", "--detach-keys"])
def test_missing_value(lodge, tiny_image, option):
    refused(lodge, "run", option, match=option.lstrip("-"))


def test_unknown_option_and_verb(lodge, tiny_image):
    refused(lodge, "run", "--memroy", "1G", "tiny", match="--memory")
    refused(lodge, "run", "--no-such-thing", "tiny", match="--no-such-thing")
    refused(lodge, "run", "-Q", "tiny", match="-Q")
    refused(lodge, "rnu", "tiny", match="run")
    refused(lodge, "frobnicate", match="frobnicate")


@pytest.mark.parametrize("verb", ["start", "stop", "kill", "rm", "inspect", "logs", "attach", "wait"])
def test_unknown_guest(lodge, tiny_image, verb):
    refused(lodge, verb, "nobody", match="no guest named 'nobody'")
    refused(lodge, verb, "", match="no guest named ''")
    refused(lodge, verb, "*", match="no guest named")


def test_unknown_guest_of_exec(lodge, tiny_image):
    refused(lodge, "exec", "nobody", "true", match="no guest named 'nobody'")


@pytest.mark.parametrize("verb", ["run", "create", "start", "stop", "kill", "rm", "inspect", "logs",
                                  "attach", "wait", "exec"])
def test_missing_operand(lodge, tiny_image, verb):
    refused(lodge, verb, match=".")


def test_several_guests_of_which_one_is_unknown(lodge, tiny_image):
    """The others are done all the same."""
    for name in ("a", "b"):
        lodge("create", "--name", name, "tiny", "true")
    refused(lodge, "rm", "a", "nobody", "b", match="nobody", clean=False)
    assert_nothing_left(lodge)


def test_running_guest_refuses(lodge, tiny_image):
    lodge("run", "-d", "--name", "g", "tiny", "payload", "forever")
    refused(lodge, "rm", "g", match="'g' is running", clean=False)
    refused(lodge, "start", "g", match="'g' is running already", clean=False)
    assert state_of(lodge, "g") == "running"


def test_stopped_guest_refuses(lodge, tiny_image):
    lodge("create", "--name", "g", "tiny", "true")
    refused(lodge, "exec", "g", "true", match="'g' is not running", clean=False)
    refused(lodge, "attach", "g", match="'g' is not running", clean=False)
    refused(lodge, "kill", "g", match="'g' is not running", clean=False)
    refused(lodge, "wait", "g", match="'g' has never been started", clean=False)


def test_image_in_use_is_kept(lodge, tiny_image):
    lodge("create", "--name", "g", "tiny", "true")
    refused(lodge, "image", "rm", "tiny", match="g", clean=False)
    lodge("start", "g")


def test_volume_source_that_goes_before_the_start(lodge, tiny_image, tmp_path):
    (tmp_path / "v").mkdir()
    lodge("create", "--name", "g", "-v", f"{tmp_path}/v:/v", "tiny", "true")
    (tmp_path / "v").rmdir()
    refused(lodge, "start", "g", match="/v", clean=False)
    assert state_of(lodge, "g") != "running"
    (tmp_path / "v").mkdir()
    lodge("start", "--attach", "g")


def test_volume_over_a_file_and_a_directory(lodge, tiny_image, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "dir").mkdir()
    refused(lodge, "run", "--rm", "-v", f"{tmp_path}/dir:/etc/passwd", "tiny", "true", match="passwd")
    refused(lodge, "run", "--rm", "-v", f"{tmp_path}/file:/etc", "tiny", "true", match="etc")


def test_memory_too_small_to_start(lodge, tiny_image):
    """The kernel's own minimum: the guest can't even execute."""
    result = lodge("run", "--rm", "--memory", "4K", "tiny", "true", status=None, timeout=20)
    assert result.status in (125, 137), result
    assert_one_line(result)
    assert_nothing_left(lodge)


def test_environment_that_is_not_utf8(lodge, tiny_image):
    done = run_bytes(lodge, "run", "--rm", "-e", "A=\udcff\udcfe", "tiny", "sh", "-c",
                     "printf %s \"$A\"")
    assert done.stdout == b"\xff\xfe" or re.fullmatch(rb"lodge: [^\n]+\n", done.stderr), done
    assert_nothing_left(lodge)


# ---- the state directory ----

def test_state_directory_in_a_place_that_can_not_be_made(lodge):
    for path in ("/proc/lodge", "/dev/null/lodge", "/sys/lodge"):
        result = lodge("ls", env={"LODGE_STATE_DIR": path}, status=125)
        assert_one_line(result)
        assert path in result.stderr and "LODGE_STATE_DIR" in result.stderr, result
        result = lodge("ls", env={"LODGE_RUNTIME_DIR": path}, status=125)
        assert_one_line(result)
        assert path in result.stderr and "LODGE_RUNTIME_DIR" in result.stderr, result


def test_state_directory_of_somebody_else(lodge, tmp_path):
    for variable in ("LODGE_STATE_DIR", "LODGE_RUNTIME_DIR"):
        theirs = tmp_path / variable
        theirs.mkdir()
        os.chown(theirs, 1000, 1000)
        result = lodge("ls", env={variable: str(theirs)}, status=125)
        assert_one_line(result)
        assert str(theirs) in result.stderr and "somebody else" in result.stderr
        assert listed(theirs) == []


def test_state_directory_that_is_a_file(lodge, tmp_path):
    (tmp_path / "file").touch()
    assert_one_line(lodge("ls", env={"LODGE_STATE_DIR": str(tmp_path / "file")}, status=125))


def test_relative_state_directory(lodge, tmp_path):
    """Made where we stand, or refused, in the user's words."""
    done = subprocess.run(["sh", "-c", 'cd "$1" && exec "$0" ls', LODGE, tmp_path],
                          env={**lodge.env, "LODGE_STATE_DIR": "not-there-yet"}, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode == 0:
        assert listed(tmp_path) == ["not-there-yet"]
    else:
        assert done.returncode == 125
        assert re.fullmatch(r"lodge: [^\n]*LODGE_STATE_DIR[^\n]*\n", done.stderr), done




@contextlib.contextmanager
def open_db(host):
    """Committed and closed at the end: an open file would keep a file system busy."""
    with contextlib.closing(sqlite3.connect(host.state / "lodge.db")) as db, db:
        yield db


@pytest.fixture
def small_host(template, tiny_image, tmp_path):
    """A host whose state is on a file system of 24 MB of its own."""
    host = Lodge()
    template_host = template({"tiny_image"})
    image = tmp_path / "ext4"
    with open(image, "wb") as file:
        file.truncate(24 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-F", image], check=True)
    host.state.mkdir()
    subprocess.run(["mount", "-o", "loop", image, host.state], check=True)
    (host.state / "lost+found").rmdir()
    shutil.copytree(template_host.state / "images", host.state / "images")
    with open_db(template_host) as old, open_db(host) as new:
        old.backup(new)
    host("ls")  # lays a reserve by, for times of need
    yield host
    subprocess.run(["mount", "-o", "remount,rw", host.state], check=True)
    (host.state / "filler").unlink(missing_ok=True)
    for name in host("ls", "-aq", status=None).stdout.split():
        host("rm", "-f", name, status=None)
    wait_until(lambda: subprocess.run(["umount", host.state], stderr=subprocess.DEVNULL).returncode
               == 0, "the state's file system to be free")
    left = host.close()
    assert not left, "left behind:\n" + "\n".join(left)


def fill(host, leave=0):
    """Fills the disk to the last block, but for `leave` bytes."""
    path = host.state / "filler"
    with open(path, "ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass
        os.fsync(file.fileno())
        if leave:
            os.ftruncate(file.fileno(), max(0, file.tell() - leave))
    os.sync()


def test_full_disk_create_and_run(small_host):
    small_host("create", "--name", "before", "tiny", "true")
    fill(small_host)
    for args in (["create", "--name", "g", "tiny", "true"], ["run", "--name", "g", "tiny", "true"],
                 ["run", "--rm", "--name", "g", "tiny", "true"]):
        result = small_host(*args, status=None)
        if result.status == 0 and "--rm" in args:
            continue  # it needed no space
        assert result.status == 125, result
        assert_one_line(result)
        assert re.search("full|[Nn]o space|free some space", result.stderr), result
    assert [g["name"] for g in small_host.json("ls", "-a")] == ["before"]
    # With room again everything works.
    (small_host.state / "filler").unlink()
    small_host("start", "--attach", "before")
    small_host("run", "--rm", "tiny", "true")


@pytest.mark.parametrize("leave", [4096, 16384, 65536, 200000])
def test_nearly_full_disk(small_host, leave):
    """Some of a run fits. What does not fit must not stay half made."""
    fill(small_host, leave)
    for i in range(12):
        result = small_host("run", "--name", f"g{i}", "tiny", "payload", "echo", "x", status=None)
        assert result.status in (0, 125), result
        if result.status == 125:
            assert_one_line(result)
    guests = small_host.json("ls", "-a")
    assert all(g["state"] in ("stopped", "created") for g in guests), guests
    (small_host.state / "filler").unlink()
    for guest in guests:
        small_host("rm", guest["name"])
    assert listed(small_host.state / "guests") == []
    small_host("run", "--rm", "tiny", "true")


def test_full_disk_under_a_running_guest(small_host):
    """It goes on, its output still reaches who is attached, and it can be stopped and removed."""
    run = small_host.start("run", "--name", "h", "-i", "tiny", "sh", "-c",
                           "echo up; read x; seq 100000; echo done; exit 4")
    assert run.stdout.readline() == "up\n"
    fill(small_host)
    run.stdin.write("go\n")
    run.stdin.flush()
    output = run.stdout.read()
    assert output == "".join(f"{n}\n" for n in range(1, 100001)) + "done\n"
    assert run.wait(10) == 4
    # Its end may not be on record, but nothing claims that it runs.
    assert "up" in small_host("logs", "h").stdout
    (small_host.state / "filler").unlink()
    wait_until(lambda: state_of(small_host, "h") == "stopped", "the guest to be seen stopped")
    small_host("start", "h")
    small_host("rm", "-f", "h")


def test_full_disk_remove_makes_room(small_host):
    """Whose disk is full removes something: that has to work."""
    small_host("run", "--name", "g", "tiny", "dd", "if=/dev/zero", "of=/big", "bs=1M", "count=2")
    fill(small_host)
    small_host("rm", "g")
    assert listed(small_host.state / "guests") == []
    assert os.statvfs(small_host.state).f_bavail * 4096 > 1 << 20


def test_full_disk_image_import(small_host, tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "noise").write_bytes(random.Random(2).randbytes(4 << 20))
    for leave in (0, 65536, 1 << 20, 3 << 20):
        fill(small_host, leave)
        result = small_host("image", "import", "new", tmp_path / "tree", status=125)
        assert_one_line(result)
        assert re.search("[Nn]o space|full|free some", result.stderr), result
        assert listed(small_host.state / "tmp") == []
        assert [i["name"] for i in small_host.json("image", "ls")] == ["tiny"]
        (small_host.state / "filler").unlink()
    small_host("image", "import", "new", tmp_path / "tree")


def test_read_only_state_directory(small_host):
    small_host("create", "--name", "g", "tiny", "true")
    subprocess.run(["mount", "-o", "remount,ro", small_host.state], check=True)
    for args in (["create", "tiny", "true"], ["run", "--rm", "tiny", "true"], ["start", "g"],
                 ["rm", "g"]):
        result = small_host(*args, status=125)
        assert_one_line(result)
        assert re.search("[Rr]ead-only|readonly", result.stderr), result
    subprocess.run(["mount", "-o", "remount,rw", small_host.state], check=True)
    small_host("start", "--attach", "g")


@pytest.mark.parametrize("damage", ["noise", "header", "middle", "empty-with-wal"])
def test_damaged_database(lodge, tiny_image, damage):
    """One line that says so; no crash, and nothing is overwritten."""
    for i in range(40):
        lodge("create", "--name", f"g{i}", "tiny", "true")
    path = lodge.state / "lodge.db"
    with open_db(lodge) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for suffix in ("-wal", "-shm"):
        (lodge.state / f"lodge.db{suffix}").unlink(missing_ok=True)
    whole = path.read_bytes()
    damaged = {
        "noise": b"this is no database " * 500,
        "header": b"\0" * 100 + whole[100:],
        "middle": whole[:4096] + b"\xa5" * (len(whole) - 4096),
        "empty-with-wal": whole[:1000],
    }[damage]
    path.write_bytes(damaged)
    for args in (["ls", "-a"], ["create", "tiny", "true"], ["run", "--rm", "tiny", "true"],
                 ["rm", "g1"], ["image", "ls"]):
        result = lodge(*args, status=125)
        lines = result.stderr.splitlines()
        assert lines and all(line.startswith("lodge: ") for line in lines), result
        assert "damaged" in result.stderr, result
        assert_one_line(result)
    path.write_bytes(whole)
    lodge("ls", "-a")


def test_database_of_a_newer_version(lodge, tiny_image):
    with open_db(lodge) as db:
        db.execute("PRAGMA user_version=999")
    result = lodge("ls", status=125)
    assert_one_line(result)
    assert "newer" in result.stderr
    with open_db(lodge) as db:
        db.execute("PRAGMA user_version=1")


def test_locked_database_is_waited_for(lodge, tiny_image):
    db = sqlite3.connect(lodge.state / "lodge.db", isolation_level=None, check_same_thread=False)
    db.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.5, lambda: db.execute("COMMIT"))
    timer.start()
    begin = time.monotonic()
    lodge("create", "--name", "g", "tiny", "true")
    assert time.monotonic() - begin > 0.3
    timer.join()
    db.close()


def test_guest_row_that_makes_no_sense(lodge, tiny_image):
    """One bad row must not make all guests unreachable."""
    for name in ("good", "bad"):
        lodge("create", "--name", name, "tiny", "true")
    with open_db(lodge) as db:
        db.execute("UPDATE guests SET config='{' WHERE name='bad'")
    result = lodge("ls", "-a", status=None)
    assert_one_line(result) if result.status else None
    lodge("start", "--attach", "good")
    lodge("rm", "good")
    lodge("rm", "bad", status=None)
    with open_db(lodge) as db:
        db.execute("DELETE FROM guests")


# ---- interrupted ----

def end(process):
    process.communicate(timeout=5)
    return process.returncode


@pytest.mark.parametrize("signo", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "term"])
def test_interrupted_at_any_moment(lodge, tiny_image, signo):
    """run ends, sooner or later in its way up, and with --rm nothing is left."""
    dice = random.Random(int(signo))
    for _ in range(40):
        run = lodge.start("run", "--rm", "--name", "g", "tiny", "payload", "forever")
        time.sleep(dice.uniform(0, 0.016))
        send(run, signo)
        assert end(run) != 0
    assert_nothing_left(lodge)


def test_interrupted_at_any_moment_without_rm(lodge, tiny_image):
    dice = random.Random(3)
    for _ in range(25):
        run = lodge.start("run", "--name", "g", "tiny", "payload", "forever")
        time.sleep(dice.uniform(0, 0.016))
        send(run, signal.SIGINT)
        assert end(run) != 0
        for guest in lodge.json("ls", "-a"):
            assert guest["state"] == "stopped", guest
            lodge("rm", "g")
    assert_nothing_left(lodge)


def test_interrupted_create_is_whole_or_not(lodge, tiny_image):
    dice = random.Random(4)
    for _ in range(25):
        create = lodge.start("create", "--name", "g", "tiny", "true")
        time.sleep(dice.uniform(0, 0.006))
        send(create, signal.SIGINT)
        create.communicate(timeout=5)
        for guest in lodge.json("ls", "-a"):
            assert guest["state"] == "created"
            lodge("rm", "g")
    assert_nothing_left(lodge)


def test_interrupted_import(lodge, tiny_image, tmp_path):
    (tmp_path / "tree").mkdir()
    for i in range(30):
        (tmp_path / "tree" / f"noise{i}").write_bytes(random.Random(i).randbytes(1 << 20))
    dice = random.Random(5)
    for _ in range(8):
        run = lodge.start("image", "import", "new", tmp_path / "tree")
        time.sleep(dice.uniform(0, 0.3))
        send(run, signal.SIGINT)
        _, stderr = run.communicate(timeout=10)
        assert run.returncode in (0, 125, 130, -signal.SIGINT), (run.returncode, stderr)
        assert stderr.count("\n") <= 1, stderr
    lodge("image", "import", "new", tmp_path / "tree")
    lodge("image", "rm", "new")
    assert_nothing_left(lodge)


# ---- /run ----

def test_run_directory_emptied_under_a_running_guest(lodge, tiny_image):
    """An administrator's mistake: the guest can't be reached, but it is not hidden either, and
    Lodge gets rid of it."""
    lodge("run", "-d", "--name", "g", "tiny", "payload", "forever")
    pid = init_pid(lodge, "g")
    guests = lodge.runtime / "guests"
    shutil.rmtree(guests)
    # Whatever is said now: in the end nothing runs that Lodge says is stopped or gone.
    lodge("ls", "-a")
    assert_one_line(lodge("exec", "g", "true", status=125))
    lodge("rm", "-f", "g")
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "the guest's end")
    lodge("run", "--rm", "--name", "g", "tiny", "true")
    assert_nothing_left(lodge)


def test_stop_where_the_run_directory_was_emptied(lodge, tiny_image):
    lodge("run", "-d", "--name", "g", "tiny", "payload", "forever")
    pid = init_pid(lodge, "g")
    shutil.rmtree(lodge.runtime / "guests")
    lodge("stop", "g")
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "the guest's end")
    assert state_of(lodge, "g") == "stopped"
    lodge("start", "g")
    lodge("exec", "g", "true")
    lodge("rm", "-f", "g")
    assert_nothing_left(lodge)


def test_guest_directory_removed_by_hand(lodge, tiny_image):
    """An administrator freed some space: the guest starts as if new, or says why not; rm works."""
    lodge("run", "--name", "g", "tiny", "true")
    shutil.rmtree(lodge.state / "guests" / inspect(lodge, "g")["id"])
    assert lodge("logs", "g").stdout == ""
    lodge("start", "--attach", "g")
    lodge("rm", "g")
    assert_nothing_left(lodge)


def test_image_file_removed_by_hand(lodge, tiny_image):
    lodge("create", "--name", "g", "tiny", "true")
    shutil.rmtree(lodge.state / "images" / "sha256")
    refused(lodge, "start", "g", match="image|erofs", clean=False)
    refused(lodge, "run", "--rm", "tiny", "true", match="image|erofs", clean=False)
    assert mounts_below(lodge.dir) == []
    lodge("rm", "g")


def test_image_file_cut_short(lodge, tiny_image, tmp_path):
    """As after a disk error. (The file is shared by hard links with other tests' hosts.)"""
    [image] = (lodge.state / "images" / "sha256").iterdir()
    [rootfs] = [p for p in image.iterdir() if p.suffix != ".json" and "manifest" not in p.name]
    shutil.copy(rootfs, tmp_path / "copy")
    rootfs.unlink()
    with open(tmp_path / "copy", "rb") as whole:
        rootfs.write_bytes(whole.read()[:2000])
    result = lodge("run", "--rm", "tiny", "true", status=125)
    assert_one_line(result)
    assert_nothing_left(lodge)
