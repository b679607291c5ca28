"""What the README promises, in its own words."""

import re
import subprocess

import pytest

from runner import LODGE, SOURCE, wait_until


def readme_commands():
    text = (SOURCE / "README.md").read_text().split("## First commands")[1]
    return [re.split(r" {2,}", line.strip())[0] for line in text.splitlines()
            if line.startswith("    lodge ")]


def run_as_written(lodge, command, **kwargs):
    """The command as a user types it, in a shell that finds our lodge."""
    return subprocess.run(["sh", "-ec", command], env={**lodge.env, "PATH": f"{LODGE.parent}:/bin"},
                          text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
                          **kwargs)


def system_state(lodge, guest):
    result = lodge("exec", guest, "systemctl", "is-system-running", "--wait", status=None)
    return result.stdout.strip() if result.stdout.strip() in ("running", "degraded") else None


def test_first_commands(lodge, debian_image):
    for command in readme_commands():
        if " build " in command:
            continue  # the fixture did that, in the same words
        if " -it " in command:
            terminal = lodge.terminal(*command.split()[1:])
            terminal.expect(r"root@.*# ")
            terminal.send("echo $((6 * 7)); exit 3\n")
            terminal.expect(r"[\r\n]42\r\n")
            assert terminal.wait() == 3, command
            continue
        done = run_as_written(lodge, command, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, (command, done.stdout)
        if "os-release" in command:
            assert "Debian GNU/Linux 12" in done.stdout
        if command == "lodge ls":
            assert re.search(r"^web +container +running", done.stdout, re.M)
        if command == "lodge run -d --name web debian":
            wait_until(lambda: system_state(lodge, "web"), "systemd")
    assert lodge("ls", "-aq").stdout == ""


def test_readme_has_commands():
    assert len(readme_commands()) >= 8


def test_system_boots_and_shuts_down(lodge, debian_image):
    lodge("run", "-d", "--name", "web", debian_image)
    assert wait_until(lambda: system_state(lodge, "web"), "systemd", 30) == "running", \
        lodge("exec", "web", "systemctl", "--failed").stdout
    assert lodge("exec", "web", "cat", "/proc/1/comm").stdout == "systemd\n"
    lodge("stop", "web")
    # systemd powers off; it is not killed.
    assert lodge.inspect("web")["exit_status"] == 0
    lodge("rm", "web")


@pytest.mark.timeout(200)
def test_demo(lodge, debian_image):
    done = subprocess.run([SOURCE / "tools" / "demo", LODGE], env=lodge.env, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout
    assert 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"' in done.stdout
    assert re.search(r"is-system-running --wait\n(running|degraded)\n", done.stdout)
    assert lodge("ls", "-aq").stdout == ""


def test_demo_that_fails_leaves_nothing(lodge, tiny_image):
    """With another image under the name, nothing boots."""
    lodge("image", "export", tiny_image, lodge.dir / "tiny.tar")
    lodge("image", "import", "debian", lodge.dir / "tiny.tar")
    done = subprocess.run([SOURCE / "tools" / "demo", LODGE], env=lodge.env, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    assert done.returncode != 0 and "The demo failed" in done.stdout
    assert lodge("ls", "-aq").stdout == ""


def test_payload(lodge, tiny_image):
    """The images that tests use are what they say."""
    result = lodge("run", "--rm", tiny_image, "payload", "echo", "a", "b", "+", "err", "c", "+",
                   "exit", "3", status=3)
    assert (result.stdout, result.stderr) == ("a b\n", "c\n")
    assert lodge("run", "--rm", tiny_image, "sh", "-c", "id -u; pwd").lines == ["0", "/root"]
