"""What these tests share: the package, built once from this checkout, and a booted machine that has it."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.debian.guest import ROOT, Guest

BUILD_SECONDS = 1500
"""With a root of Debian 13 that is to be made first."""


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file; all tests here need it, and root."""
    if os.geteuid():
        pytest.skip("needs root")
    directory = tmp_path_factory.mktemp("package")
    subprocess.run([ROOT / "scripts/build-deb", directory], check=True, timeout=BUILD_SECONDS)
    (built,) = directory.glob("*.deb")
    return built


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
import http.client, time
connections = [http.client.HTTPConnection("10.0.0.1") for _ in range(4)]
while True:
    for connection in connections:
        try:
            connection.request("GET", "/")
            connection.getresponse().read()
        except OSError:
            connection.close()
    time.sleep(0.05)
"""
BUSY = f"{WIRE}\nsystemd-run --unit=client ip netns exec peer python3 -c '{CLIENT.replace(chr(39), chr(34))}'\n"
"""nginx is asked over the cable between e1000e0 and virtio0, on connections that stay."""


@pytest.fixture(scope="module")
def booted(disk: Path, package: Path) -> Iterator[Guest]:
    with Guest(disk) as guest:
        guest.run(BUSY)
        yield guest


@pytest.fixture
def guest(booted: Guest, package: Path) -> Guest:
    """With the package installed, from its file alone: the machine has no network. Nothing is in force."""
    booted.run(f"dpkg --status napctl >/dev/null 2>&1 || dpkg --install /host{package}; napctl rollback --all")
    return booted
