"""Fixtures. A test asks for `lodge`, and for the images it wants to find there:

    def test_status(lodge, tiny_image):
        lodge("run", "--rm", tiny_image, "payload", "exit", "3", status=3)
"""

import hashlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

import pytest

from runner import BUILD, LODGE, PAYLOAD, SOURCE, Lodge

BUSYBOX = pathlib.Path("/bin/busybox")


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the slow tests too")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow: --slow, or make test SLOW=1"))


def pytest_sessionstart(session):
    if not LODGE.exists():
        pytest.exit(f"{LODGE} is not there: run make first", returncode=2)


    # An ended session cleans up, too; by SIGINT pytest does that by itself.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_sessionfinish(session):
    for host in list(Lodge.unclosed):
        host.close(patience=0)


def pytest_report_header(config):
    return f"lodge: {LODGE}"


@pytest.fixture
def lodge(request, template):
    """A host of its own to run `lodge` on. What a test leaves behind there makes it fail."""
    images = {name for name in request.fixturenames if name.endswith("_image")}
    host = Lodge(template(images))
    yield host
    left = host.close()
    assert not left, "left behind:\n" + "\n".join(left)


@pytest.fixture(scope="session")
def root():
    """Containers in the system's own directories need root."""
    if os.geteuid() != 0:
        if os.environ.get("LODGE_REQUIRE_ROOT", "0") not in ("", "0"):
            pytest.fail("not root, and LODGE_REQUIRE_ROOT is set")
        pytest.skip("needs root")


@pytest.fixture(scope="session")
def template(request):
    """template({"tiny_image"}) is a host that has these images; new ones are copied from it."""
    made = {}

    def get(images):
        key = frozenset(images)
        if key and key not in made:
            host = Lodge()
            try:
                for name in sorted(key):
                    IMPORTERS[name](host)
            except BaseException:
                host.close()
                raise
            made[key] = host
        return made.get(key)

    yield get
    for host in made.values():
        host.close()


@pytest.fixture(scope="session")
def tiny_image(root):
    """An image of busybox and of our payload (tests/payload/payload.c), both static."""
    return "tiny"


@pytest.fixture(scope="session")
def debian_image(root):
    """A Debian that boots with systemd."""
    return "debian"


def import_tiny(host):
    with tempfile.TemporaryDirectory(prefix="lodge-tiny-") as directory:
        tree = pathlib.Path(directory)
        tree.chmod(0o755)
        for name in ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var"):
            (tree / name).mkdir()
        (tree / "tmp").chmod(0o1777)
        shutil.copy(PAYLOAD, tree / "bin" / "payload")
        shutil.copy(BUSYBOX, tree / "bin" / "busybox")
        applets = subprocess.run([BUSYBOX, "--list"], stdout=subprocess.PIPE, text=True, check=True)
        for applet in applets.stdout.split():
            if applet != "busybox":
                (tree / "bin" / applet).symlink_to("busybox")
        (tree / "etc" / "passwd").write_text(
            "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n")
        (tree / "etc" / "group").write_text("root:x:0:\nuser:x:1000:\nextra:x:2000:user\n")
        (tree / "home").mkdir()
        (tree / "home" / "user").mkdir()
        os.chown(tree / "home" / "user", 1000, 1000)
        host("image", "import", "tiny", tree)


def import_debian(host):
    """Building takes a minute and the network, so what was built is kept between runs, until the
    code that builds it changes."""
    recipe = hashlib.sha256()
    for file in sorted((SOURCE / "src" / "image").glob("debian*.c")):
        recipe.update(file.read_bytes())
    cache = pathlib.Path(os.environ.get("LODGE_TEST_CACHE") or BUILD / "test-cache")
    tarball = cache / f"debian-bookworm-{recipe.hexdigest()[:12]}.tar"
    if tarball.exists():
        host("image", "import", "debian", tarball)
        return
    host("image", "build", "debian", "--debian", "bookworm", timeout=600)
    cache.mkdir(parents=True, exist_ok=True)
    for old in cache.glob("debian-bookworm-*"):
        old.unlink()
    partial = tarball.with_suffix(".partial")
    host("image", "export", "debian", partial)
    partial.rename(tarball)


IMPORTERS = {"tiny_image": import_tiny, "debian_image": import_debian}
