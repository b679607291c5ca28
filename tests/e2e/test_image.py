"""Images: what goes in comes out, nothing leads out of an image, and nothing is left behind."""

import contextlib
import hashlib
import io
import json
import os
import pathlib
import random
import signal
import socket
import sqlite3
import stat
import subprocess
import tarfile
import time

import pytest

from runner import mounts_below, wait_until

pytestmark = pytest.mark.usefixtures("root")

# A capability as the kernel stores it: version 2, cap_net_raw=ep.
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


def sh(*command, **kwargs):
    subprocess.run([str(c) for c in command], check=True, **kwargs)


def make_tree(tree):
    """A bit of everything that a file system can hold."""
    tree.mkdir()
    tree.chmod(0o750)
    for directory in ("bin", "etc", "dev", "empty", "deep/er/and/deeper", "ünïcödé"):
        (tree / directory).mkdir(parents=True)
    (tree / "bin/tool").write_bytes(os.urandom(100_000))
    (tree / "bin/tool").chmod(0o6755)
    os.link(tree / "bin/tool", tree / "bin/same-tool")
    os.link(tree / "bin/tool", tree / "deep/er/third")
    (tree / "bin/sh").symlink_to("/bin/tool")
    (tree / "bin/dangling").symlink_to("../../../nowhere")
    (tree / "bin/ping").write_text("raw sockets")
    os.chown(tree / "bin/ping", 0, 5)
    os.setxattr(tree / "bin/ping", "security.capability", CAPABILITY)
    (tree / "etc/shared").write_text("shared")
    sh("setfacl", "-m", "u:1234:rw,g:77:r,m:rw", tree / "etc/shared")
    sh("setfacl", "-d", "-m", "u:1234:rwx", tree / "empty")
    os.setxattr(tree / "etc/shared", "user.note", b"binary \0\xff\n value")
    os.setxattr(tree / "deep", "user.on-a-directory", b"x")
    (tree / "ünïcödé/ñame").write_text("text")
    (pathlib.Path(os.fsdecode(os.fsencode(tree) + b"/etc/not-\xff-utf8"))).write_text("bytes")
    (tree / ("l" * 254)).write_text("a long name")
    for depth in range(20):
        (tree / "deep/er/and/deeper").joinpath(*["d" * 40] * depth).mkdir(exist_ok=True)
    (tree / "empty/file").write_text("")
    os.mkfifo(tree / "dev/fifo", 0o622)
    os.mknod(tree / "dev/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(tree / "dev/disk", 0o660 | stat.S_IFBLK, os.makedev(259, 70000))
    with open(tree / "sparse", "wb") as f:
        f.seek(40_000_000)
        f.write(b"island")
        f.truncate(60_000_000)
    (tree / "compressible").write_bytes(b"lodge " * 500_000)
    os.chown(tree / "deep", 1000, 70000)
    os.chown(tree / "bin/dangling", 33, 44, follow_symlinks=False)
    (tree / "etc").chmod(0o1777)
    for path in sorted(tree.rglob("*")) + [tree]:
        os.utime(path, ns=(0, 1_500_000_000_123_456_789 + len(str(path))), follow_symlinks=False)
    os.utime(tree / "etc/shared", (0, 0))


def snapshot(tree):
    """Everything about a tree that has to survive, as a dictionary by path."""
    seen, inodes = {}, {}
    for path in [tree, *sorted(tree.rglob("*"))]:
        s = os.lstat(path)
        name = os.fsencode(path.relative_to(tree))
        entry = {"mode": oct(s.st_mode), "owner": (s.st_uid, s.st_gid), "mtime": s.st_mtime_ns}
        if stat.S_ISREG(s.st_mode):
            entry["data"] = (s.st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        if stat.S_ISLNK(s.st_mode):
            entry["target"] = os.readlink(path)
        if stat.S_ISCHR(s.st_mode) or stat.S_ISBLK(s.st_mode):
            entry["device"] = (os.major(s.st_rdev), os.minor(s.st_rdev))
        if not stat.S_ISDIR(s.st_mode):
            entry["same as"] = inodes.setdefault(s.st_ino, name)
        entry["attributes"] = {a: os.getxattr(path, a, follow_symlinks=False)
                               for a in os.listxattr(path, follow_symlinks=False)}
        seen[name] = entry
    return seen


def same(a, b):
    assert sorted(a) == sorted(b)
    for name in a:
        assert a[name] == b[name], name


@contextlib.contextmanager
def mounted(lodge, image):
    """The image's tree."""
    rootfs = json.loads(lodge("image", "inspect", image).stdout)["rootfs_path"]
    where = lodge.dir / "mounted"
    where.mkdir(exist_ok=True)
    sh("mount", "-t", "erofs", "-o", "ro,loop", rootfs, where)
    try:
        yield where
    finally:
        sh("umount", where)


@pytest.fixture
def tree(lodge):
    make_tree(lodge.dir / "tree")
    return lodge.dir / "tree"


def tar(tree, path, *options):
    sh("tar", "--create", "--file", path, "--directory", tree, "--xattrs", "--xattrs-include=*",
       "--acls", "--numeric-owner", "--format=pax", *options, ".")
    return path


def nothing_left(lodge):
    """What is on disk is what the database knows, and no work is lying around."""
    db = sqlite3.connect(lodge.state / "lodge.db")
    digests = {row[0].split(":")[1] for row in db.execute("SELECT digest FROM images")}
    db.close()
    directory = lodge.state / "images" / "sha256"
    assert {d.name for d in directory.iterdir()} == digests if directory.exists() else not digests
    for digest in digests:
        assert {f.name for f in (directory / digest).iterdir()} == {"root.erofs", "manifest.json"}
    tmp = lodge.state / "tmp"
    assert not tmp.exists() or not list(tmp.iterdir())


@pytest.mark.parametrize("options", [
    [], ["--gzip"], ["--xz"], ["--zstd"], ["--bzip2"], ["--sparse"], ["--format=posix", "--sparse"]])
def test_import_keeps_everything(lodge, tree, options):
    tarball = tar(tree, lodge.dir / "t.tar", *options)
    before = snapshot(tree)
    digest = lodge("image", "import", "all", tarball).stdout.strip()
    with mounted(lodge, "all") as result:
        same(snapshot(result), before)
    assert digest == lodge.json("image", "ls")[0]["digest"]
    nothing_left(lodge)


def test_import_of_a_directory(lodge, tree):
    before = snapshot(tree)
    lodge("image", "import", "all", tree)
    with mounted(lodge, "all") as result:
        same(snapshot(result), before)
    nothing_left(lodge)


def test_import_from_stdin(lodge, tree):
    tarball = tar(tree, lodge.dir / "t.tar", "--gzip")
    with open(tarball) as stdin:
        process = lodge.start("image", "import", "piped", "-", stdin=stdin)
        assert process.wait(60) == 0, process.stderr.read()
    with mounted(lodge, "piped") as result:
        same(snapshot(result), snapshot(tree))


def test_import_leaves_out_what_is_mounted_below(lodge, tree):
    (tree / "mnt (1)").mkdir()
    sh("mount", "-t", "tmpfs", "none", tree / "mnt (1)")
    try:
        (tree / "mnt (1)" / "secret").write_text("not the tree's")
        (tree / "mnt (1) too").write_text("stays")
        lodge("image", "import", "all", tree)
    finally:
        sh("umount", tree / "mnt (1)")
    with mounted(lodge, "all") as result:
        same(snapshot(result / "bin"), snapshot(tree / "bin"))
        assert list((result / "mnt (1)").iterdir()) == []
        assert (result / "mnt (1) too").exists()


def test_import_of_a_directory_leaves_out_our_own_state(lodge, tiny_image):
    lodge("image", "import", "all", lodge.dir)
    with mounted(lodge, "all") as result:
        assert (result / "state").is_dir()
        assert list((result / "state").iterdir()) == []


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tar.xz", "tar.zst"])
def test_export_round_trip(lodge, tree, suffix):
    lodge("image", "import", "--cmd", '["/bin/sh", "-c", "a b"]', "-e", "A=ü", "one", tree)
    tarball = lodge.dir / f"out.{suffix}"
    lodge("image", "export", "one", tarball)
    lodge("image", "import", "two", tarball)
    with mounted(lodge, "two") as result:
        same(snapshot(result), snapshot(tree))
    configs = [json.loads(lodge("image", "inspect", name).stdout)["manifest"]["config"]
               for name in ("one", "two")]
    assert configs[0] == configs[1] == {"cmd": ["/bin/sh", "-c", "a b"], "env": ["A=ü"]}
    assert not mounts_below(lodge.dir)


def test_export_is_a_tarball_for_others_too(lodge, tree):
    lodge("image", "import", "one", tree)
    lodge("image", "export", "one", lodge.dir / "a.tar")
    lodge("image", "export", "one", lodge.dir / "b.tar")
    assert (lodge.dir / "a.tar").read_bytes() == (lodge.dir / "b.tar").read_bytes()
    (lodge.dir / "x").mkdir()
    sh("tar", "--extract", "--file", lodge.dir / "a.tar", "--directory", lodge.dir / "x", "--xattrs",
       "--xattrs-include=*", "--acls", "--numeric-owner", "--same-owner")
    os.removexattr(lodge.dir / "x", "user.lodge.config")
    same(snapshot(lodge.dir / "x"), snapshot(tree))


def test_export_replaces_only_when_complete(lodge, tiny_image):
    target = lodge.dir / "out.tar"
    target.write_text("old")
    lodge.fails("image", "export", "nothing", target, match="no image named 'nothing'")
    assert target.read_text() == "old"
    lodge("image", "export", tiny_image, target)
    assert tarfile.is_tarfile(target)
    assert sorted(p.name for p in lodge.dir.glob("out*")) == ["out.tar"]
    lodge.fails("image", "export", tiny_image, "/dev/full", match="No space left on device")
    lodge.fails("image", "export", tiny_image, "/nowhere/x.tar", match="/nowhere/x.tar")


def test_export_does_not_fill_a_terminal(lodge, tiny_image):
    terminal = lodge.terminal("image", "export", tiny_image, "-")
    terminal.expect("not written to a terminal")
    assert terminal.wait() == 125


def member(name, kind=tarfile.REGTYPE, **fields):
    info = tarfile.TarInfo(name)
    info.type = kind
    data = fields.pop("data", b"")
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def write_tar(path, *members, **kwargs):
    with tarfile.open(path, "w", **kwargs) as t:
        for info, data in members:
            t.addfile(info, io.BytesIO(data))
    return path


HOSTILE = {
    "dotdot": [member("../victim", data=b"x")],
    "dotdot inside": [member("a/../../victim", data=b"x")],
    "hard link by dotdot": [member("a", tarfile.LNKTYPE, linkname="../victim")],
    "hard link to nothing": [member("a", tarfile.LNKTYPE, linkname="victim")],
    "hard link to an absolute path": [member("a", tarfile.LNKTYPE, linkname="/etc/hostname-x")],
    "hard link to a directory": [member("d", tarfile.DIRTYPE),
                                 member("a", tarfile.LNKTYPE, linkname="d")],
    "hard link through a symlink": [member("l", tarfile.SYMTYPE, linkname="../../../.."),
                                    member("a", tarfile.LNKTYPE, linkname="l/victim")],
    "a file below a file": [member("a", data=b"x"), member("a/b", data=b"x")],
    "a file in place of a full directory": [member("d/f", data=b"x"), member("d", data=b"x")],
    "the root is a file": [member("./", data=b"x")],
    "through a symlink to nowhere": [member("l", tarfile.SYMTYPE, linkname="/nowhere"),
                                     member("l/f", data=b"x")],
    "through a loop": [member("l", tarfile.SYMTYPE, linkname="l"), member("l/f", data=b"x")],
    "a name too long": [member("a" * 300, data=b"x")],
    "a configuration that is none": [
        member("./", tarfile.DIRTYPE, pax_headers={"SCHILY.xattr.user.lodge.config": "[1]"}),
        member("f")],
    "bigger than any disk": [member("f", pax_headers={
        "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "f",
        "GNU.sparse.realsize": "8000000000000000"}, data=b"0\n".ljust(512, b"\0"))],
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_tarball_is_refused(lodge, case):
    victim = lodge.state / "tmp" / "victim"
    (lodge.state / "tmp").mkdir(parents=True)
    victim.write_text("untouched")
    tarball = write_tar(lodge.dir / "evil.tar", *HOSTILE[case], format=tarfile.PAX_FORMAT)
    lodge.fails("image", "import", "evil", tarball, match="^lodge: import .*evil.tar: ")
    assert victim.read_text() == "untouched" and victim.stat().st_nlink == 1
    victim.unlink()
    assert lodge("image", "ls", "-q").stdout == ""
    nothing_left(lodge)


def test_symlinks_are_followed_inside_the_tree_only(lodge):
    outside = lodge.dir / "outside"
    outside.mkdir()
    up = "../" * 30
    tarball = write_tar(
        lodge.dir / "t.tar",
        # As in a distribution that merged /bin into /usr/bin.
        member("usr/bin", tarfile.DIRTYPE, mode=0o755), member("bin", tarfile.SYMTYPE,
                                                              linkname="usr/bin"),
        member("bin/sh", data=b"shell"),
        # A way out, and one by an absolute path: both end in the tree.
        member("out", tarfile.SYMTYPE, linkname=f"{up}{outside}"),
        member("abs", tarfile.SYMTYPE, linkname=str(outside)),
        member(str(outside), tarfile.DIRTYPE), member("out/one", data=b"1"),
        member("abs/two", data=b"2"),
        # A directory is swapped for a link after it was used.
        member("swap/first", data=b"x"), member("swap/first", tarfile.SYMTYPE, linkname="/"),
        member("e", tarfile.DIRTYPE), member("e", tarfile.SYMTYPE, linkname=f"{up}{outside}"),
        member("e/three", data=b"3"),
        # A file that is written through a link would change what it points to.
        member("f", tarfile.SYMTYPE, linkname=f"{outside}/four"), member("f", data=b"4"),
        member("/absolute", data=b"a"),
        member("again", data=b"1"), member("again", data=b"two"))
    (outside / "four").write_text("untouched")
    lodge("image", "import", "t", tarball)
    assert os.listdir(outside) == ["four"] and (outside / "four").read_text() == "untouched"
    with mounted(lodge, "t") as result:
        inside = result / str(outside).lstrip("/")
        assert (result / "usr/bin/sh").read_text() == "shell"
        assert {p.name: p.read_text() for p in inside.iterdir()} == {
            "one": "1", "two": "2", "three": "3"}
        assert not (result / "f").is_symlink() and (result / "f").read_text() == "4"
        assert (result / "absolute").read_text() == "a"
        assert (result / "again").read_text() == "two"


def test_attributes_of_the_host_are_not_taken_over(lodge):
    headers = {"SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.user.fine": "x",
               "SCHILY.xattr.security.selinux": "label"}
    lodge("image", "import", "t", write_tar(lodge.dir / "t.tar", member("f", pax_headers=headers),
                                            format=tarfile.PAX_FORMAT))
    with mounted(lodge, "t") as result:
        assert os.listxattr(result / "f") == ["user.fine"]


@pytest.mark.parametrize("compression", ["", "gz", "xz", "zst"])
def test_damaged_tarballs_are_refused(lodge, compression):
    (lodge.dir / "tree").mkdir()
    for n in range(20):
        (lodge.dir / "tree" / f"f{n}").write_bytes(os.urandom(3000))
    whole = lodge.dir / f"whole.tar.{compression}"
    sh("tar", "--create", "--auto-compress", "--file", whole, "--directory", lodge.dir / "tree", ".")
    data = whole.read_bytes()
    for part in (0.1, 0.5, 0.8):
        cut = lodge.dir / "cut"
        cut.write_bytes(data[:int(len(data) * part) // 3 * 3 + 1])
        lodge.fails("image", "import", "cut", cut, match="damaged|not a tarball")
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 0xff
    if compression:  # else nothing can tell
        (lodge.dir / "flipped").write_bytes(flipped)
        lodge.fails("image", "import", "flipped", lodge.dir / "flipped", match="damaged")
    nothing_left(lodge)


def mutate(data):
    """Changes a tarball here and there, and makes its checksums right again."""
    headers = [at for at in range(0, len(data) - 511, 512) if data[at + 257:at + 262] == b"ustar"]
    for _ in range(random.randint(1, 6)):
        at = random.choice(headers)
        match random.randrange(5):
            case 0:
                data[at + 156] = random.choice(b"0123456789xgLKSVDNM\0")
            case 1:
                name = random.choice([b"../x", b"/etc/x", b"a/../..", b"l/f", b"l", b"", b".", b"a",
                                      b"a/f/g", b"/" * 90])
                field = at + random.choice([0, 157])
                data[field:field + 100] = name.ljust(100, b"\0")
            case 2:
                data[at + random.randrange(512)] = random.randrange(256)
            case 3:
                data[at + 124:at + 136] = b"%011o\0" % random.choice([0, 1, 512, 2**33 - 1])
            case 4:
                data[random.randrange(len(data))] = random.randrange(256)
    for at in headers:
        data[at + 148:at + 156] = b" " * 8
        data[at + 148:at + 156] = b"%06o\0 " % sum(data[at:at + 512])
    return data


def test_mutated_tarballs(lodge):
    """Whatever a tarball says, it becomes an image or an error of one line."""
    tree = lodge.dir / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "a/f").write_text("x" * 2000)
    (tree / "l").symlink_to("../a")
    os.link(tree / "a/f", tree / "h")
    os.setxattr(tree / "h", "user.x", b"y")
    sh("setfacl", "-m", "u:5:rw", tree / "h")
    seeds = [tar(tree, lodge.dir / "seed.tar").read_bytes()]
    sh("tar", "-cf", lodge.dir / "seed.tar", "--format=gnu", "-C", tree, ".")
    seeds.append((lodge.dir / "seed.tar").read_bytes())
    before = sorted(os.listdir(lodge.dir)) + ["run", "state", "t.tar"]
    for n in range(100):
        (lodge.dir / "t.tar").write_bytes(mutate(bytearray(random.choice(seeds))))
        result = lodge("image", "import", "t", lodge.dir / "t.tar", status=None)
        assert result.status in (0, 125), result
        assert result.stderr.count("\n") == (result.status == 125), result
        nothing_left(lodge)
    assert sorted(os.listdir(lodge.dir)) == sorted(before)


def test_what_is_no_tarball_is_refused(lodge):
    empty = lodge.dir / "empty"
    empty.write_bytes(b"")
    text = lodge.dir / "text"
    text.write_text("This is a text.\n" * 100)
    zeros = write_tar(lodge.dir / "zeros.tar")
    for path in (empty, text, zeros):
        lodge.fails("image", "import", "x", path, match="tarball|nothing in it")
    (lodge.dir / "nothing").mkdir()
    lodge.fails("image", "import", "x", lodge.dir / "nothing", match="nothing in it")
    lodge.fails("image", "import", "x", lodge.dir / "missing", match="No such file")
    nothing_left(lodge)


def test_names(lodge, tiny_image):
    for name in ("-x", "a b", "sha256:0123", "0123456789ab", "x" * 129, "ä", ""):
        lodge.fails("image", "import", "--", name, lodge.dir, match="image name|names look like")
    lodge.fails("image", "inspect", "itny", match="did you mean 'tiny'")
    digest = lodge.json("image", "ls")[0]["digest"]
    for word in (digest, digest.split(":")[1], digest.split(":")[1][:8], digest[:15]):
        assert json.loads(lodge("image", "inspect", word).stdout)["name"] == "tiny"


def insert_guest(lodge, name, digest):
    with sqlite3.connect(lodge.state / "lodge.db") as db:
        db.execute("INSERT INTO guests (id, name, image, config, state, auto_remove, created_at) "
                   "VALUES (?, ?, ?, '{}', 'stopped', 0, 0)", (name, name, digest))
    db.close()


def forget_guests(lodge):
    with sqlite3.connect(lodge.state / "lodge.db") as db:
        db.execute("DELETE FROM guests")
    db.close()


def test_an_image_in_use_is_not_removed(lodge, tiny_image):
    digest = lodge.json("image", "ls")[0]["digest"]
    insert_guest(lodge, "web", digest)
    insert_guest(lodge, "db", digest)
    lodge.fails("image", "rm", tiny_image, match=r"image 'tiny' is used by db, web \(remove them "
                r"first: lodge rm db web\)")
    assert lodge("image", "ls", "-q").lines == ["tiny"]
    forget_guests(lodge)
    lodge("image", "rm", tiny_image)
    lodge.fails("image", "rm", tiny_image, match="no image named 'tiny'")
    nothing_left(lodge)


def test_a_name_moves_to_the_new_image(lodge, tiny_image):
    old = lodge.json("image", "ls")[0]["digest"]
    (lodge.dir / "tree").mkdir()
    (lodge.dir / "tree" / "f").write_text("new")
    insert_guest(lodge, "web", old)
    new = lodge("image", "import", tiny_image, lodge.dir / "tree").stdout.strip()
    assert [(i["name"], i["digest"]) for i in lodge.json("image", "ls")] == [
        ("tiny", new), (None, old)]
    assert lodge("image", "ls", "-q").lines == ["tiny", old]
    lodge.fails("image", "rm", old, match="is used by web")
    forget_guests(lodge)
    # Nobody needs the old one any more: the next change of the store takes it away.
    lodge("image", "import", "other", lodge.dir / "tree")
    assert old not in [i["digest"] for i in lodge.json("image", "ls")]
    nothing_left(lodge)


def test_several_are_removed_at_once(lodge, tiny_image):
    (lodge.dir / "tree").mkdir()
    (lodge.dir / "tree" / "f").write_text("x")
    lodge("image", "import", "other", lodge.dir / "tree")
    result = lodge("image", "rm", "nothing", tiny_image, "other", status=125)
    assert "no image named 'nothing'" in result.stderr and result.stderr.count("\n") == 1
    assert lodge("image", "ls", "-q").stdout == ""
    nothing_left(lodge)


@contextlib.contextmanager
def small_disk(lodge, megabytes):
    """A file system of its own, and small, below the state directory."""
    disk = lodge.dir / "disk"
    with open(disk, "wb") as f:
        f.truncate(megabytes << 20)
    sh("mkfs.ext4", "-q", "-m0", disk)
    lodge.state.mkdir(exist_ok=True)
    sh("mount", "-o", "loop", disk, lodge.state)
    try:
        yield
    finally:
        sh("umount", lodge.state)


@pytest.mark.parametrize("megabytes, size", [
    (64, 60_000_000),   # the tree does not fit
    (80, 38_000_000)])  # the tree does, the EROFS file beside it does not
def test_full_disk(lodge, megabytes, size):
    (lodge.dir / "tree").mkdir()
    for n in range(10):
        (lodge.dir / "tree" / f"f{n}").write_bytes(os.urandom(size // 10))
    tarball = tar(lodge.dir / "tree", lodge.dir / "t.tar")
    with small_disk(lodge, megabytes):
        lodge("image", "ls")
        free = os.statvfs(lodge.state).f_bavail
        lodge.fails("image", "import", "big", tarball,
                    match=r"(No|not enough) space.*\(free some space in ")
        assert os.statvfs(lodge.state).f_bavail >= free - 100
        nothing_left(lodge)
        (lodge.dir / "small").mkdir()
        (lodge.dir / "small" / "f").write_text("fits")
        lodge("image", "import", "small", lodge.dir / "small")


def test_a_bomb_stops_early(lodge):
    """A gigabyte of zeros in a megabyte, on a disk that has room for less."""
    with tarfile.open(lodge.dir / "bomb.tar.gz", "w:gz", compresslevel=1) as t:
        for n in range(8):
            info = tarfile.TarInfo(f"f{n}")
            info.size = 128 << 20
            t.addfile(info, open("/dev/zero", "rb"))
    with small_disk(lodge, 200):
        lodge.fails("image", "import", "bomb", lodge.dir / "bomb.tar.gz", match="space")
        nothing_left(lodge)


@pytest.fixture
def big_tarball(lodge):
    """Takes a second or so to import."""
    (lodge.dir / "big").mkdir()
    for n in range(3000):
        (lodge.dir / "big" / f"{n}").write_bytes(os.urandom(8000))
    return tar(lodge.dir / "big", lodge.dir / "big.tar")


def test_kill_at_any_moment(lodge, big_tarball):
    start = time.monotonic()
    lodge("image", "import", "big", big_tarball)
    takes = time.monotonic() - start
    for n in range(15):
        process = lodge.start("image", "import", "big", big_tarball)
        time.sleep(random.uniform(0, takes * 1.1))
        process.kill()
        process.wait()
        names = lodge("image", "ls", "-q").lines
        assert names == ["big"], "the old or the new, never none"
        assert lodge("image", "inspect", "big").status == 0
    # mkfs.erofs may survive us for a moment; what it holds is not swept under its feet.
    wait_until(lambda: not any(b"mkfs.erofs" in p.read_bytes() for p in command_lines(lodge)),
               "the helper's end")
    lodge("image", "import", "other", big_tarball)
    nothing_left(lodge)
    with mounted(lodge, "big") as result:
        same(snapshot(result), snapshot(lodge.dir / "big"))


def command_lines(lodge):
    for proc in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"={lodge.dir}/".encode() in (proc / "environ").read_bytes():
                yield proc / "cmdline"


@pytest.mark.parametrize("signo", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_import_leaves_nothing(lodge, big_tarball, signo):
    for delay in (0.02, 0.2, 0.5):
        process = lodge.start("image", "import", "big", big_tarball)
        time.sleep(delay)
        process.send_signal(signo)
        output, errors = process.communicate(timeout=20)
        if process.returncode == 0:
            lodge("image", "rm", "big")
        elif errors:  # else it was ended before it could listen
            assert process.returncode == 128 + signo
            assert errors == "lodge: interrupted\n"
            nothing_left(lodge)


def test_imports_at_the_same_time(lodge, big_tarball, tree):
    processes = [lodge.start("image", "import", "x", source)
                 for source in (big_tarball, tree, big_tarball, tree)]
    for process in processes:
        assert process.wait(60) == 0, process.stderr.read()
    digests = [process.stdout.read().strip() for process in processes]
    images = lodge.json("image", "ls")
    assert len(images) == 1 and images[0]["digest"] in digests
    nothing_left(lodge)


def test_the_mount_of_a_killed_export_is_taken_over(lodge, tree):
    lodge("image", "import", "x", tree)
    process = lodge.start("image", "export", "x", "-")
    wait_until(lambda: mounts_below(lodge.runtime), "the mount")
    process.kill()
    process.wait()
    assert len(mounts_below(lodge.runtime)) == 1
    lodge("image", "export", "x", lodge.dir / "out.tar")
    assert not mounts_below(lodge.runtime), "the last user unmounts"
    process = lodge.start("image", "export", "x", "-")
    wait_until(lambda: mounts_below(lodge.runtime), "the mount")
    lodge("image", "export", "x", "/dev/null")
    assert len(mounts_below(lodge.runtime)) == 1, "somebody else uses it"
    process.kill()
    process.wait()
    lodge("image", "rm", "x")
    assert not mounts_below(lodge.runtime)
    nothing_left(lodge)


def test_images_are_not_for_other_users(lodge, tree):
    lodge("image", "import", "x", tree)
    for directory in ("images", "tmp"):
        assert stat.S_IMODE((lodge.state / directory).stat().st_mode) == 0o700
    process = lodge.start("image", "export", "x", "-")
    wait_until(lambda: mounts_below(lodge.runtime), "the mount")
    assert stat.S_IMODE((lodge.runtime / "images").stat().st_mode) == 0o700
    process.kill()
    process.wait()
    lodge("image", "rm", "x")


def test_progress_on_a_terminal(lodge, big_tarball):
    """A tarball that comes slowly shows what is being done with it."""
    pipe = lodge.dir / "pipe"
    os.mkfifo(pipe)
    terminal = lodge.terminal("image", "import", "big", pipe)
    data = big_tarball.read_bytes()
    with open(pipe, "wb") as f:
        for at in range(0, len(data), 1 << 20):
            f.write(data[at:at + (1 << 20)])
            time.sleep(0.06)
    terminal.expect("Importing big .*unpacking")
    terminal.expect(r"sha256:[0-9a-f]{64}", timeout=60)
    assert terminal.wait() == 0


def test_debian_image_is_nobodys(lodge, debian_image):
    """What Debian images consist of is a real Debian, and nothing of the host's is in it."""
    manifest = json.loads(lodge("image", "inspect", debian_image).stdout)["manifest"]
    assert manifest["config"]["cmd"] == ["/sbin/init"]
    assert manifest["config"]["stop_signal"] == "SIGRTMIN+3"
    assert manifest["os"].startswith("Debian GNU/Linux 12")
    host = socket.gethostname().encode()
    with mounted(lodge, debian_image) as result:
        assert (result / "etc/machine-id").read_text() == ""
        for gone in ("etc/hostname", "etc/resolv.conf", "etc/apt/sources.list",
                     "etc/apt/apt.conf.d/99mmdebstrap", "var/lib/dbus/machine-id"):
            assert not os.path.lexists(result / gone), gone
        sources = (result / "etc/apt/sources.list.d/debian.sources").read_text()
        assert "Suites: bookworm\n" in sources and "Signed-By: /usr/share/" in sources
        assert "\nroot:*:" in "\n" + (result / "etc/shadow").read_text()
        assert not list((result / "var/cache/apt/archives").glob("*.deb"))
        assert not [f for f in (result / "var/lib/apt/lists").iterdir() if f.is_file() and
                    f.name != "lock"]
        assert (result / "sbin/init").resolve().name == "systemd"
        for file in (result / "etc").rglob("*"):
            if file.is_file() and not file.is_symlink():
                text = file.read_bytes()
                assert host not in text or len(host) < 5, file
                assert str(lodge.dir).encode() not in text, file


@pytest.mark.slow
def test_build(lodge):
    lodge.fails("image", "build", "x", "--debian", "bookwurm", match="has no suite 'bookwurm'")
    lodge.fails("image", "build", "x", match="--debian SUITE")
    lodge.fails("image", "build", "x", "--debian", "Book Worm", match="is not a Debian suite")
    lodge.fails("image", "build", "x", "--debian", "sid", "--include", "a;b", match="'a;b' is not")
    lodge.fails("image", "build", "x", "--debian", "bookworm", "--include", "no-such-package",
                match="Unable to locate package no-such-package", timeout=300)
    nothing_left(lodge)
    lodge("image", "build", "x", "--debian", "trixie", "--include", "tree,nano", "--include", "less",
          timeout=600)
    with mounted(lodge, "x") as result:
        for program in ("tree", "nano", "less"):
            assert (result / "usr/bin" / program).exists()
        sources = (result / "etc/apt/sources.list.d/debian.sources").read_text()
        assert "Suites: trixie\n" in sources and "bookworm" not in sources
    nothing_left(lodge)


@pytest.mark.slow
def test_interrupted_build_leaves_nothing(lodge):
    process = lodge.start("image", "build", "x", "--debian", "bookworm")
    wait_until(lambda: list(lodge.state.glob("tmp/*/root/usr/bin")), "packages to be unpacked", 120)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "lodge: interrupted\n")
    nothing_left(lodge)
