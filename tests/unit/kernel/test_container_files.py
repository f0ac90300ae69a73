"""Names and images of containers, from trees that are written here as each runtime writes its own."""

import json
import os
import pwd
from pathlib import Path
from secrets import token_hex
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napctl.kernel import container_files
from napctl.kernel.container_files import Containers, is_image

A, B = (token_hex(32) for _ in range(2))
USER = os.geteuid() or 1000
"""Somebody who is not root, and whose files this process can make."""
MINE = ".local/share/containers/storage"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(container_files, "ROOT", tmp_path)
    one = pwd.struct_passwd(("one", "x", USER, USER, "", "/home/one", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", {USER: one}.__getitem__)
    monkeypatch.setattr(container_files, "_homes", {})
    return tmp_path


def written(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def by_docker(root: Path, container: str, name: str, image: str) -> Path:
    """Of moby's container.Container some fields among a hundred."""
    content = {
        "StreamConfig": {},
        "State": {"Running": True, "Pid": 7},
        "ID": container,
        "Config": {"Hostname": container[:12], "Env": ["A=b"], "Image": image, "Labels": {}},
        "Image": "sha256:" + "0" * 64,
        "Name": f"/{name}",
        "MountPoints": {},
    }
    return written(root / f"var/lib/docker/containers/{container}/config.v2.json", content)


def by_podman(
    home: Path, *containers: tuple[str, str, str], storage: str = "var/lib/containers/storage", owner: int | None = None
) -> Path:
    """As containers/storage has them, with the metadata of podman: a text in JSON's JSON."""
    content = [
        {
            "id": container,
            "names": [name],
            "image": "f" * 64,
            "layer": "e" * 64,
            "metadata": json.dumps({"image-name": image, "image-id": "f" * 64, "name": name, "created-at": 1700000000}),
            "created": "2026-11-28T07:00:00.000000000Z",
            "flags": {"MountLabel": ""},
        }
        for container, name, image in containers
    ]
    path = written(home / storage / "overlay-containers/containers.json", content)
    if owner is not None:
        os.chown(path, owner, -1)
    return path


def by_containerd(root: Path, container: str, annotations: dict[str, str], namespace: str = "k8s.io") -> Path:
    """A bundle of the OCI, with the annotations of containerd's CRI."""
    content = {"ociVersion": "1.2.0", "process": {"args": ["nginx"]}, "annotations": annotations, "linux": {}}
    return written(root / f"run/containerd/io.containerd.runtime.v2.task/{namespace}/{container}/config.json", content)


def in_pod(name: str, image: str, pod: str = "web-7d4b9") -> dict[str, str]:
    return {
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.container-name": name,
        "io.kubernetes.cri.image-name": image,
        "io.kubernetes.cri.sandbox-name": pod,
        "io.kubernetes.cri.sandbox-namespace": "shop",
    }


def test_what_docker_writes_is_read(root: Path) -> None:
    by_docker(root, A, "web", "nginx:1.27")
    by_docker(root, B, "db", "postgres")
    by_docker(root, token_hex(32), "stopped", "nginx")
    found = Containers.of({A: 0, B: 0})
    assert [found.called(each) for each in ("web", "db", "stopped")] == [{A}, {B}, set()]
    assert [found.of_image(each) for each in ("nginx", "nginx:1.26")] == [{A}, set()]
    assert found.unreadable == ()


def test_what_podman_writes_is_read(root: Path) -> None:
    by_podman(root, (A, "web", "docker.io/library/nginx:latest"), (token_hex(32), "other", "x"))
    found = Containers.of({A: 0, B: 0})
    assert [found.called("web"), found.of_image("nginx"), found.called("other")] == [{A}, {A}, set()]


def test_a_container_of_a_pod_has_three_names_and_the_pods_own_none(root: Path) -> None:
    by_containerd(root, A, in_pod("web", "docker.io/library/nginx:1.27"))
    by_containerd(root, B, {"io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.sandbox-name": "web"})
    found = Containers.of({A: 0, B: 0})
    for name in ("web", "web-7d4b9/web", "shop/web-7d4b9/web"):
        assert found.called(name) == {A}, name
    assert found.of_image("nginx:1.27") == {A}
    assert len(found.found) == 1


def test_containers_that_share_a_name_or_an_image_are_all_told(root: Path) -> None:
    by_containerd(root, A, in_pod("web", "nginx:1"))
    by_containerd(root, B, in_pod("web", "nginx:2", pod="web-x"))
    found = Containers.of({A: 0, B: 0})
    assert found.called("web") == found.of_image("nginx") == {A, B}
    assert found.called("web-x/web") == {B}


def test_a_users_container_is_found_in_his_home_and_never_in_the_place_of_the_systems(root: Path) -> None:
    by_podman(root / "home/one", (B, "web", "nginx"), storage=MINE, owner=USER)
    assert Containers.of({B: USER}).called("web") == {B}
    assert Containers.of({B: USER}, users=False).called("web") == frozenset()
    assert Containers.of({B: 0}).called("web") == frozenset(), "its control group is the system's"
    assert Containers.of({B: 4711}).called("web") == frozenset(), "nobody has that number"
    by_docker(root, A, "web", "nginx:1")
    both = Containers.of({A: 0, B: USER})
    assert [both.called("web"), both.of_image("nginx")] == [{A}, {A}]


def test_in_a_home_no_link_is_followed_and_only_what_is_his_is_read(root: Path) -> None:
    storage = root / "home/one" / MINE
    secret = by_podman(root, (B, "web", "nginx"), storage="root/storage", owner=USER)
    storage.mkdir(parents=True)
    links = {storage / "overlay-containers": secret.parent, storage / "vfs-containers/containers.json": secret}
    for link, to in links.items():
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(to)
        found = Containers.of({B: USER})
        assert found.found == (), link
        assert "a symbolic link, which is not followed in a user's home" in found.unreadable[0]
        link.unlink()
    by_podman(root / "home/one", (B, "web", "nginx"), storage=MINE, owner=USER)
    assert Containers.of({B: USER}).called("web") == {B}
    if os.geteuid() == 0:
        by_podman(root / "home/one", (B, "web", "nginx"), storage=MINE, owner=0)
        os.utime(storage / "overlay-containers/containers.json", ns=(1, 1))
        assert Containers.of({B: USER}).found == (), "another's, whether linked there or put in its place"


def test_what_a_user_puts_in_a_files_place_keeps_nobody_waiting(root: Path) -> None:
    storage = root / "home/one" / MINE / "overlay-containers"
    storage.mkdir(parents=True)
    os.mkfifo(storage / "containers.json")
    found = Containers.of({B: USER})
    assert [each.rpartition(": ")[2] for each in found.unreadable] == ["it is no file of a runtime"]


def test_of_a_users_files_only_so_much_is_read_at_once_and_each_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []

    def decode(content: bytes, *, type: Any) -> Any:  # noqa: A002 - as msgspec calls it
        decoded.append(len(content))
        return msgspec.json.Decoder(type).decode(content)

    monkeypatch.setattr(msgspec.json, "decode", decode)
    monkeypatch.setattr(container_files, "MOST_USER_BYTES", 1000)
    ids = dict.fromkeys((token_hex(32) for _ in range(3)), USER)
    docker = root / "home/one/.local/share/docker/containers"
    for number, each in enumerate(ids):
        os.chown(written(docker / each / "config.v2.json", {"Name": f"n{number}", "Odd": "x" * 600}), USER, -1)
    os.chown(written(docker.parents[1] / "containers/storage/vfs-containers/containers.json", "x" * 200), USER, -1)
    for looked in range(1, 5):
        found = Containers.of(ids)
        assert len(found.found) == min(looked, 3)
        assert sum("left for the next time" in each for each in found.unreadable) == max(0, 3 - looked)
    assert len(decoded) == 4, "three of Docker's, and the malformed one once"


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "7", '{"Name": 7}', '{"Config": []}', '[{"id": 7}]', '[{"names": []}]', '"\\ud800"',
     "[" * 100_000, '{"annotations": [1]}', "\0\x1b[2J"],
)  # fmt: skip
def test_a_malformed_file_is_named_in_one_line_and_the_others_are_read(root: Path, content: str) -> None:
    written(root / f"var/lib/docker/containers/{A}/config.v2.json", content)
    written(root / "var/lib/containers/storage/overlay-containers/containers.json", content)
    written(root / f"run/containerd/io.containerd.runtime.v2.task/k8s.io/{A}/config.json", content)
    by_docker(root, B, "web", "nginx")
    found = Containers.of({A: 0, B: 0})
    assert found.called("web") == {B}
    assert all(each.isprintable() for each in found.unreadable)
    assert found.called("") == found.called("\x1b") == frozenset()


KEYS = ("Name", "Config", "Image", "id", "names", "metadata", "annotations")
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(KEYS) | st.text(), inner),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ANYTHING)
def test_whatever_is_written_there_nothing_is_raised(root: Path, content: Any) -> None:
    text = json.dumps(content)
    written(root / f"var/lib/docker/containers/{A}/config.v2.json", text)
    written(root / "var/lib/containers/storage/vfs-containers/containers.json", text)
    written(root / f"run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/{A}/config.json", text)
    assert all(each.isprintable() for each in Containers.of({A: 0}).unreadable)


