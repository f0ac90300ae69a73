"""Containers by name and image: of podman's own making, and of files as Docker writes them."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from secrets import token_hex

import pytest

from napctl.attach.target import complete, parse, resolve
from napctl.kernel import container_files
from napctl.lab.bed import Lab
from napctl.lab.servers import connected
from napctl.model.errors import BadInput, NotPermitted
from tests.lab.following import all_unset, attached, attached_in_kernel, settings_of
from tests.lab.helpers import PREFERS, Napctl, another_memcached, answers, ask, params_of, until
from tests.lab.service.services import policy_of, serving
from tests.lab.targets import Groups, groups_here, pids_of, refusal

pytestmark = pytest.mark.lab

BUSYBOX = "/bin/busybox"
UNDER = (
    "unshare", "--mount", "--propagation", "private", "sh", "-ec", 'mount --bind "$0" "$1"; shift; exec "$@"',
)  # fmt: skip
"""What runs then has a directory in the place of another one, and nobody else has."""


@pytest.fixture
def groups() -> Iterator[Groups]:
    with ExitStack() as undo:
        yield Groups(groups_here(), undo)


def described(docker: Path, identity: str, name: str, image: str) -> None:
    """As Docker does it, with some of its fields."""
    path = docker / "containers" / identity / "config.v2.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"ID": identity, "Name": f"/{name}", "Config": {"Image": image}, "State": {"Pid": 7}}))


def test_a_container_is_known_by_its_name_and_its_image(
    groups: Groups, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container_files, "ROOT", tmp_path)
    ids, name, image = [token_hex(32) for _ in range(3)], f"web-{token_hex(4)}", f"lab/{token_hex(4)}"
    pids = [groups.sleeper(groups.make(f"docker-{each}.scope")) for each in ids]
    docker = tmp_path / "var/lib/docker"
    described(docker, ids[0], name, f"{image}:1")
    described(docker, ids[1], "\x1b[2Jname", f"{image}:2")

    for target in (f"container:{name}", f"container:image={image}:1", f"container:{ids[0][:12]}"):
        assert pids_of(target) == [pids[0]], target
    assert [each for each in complete("container:") if "web-" in each] == [f"container:{name}"]
    assert "\x1b" not in "".join(complete("container:"))
    why = refusal(f"container:image={image}")
    assert why.startswith(f"container:image={image}: 2 containers are of that image (")
    assert ids[0] in why
    assert refusal(f"container:not-{name}").endswith("no container runs here that is called so, or whose id begins so")

    described(docker, ids[2], ids[0][:12], "other")
    assert pids_of(f"container:{ids[0][:12]}") == [pids[2]], "a name comes before the beginning of an id"


def test_what_a_runtime_has_written_may_be_malformed_or_forbidden(
    groups: Groups, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container_files, "ROOT", tmp_path)
    identity = token_hex(32)
    groups.sleeper(groups.make(f"docker-{identity}.scope"))
    path = tmp_path / f"var/lib/docker/containers/{identity}/config.v2.json"
    path.parent.mkdir(parents=True)
    path.write_text("\x1b[2J{")
    assert refusal("container:web").endswith(f"; {path}: it does not read as its runtime writes it")

    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(container_files, "_opened", forbidden)
    with pytest.raises(NotPermitted, match=r"no container runs here .*Permission denied"):
        resolve(parse("container:web"))


@pytest.fixture
def docker_place() -> Iterator[Path]:
    """Where Docker's files are; nothing is written to it."""
    place = Path("/var/lib/docker")
    there = place.exists()
    place.mkdir(exist_ok=True)
    yield place
    if not there:
        with suppress(OSError):
            place.rmdir()


@pytest.mark.parametrize("by", ["name", "image"])
def test_a_container_that_starts_later_is_attached_and_so_is_the_next_of_its_kind(
    by: str, lab: Lab, port: int, groups: Groups, napctl: Napctl, tmp_path: Path, docker_place: Path
) -> None:
    name, image, docker = f"web-{token_hex(4)}", f"lab/{token_hex(4)}", tmp_path / "docker"
    target = f"container:{name}" if by == "name" else f"container:image={image}"
    docker.mkdir()
    under = [*UNDER, str(docker), str(docker_place)]
    with serving(napctl, policy_of(tmp_path, target), under=under) as it:
        it.told(f"waiting for {target}: it is not running")
        for _ in range(2):
            with another_memcached(lab, port) as server, ask(lab, server):
                began, identity = time.time(), token_hex(32)
                group = groups.make(f"docker-{identity}.scope")
                (group / "cgroup.procs").write_text(str(server.pid))
                described(docker, identity, name if by == "name" else token_hex(8), f"{image}:1")
                # As a whole, or one after the other, if it has come before the end of the last one was looked at.
                it.told(f"memcached ({server.pid})", since=began)
                assert attached_in_kernel(lab, server)
        with another_memcached(lab, port) as server, ask(lab, server):
            (groups.make(f"docker-{token_hex(32)}.scope") / "cgroup.procs").write_text(str(server.pid))
            assert all_unset(server.pid), "another container"
        assert it.end(signal.SIGTERM) == 0


# Podman itself


