"""Which control group is meant by a container's name or id, where users may make groups of any name."""

from collections.abc import Callable
from pathlib import Path

import pytest

from napctl.attach import units_and_containers
from napctl.attach.units_and_containers import in_group
from napctl.kernel import cgroups, container_files
from napctl.kernel.cgroups import Hierarchy
from napctl.model.errors import BadInput
from tests.unit.kernel.test_container_files import MINE, USER, A, B, by_docker, by_podman

Make = Callable[..., Path]


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """group(path, pid, user): a directory as the kernel has it for a control group of that user."""
    groups = tmp_path / "cgroup"
    owners: dict[Path, int] = {}
    groups.mkdir()
    monkeypatch.setattr(cgroups, "hierarchy", lambda: Hierarchy(groups, "/"))
    monkeypatch.setattr(units_and_containers, "_owner", owners.get)
    monkeypatch.setattr(container_files, "ROOT", tmp_path)
    monkeypatch.setattr(container_files, "_home_of", {USER: "/home/one"}.get)

    def make(path: str, pid: int, user: int = 0) -> Path:
        made = groups / path
        made.mkdir(parents=True)
        (made / "cgroup.procs").write_text(f"{pid}\n")
        owners[made] = user
        return made

    return make


def found(value: str) -> list[int]:
    return in_group(f"container:{value}", "container", value)


def test_a_name_wins_over_how_an_id_begins_and_a_whole_id_over_both(tmp_path: Path, group: Make) -> None:
    group(f"docker-{A}.scope", 11)
    group(f"docker-{B}.scope", 12)
    by_docker(tmp_path, B, A[:12], "nginx")
    assert found(A[:12]) == [12]
    assert found(A[:13]) == found(A.upper()) == [11]


def test_a_user_takes_no_name_and_no_beginning_of_an_id_from_the_system(tmp_path: Path, group: Make) -> None:
    group(f"docker-{A}.scope", 11)
    group(f"user.slice/docker-{A[:8]}{B[8:]}.scope", 12, USER)
    assert found(A[:8]) == [11]
    assert found(A[:8] + B[8:]) == [12], "all of it is given"
    group(f"user.slice/docker-{B}.scope", 13, USER)
    assert found(B[:8]) == [13]
    by_podman(tmp_path / "home/one", (B, A[:6], "nginx"), storage=MINE, owner=USER)
    assert found(A[:6]) == [11]


def test_of_groups_with_one_id_a_users_are_not_taken_for_the_systems(group: Make) -> None:
    group(f"a.slice/docker-{A}.scope", 11, USER)
    group(f"b.slice/docker-{A}.scope", 12)
    group(f"b.slice/docker-{A}.scope/libpod-{A}", 13, USER)
    group(f"c.slice/docker-{A}.scope", 14, USER + 1)
    assert found(A) == found(A[:20]) == [12, 13], "what the system's group holds belongs to it"
    group(f"a.slice/docker-{B}.scope", 15, USER)
    group(f"c.slice/docker-{B}.scope", 16, USER + 1)
    assert found(B) == [15]


def test_nobody_looks_into_a_home_for_what_the_system_has(
    tmp_path: Path, group: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    group(f"docker-{A}.scope", 11)
    group(f"user.slice/docker-{B}.scope", 12, USER)
    by_docker(tmp_path, A, "web", "nginx")
    by_podman(tmp_path / "home/one", (B, "mine", "redis"), storage=MINE, owner=USER)
    asked: list[int] = []

    def home_of(user: int) -> str:
        asked.append(user)
        return "/home/one"

    monkeypatch.setattr(container_files, "_home_of", home_of)
    assert found("web") == found("image=nginx") == found(A[:9]) == [11]
    assert asked == []
    assert found("mine") == found("image=redis") == [12]
    assert asked == [USER, USER]


def test_what_cannot_be_read_is_told_in_one_line(tmp_path: Path, group: Make) -> None:
    group(f"docker-{A}.scope", 11)
    by_docker(tmp_path, A, "web", "nginx").write_text("\x1b[2J{")
    with pytest.raises(BadInput) as error:
        found("wob")
    assert str(error.value).endswith("config.v2.json: it does not read as its runtime writes it")
    assert str(error.value).isprintable()