def test_a_huge_file_and_one_that_is_none_are_named(root: Path) -> None:
    huge = written(root / f"var/lib/docker/containers/{A}/config.v2.json", "")
    os.truncate(huge, container_files.MOST_BYTES + 1)
    endless = root / f"var/lib/docker/containers/{B}/config.v2.json"
    endless.parent.mkdir(parents=True)
    endless.symlink_to("/dev/zero")
    found = Containers.of({A: 0, B: 0})
    assert [each.rpartition(": ")[2] for each in found.unreadable] == ["it is no file of a runtime"] * 2
    assert not found.forbidden


def test_what_is_kept_of_files_does_not_grow_with_what_was_there_before(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container_files, "MOST_KEPT", 10)
    for number in range(50):
        path = by_podman(root, *((token_hex(32), "old", "x") for _ in range(20)), (A, "web", "x"))
        os.utime(path, ns=(number, number))
        identity = token_hex(32)
        by_docker(root, identity, "web", "nginx")
        assert [len(Containers.of({each: 0}).found) for each in (A, identity)] == [1, 1]
    assert len(container_files._kept) == 10
    assert all(len(each.found) <= 1 for each in container_files._kept.values()), "only what was asked for"


def test_a_container_that_was_not_asked_for_before_is_found_in_the_same_file(root: Path) -> None:
    by_podman(root, (A, "web", "nginx"), (B, "db", "postgres"))
    assert Containers.of({A: 0}).called("web") == {A}
    assert Containers.of({B: 0, A: 0}).called("db") == {B}