Podman = Callable[..., str]
WITH_GROUPS = (
    "unshare", "--mount", "--propagation", "private", "sh", "-ec",
    '[ -e "$0/cgroup.procs" ] || { umount -R "$0"; mount -t cgroup2 none "$0"; }; exec "$@"', "/sys/fs/cgroup",
)  # fmt: skip
"""podman takes control groups of version 2 only where it finds them alone."""
LITTLE = (
    "--privileged", "--pids-limit", "0", "--pid", "host", "--uts", "host", "--ipc", "host",
    *(each for limit in ("nofile=1024:1024", "nproc=1000:1000") for each in ("--ulimit", limit)),
)  # fmt: skip
"""A container that takes no more rights and controllers than a test bed may have."""


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[Podman]:
    """podman(words…): with a storage of its own, which is there where the system's would be."""
    if shutil.which("podman") is None or not Path(BUSYBOX).exists():
        pytest.skip("needs podman and busybox-static")
    storage, short = tmp_path / "var/lib/containers/storage", Path(f"/tmp/napctl-podman-{os.getpid()}")

    def run(*words: str) -> str:
        places = ("--root", str(storage), "--runroot", str(short / "run"), "--tmpdir", str(short / "tmp"))
        drivers = ("--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none")
        command = [*WITH_GROUPS, "podman", *places, *drivers, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    yield run
    shutil.rmtree(short, ignore_errors=True)


SLEEP = ("/busybox", "sleep", "60")


@contextmanager
def contained(
    podman: Podman, name: str, image: str, *, command: Sequence[str] = SLEEP, network: str = "none"
) -> Iterator[str]:
    """The id of a running container."""
    options = ("--detach", "--name", name, "--network", network, *LITTLE)
    identity = podman("run", *options, image, *command)
    try:
        yield identity
    finally:
        podman("rm", "--force", "--time", "0", name)


@pytest.mark.long
def test_what_podman_runs_is_known_by_name_image_and_id(
    podman: Podman, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups_here()
    monkeypatch.setattr(container_files, "ROOT", tmp_path)
    archive = tmp_path / "image.tar"
    subprocess.run(["tar", "-C", str(Path(BUSYBOX).parent), "-cf", str(archive), "busybox"], check=True)
    podman("import", str(archive), "lab/napping:7")
    name = f"web-{token_hex(4)}"
    with contained(podman, name, "lab/napping:7") as identity:
        (pid,) = pids_of(f"container:{identity[:12]}")
        for target in (name, "image=lab/napping", "image=lab/napping:7", "image=localhost/lab/napping"):
            assert pids_of(f"container:{target}") == [pid], target
        assert "no container runs here of that image" in refusal("container:image=lab/napping:8")
        with contained(podman, f"{name}-2", "lab/napping:7"):
            assert "2 containers are of that image" in refusal("container:image=lab/napping")
            assert pids_of(f"container:{name}") == [pid]
    with pytest.raises(BadInput, match="no container runs here that is called so"):
        resolve(parse(f"container:{name}"))


def imported(podman: Podman, directory: Path, program: str, image: str) -> None:
    """An image of that program, with the libraries that it is linked to."""
    found = shutil.which(program)
    assert found is not None
    linked = subprocess.run(["ldd", found], capture_output=True, text=True, check=True).stdout
    libraries = [word for word in linked.split() if word.startswith("/")]
    archive = directory / "image.tar"
    subprocess.run(["tar", "--dereference", "-C", "/", "-cf", archive, found, *libraries, "/etc/passwd"], check=True)
    podman("import", str(archive), image)


def connected_once(lab: Lab, port: int) -> socket.socket | None:
    with suppress(OSError):
        return connected(lab, port)
    return None


@pytest.mark.long
def test_what_podman_starts_later_is_attached_and_so_is_the_next_of_its_name(
    podman: Podman, lab: Lab, port: int, napctl: Napctl, tmp_path: Path
) -> None:
    groups_here()
    imported(podman, tmp_path, "memcached", "lab/memcached:1")
    command = (str(shutil.which("memcached")), "-t", "1", "-u", "root", "-l", "0.0.0.0", "-p", str(port), "-U", "0")
    network = f"ns:/proc/{os.getpid()}/fd/{lab.server.namespace.fd}"
    under = [*UNDER, str(tmp_path / "var/lib/containers"), "/var/lib/containers"]
    name = f"web-{token_hex(4)}"
    with serving(napctl, policy_of(tmp_path, f"container:{name}"), under=under) as it:
        it.told(f"waiting for container:{name}: it is not running")
        for _ in range(2):
            began = time.time()
            with contained(podman, name, "lab/memcached:1", command=command, network=network) as identity:
                pid = int(podman("inspect", "--format", "{{.State.Pid}}", identity))
                connection = until(lambda: connected_once(lab, port), "it to listen")
                assert connection is not None
                with connection:
                    assert answers(connection)
                    it.told(f"memcached ({pid})", since=began)
                    assert all(map(attached, settings_of(lab)))
                    assert PREFERS in params_of(pid).values()
            until(lambda: not any(map(attached, settings_of(lab))), "its end to be seen", 40)
        assert it.end(signal.SIGTERM) == 0
