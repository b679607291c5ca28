"""What a newcomer meets before the first `lodge`: the packages' installer, `make install`."""

import os
import subprocess

import pytest

from runner import BUILD, SOURCE

PACKAGES = """\
# All of them

[build]
one     # what for
two
[test]
three   # what for
"""


class Machine:
    """A machine whose package manager is a handful of scripts that write down how they are called.

    installed: packages that are there. mirror: those that apt-get finds without an update, and,
    after a '+', those that it finds only after one.
    """

    def __init__(self, directory, installed="", mirror="one two three", uid=0, sudo=False,
                 lists=True):
        self.dir = directory
        self.log = directory / "log"
        self.log.touch()
        (directory / "tools").mkdir()
        (directory / "tools" / "packages.txt").write_text(PACKAGES)
        script = (SOURCE / "tools" / "install-packages").read_text()
        assert script.count("/var/lib/apt/lists") == 1
        (directory / "tools" / "install-packages").write_text(
            script.replace("/var/lib/apt/lists", str(directory / "lists")))
        (directory / "lists").mkdir()
        if lists:
            (directory / "lists" / "deb_Packages").touch()
        (directory / "bin").mkdir()
        for tool in ("sh", "awk", "cat", "dirname", "env", "grep", "ls", "touch", "true"):
            (directory / "bin" / tool).symlink_to(f"/bin/{tool}")
        before, _, after = mirror.partition("+")
        self.program("id", f"echo {uid}")
        self.program("dpkg-query", "shift 2; for p; do case ' %s ' in *\" $p \"*) "
                     'echo "installed $p" ;; esac; done; exit 1' % installed)
        self.program("apt-get", f"""
            echo "apt-get $*" >>{self.log}
            have=' {before} '
            [ -e {directory}/updated ] && have=' {before} {after} '
            case " $* " in *" update "*) touch {directory}/updated; exit ;; esac
            while [ "$1" != --no-install-recommends ]; do shift; done; shift
            for p; do case $have in *" $p "*) ;; *) exit 100 ;; esac; done""")
        if sudo:
            self.program("sudo", f'echo sudo >>{self.log}; [ "$1" = -n ] && shift; exec "$@"')

    def program(self, name, text):
        path = self.dir / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def install(self, *sections, **env):
        done = subprocess.run(
            ["/bin/sh", "tools/install-packages", *sections], cwd=self.dir, text=True,
            env={"PATH": str(self.dir / "bin"), **env}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        calls = [next(w for w in line.split() if w in ("update", "install", "sudo"))
                 for line in self.log.read_text().splitlines()]
        return done, calls


def test_nothing_missing(tmp_path):
    done, calls = Machine(tmp_path, installed="one two").install("build")
    assert (done.returncode, done.stdout, done.stderr, calls) == (0, "", "", [])


def test_only_what_is_missing_is_installed(tmp_path):
    machine = Machine(tmp_path, installed="one")
    done, calls = machine.install("build", "test")
    assert (done.returncode, calls) == (0, ["install"])
    assert machine.log.read_text().endswith(" -y install --no-install-recommends two three\n")


def test_sections_are_told_apart(tmp_path):
    machine = Machine(tmp_path)
    machine.install("test")
    assert machine.log.read_text().endswith(" three\n")


@pytest.mark.parametrize("machine", [{"lists": False}, {"mirror": "+one two"}],
                         ids=["no lists", "old lists"])
def test_lists_are_updated_when_needed(tmp_path, machine):
    done, calls = Machine(tmp_path, **machine).install("build")
    assert done.returncode == 0
    assert calls == (["update", "install"] if "lists" in machine else
                     ["install", "update", "install"])


def test_sudo(tmp_path):
    done, calls = Machine(tmp_path, uid=1000, sudo=True).install("build")
    assert done.returncode == 0
    assert calls.count("install") == 1 and "sudo" in calls


@pytest.mark.parametrize("machine", [{"uid": 1000}, {"mirror": ""}], ids=["no root", "no mirror"])
def test_failure_says_what_to_run(tmp_path, machine):
    done, _ = Machine(tmp_path, **machine).install("build")
    assert done.returncode == 1
    assert "apt-get install -y --no-install-recommends one two" in done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.endswith(" one two\n")


def test_not_debian(tmp_path):
    machine = Machine(tmp_path)
    (machine.dir / "bin" / "apt-get").unlink()
    done, _ = machine.install("build")
    assert done.returncode == 1 and "tools/packages.txt" in done.stderr
    done, _ = machine.install("build", LODGE_SKIP_PACKAGES="1")
    assert (done.returncode, done.stderr) == (0, "")


def test_install(tmp_path):
    subprocess.run(["meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", tmp_path],
                   check=True, stdout=subprocess.PIPE)
    prefix = next(tmp_path.rglob("bin")).parent
    for name in ("lodge", "lodge-oci"):
        assert os.access(prefix / "bin" / name, os.X_OK)
    assert os.readlink(prefix / "bin" / "lodge-oci") == "lodge"
    verbs = subprocess.run([prefix / "bin" / "lodge", "help", "--list"], check=True, text=True,
                           stdout=subprocess.PIPE).stdout.splitlines()
    pages = {page.name for page in (prefix / "share" / "man" / "man1").iterdir()}
    assert pages == {"lodge.1"} | {f"lodge-{verb.replace(' ', '-')}.1" for verb in verbs}
    assert (prefix / "share" / "bash-completion" / "completions" / "lodge.bash").exists()
    assert (prefix / "share" / "zsh" / "site-functions" / "_lodge").exists()