def test_another_file_in_the_place_of_the_first_is_read_again(root: Path) -> None:
    path = by_docker(root, A, "web", "nginx")
    assert Containers.of({A: 0}).called("web") == {A}
    before = path.stat()
    by_docker(root, A, "wob", "nginx")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert Containers.of({A: 0}).called("wob") == {A}


@pytest.mark.parametrize(
    ("wanted", "image", "meant"),
    [
        ("nginx", "nginx:1.27", True),
        ("nginx", "docker.io/library/nginx:latest", True),
        ("nginx:1.27", "docker.io/library/nginx:1.27", True),
        ("docker.io/library/nginx", "nginx", True),
        ("nginx:latest", "nginx", True),
        ("nginx:1.27", "nginx", False),
        ("nginx", "bitnami/nginx", False),
        ("nginx", "nginx-debug", False),
        ("web", "localhost/web:latest", True),
        ("registry:5000/web", "registry:5000/web:7", True),
        ("registry:5000/web:8", "registry:5000/web:7", False),
        ("quay.io/web", "docker.io/web", False),
        ("nginx@sha256:12", "nginx:1@sha256:12", True),
        ("nginx@sha256:12", "nginx:1@sha256:13", False),
        ("nginx:latest", "nginx@sha256:12", False),
        ("sha256:12", "sha256:12", True),
        ("nginx", "", False),
    ],
)
def test_an_image_is_meant_by_its_name_and_what_is_given_of_tag_and_digest(
    wanted: str, image: str, *, meant: bool
) -> None:
    assert is_image(wanted, image) is meant
