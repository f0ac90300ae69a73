"""What these tests share: the package, built once from this checkout, and a booted machine that has it."""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from napctl import __version__
from tests.debian.guest import ROOT, Guest
from tests.debian.service import UNITS

BUILD_SECONDS = 1500
"""With a root of Debian 13 that is to be made first."""
BEFORE = "0.1.9"
"""The version before, as far as dpkg knows."""


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file; all tests here need it, and root."""
    if os.geteuid():
        pytest.skip("needs root")
    directory = tmp_path_factory.mktemp("package")
    subprocess.run([ROOT / "scripts/build-deb", directory], check=True, timeout=BUILD_SECONDS)
    (built,) = directory.glob("*.deb")
    return built


@pytest.fixture(scope="session")
def package_before(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the first commit that has the service and a package; with an earlier version, which napctl says as well."""
    directory = tmp_path_factory.mktemp("before")
    root = directory / "root"
    subprocess.run([ROOT / "scripts/build-deb", directory, first_commit()], check=True, timeout=BUILD_SECONDS)
    (first,) = directory.glob("*.deb")
    subprocess.run(["dpkg-deb", "--raw-extract", first, root], check=True)
    for file, line, earlier in (
        ("DEBIAN/control", r"^Version: .*$", f"Version: {BEFORE}"),
        ("usr/lib/python3/dist-packages/napctl/__init__.py", r"^__version__ = .*$", f'__version__ = "{BEFORE}"'),
    ):
        text, found = re.subn(line, earlier, (root / file).read_text(), flags=re.MULTILINE)
        assert found == 1
        (root / file).write_text(text)
    built = directory / f"napctl_{BEFORE}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", root, built], check=True, stdout=subprocess.DEVNULL)
    return built


def first_commit() -> str:
    """That was tried under systemd. Skips the test where there is no history, as in an archive of the sources."""
    git = ("git", "-C", str(ROOT), "-c", "safe.directory=*")
    paths = ("debian/control", "tests/debian/test_service.py")
    log = [*git, "log", "--reverse", "--format=%H", "--", *paths]
    listed = subprocess.run(log, capture_output=True, text=True, check=False)
    for commit in listed.stdout.split():
        shown = [
            subprocess.run([*git, "cat-file", "-e", f"{commit}:{path}"], check=False, stderr=subprocess.DEVNULL)
            for path in paths
        ]
        if not any(each.returncode for each in shown):
            return commit
    pytest.skip("needs the history of this repository")


InRoot = Callable[..., str]


@pytest.fixture
def in_root(package: Path) -> InRoot:
    """in_root(root, script, *options): what it writes in a fresh layer of that root, where /shared has the package."""

    def run(root: str, script: str, *options: str) -> str:
        command: list[str | Path] = [
            ROOT / "scripts/in-debian-root",
            *options,
            "--share",
            package.parent,
            root,
            "bash",
            "-ec",
            script,
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The module's own copy of the machine's disk, for one boot after the other."""
    fetch: list[str | Path] = [ROOT / "scripts/fetch-debian-root", "machine"]
    done = subprocess.run(fetch, stdout=subprocess.PIPE, text=True, check=True, timeout=BUILD_SECONDS)
    copy = tmp_path_factory.mktemp("disk") / "image"
    subprocess.run(["cp", "--sparse=always", done.stdout.strip(), copy], check=True)
    return copy


WIRE = """
ip netns add peer
ip link set virtio0 netns peer
ip netns exec peer ip address add 10.0.0.2/24 dev virtio0
ip netns exec peer ip link set virtio0 up
ip address add 10.0.0.1/24 dev e1000e0
ip link set e1000e0 up
ip netns exec peer ping -q -c 1 -i 0.2 -w 60 10.0.0.1
"""
CLIENT = """
import http.client, os, time

connections = [http.client.HTTPConnection("10.0.0.1", timeout=60) for _ in range(4)]
replies = 0
while True:
    for connection in connections:
        try:
            connection.request("GET", "/")
            reply = connection.getresponse()
            reply.read()
            assert reply.status == 200, reply.status
            replies += 1
        except (OSError, http.client.HTTPException, AssertionError) as error:
            connection.close()
            with open("/run/load/failed", "a") as failed:
                print(repr(error), file=failed)
    with open("/run/load/new", "w") as told:
        print(replies, file=told)
    os.rename("/run/load/new", "/run/load/replies")
    time.sleep(0.05)
"""
BUSY = f"""
{WIRE}
mkdir -p /run/load
touch /run/load/failed
cat >/run/load/client.py <<'END'
{CLIENT}
END
systemd-run --unit=client ip netns exec peer python3 /run/load/client.py
until test -s /run/load/replies; do sleep 0.2; done
"""
"""nginx is asked over the cable between e1000e0 and virtio0, on connections that stay."""
ONE_WORKER = r"""
sed -i 's/^worker_processes .*/worker_processes 1;/' /etc/nginx/nginx.conf
systemctl restart nginx.service
"""
"""So that it is known which of them has the connections."""


@pytest.fixture(scope="module")
def booted(disk: Path, package: Path, package_before: Path) -> Iterator[Guest]:
    with Guest(disk) as guest:
        guest.run(ONE_WORKER)
        guest.run(BUSY)
        yield guest


@pytest.fixture
def guest(booted: Guest, package: Path) -> Guest:
    """With the package installed, from its file alone: the machine has no network. Nothing is in force."""
    booted.run(f"""
        systemctl stop {" ".join(UNITS)}
        dpkg-query --show napctl | grep -q {__version__} || dpkg --install /host{package}
        napctl rollback --all
    """)
    return booted
