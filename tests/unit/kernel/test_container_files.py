"""Names and images of containers, from trees that are written here as each runtime writes its own."""

import json
import os
import pwd
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napctl.kernel import container_files
from napctl.kernel.container_files import Containers, is_image

A, B = (token_hex(32) for _ in range(2))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(container_files, "ROOT", tmp_path)
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


def by_podman(home: Path, *containers: tuple[str, str, str], storage: str = "var/lib/containers/storage") -> Path:
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
    return written(home / storage / "overlay-containers/containers.json", content)


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


def test_a_users_container_is_found_in_his_home_and_never_in_the_place_of_the_systems(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = pwd.struct_passwd(("one", "x", 1000, 1000, "", "/home/one", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", {1000: user}.__getitem__)
    by_podman(root / "home/one", (B, "web", "nginx"), storage=".local/share/containers/storage")
    assert Containers.of({B: 1000}).called("web") == {B}
    assert Containers.of({B: 0}).called("web") == frozenset(), "its control group is the system's"
    assert Containers.of({B: 4711}).called("web") == frozenset(), "nobody has that number"
    by_docker(root, A, "web", "nginx:1")
    both = Containers.of({A: 0, B: 1000})
    assert [both.called("web"), both.of_image("nginx")] == [{A}, {A}]


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
