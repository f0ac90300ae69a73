"""What another user may have written is not believed, and not run as root: one line instead. With a real other user."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from napctl.change.journal import Journal
from napctl.experiment.run_directory import RunDirectory
from napctl.lab.servers import Server
from tests.lab.helpers import Napctl
from tests.unit import runs

pytestmark = pytest.mark.lab

NOBODY = 65534
RUN = runs.run(rounds=1)


def given_away(directory: Path) -> Path:
    os.chown(directory, NOBODY, NOBODY)
    return directory


def open_to_all(directory: Path) -> Path:
    directory.chmod(0o777)
    return directory


def with_a_file_open_to_its_group(directory: Path) -> Path:
    for file in directory.iterdir():
        if file.is_file():
            file.chmod(0o660)
    return directory


def with_a_file_given_away(directory: Path) -> Path:
    for file in directory.iterdir():
        os.chown(file, NOBODY, NOBODY)
    return directory


def with_links_inside(directory: Path) -> Path:
    for file in directory.iterdir():
        elsewhere = directory.with_name(f"{directory.name}-{file.name}")
        file.rename(elsewhere)
        file.symlink_to(elsewhere)
    return directory


def behind_a_link_of_another(directory: Path) -> Path:
    link = directory.with_name(f"{directory.name}-link")
    link.symlink_to(directory)
    os.chown(link, NOBODY, NOBODY, follow_symlinks=False)
    return link


def behind_a_link_of_root(directory: Path) -> Path:
    link = directory.with_name(f"{directory.name}-link")
    link.symlink_to(directory)
    return link


WAYS: dict[Callable[[Path], Path], str] = {
    given_away: "belongs to user nobody",
    open_to_all: "others may write to it",
    with_a_file_open_to_its_group: "others may write to it",
    with_a_file_given_away: "belongs to user nobody",
    with_links_inside: "a symbolic link",
    behind_a_link_of_another: "belongs to user nobody",
}
COMMANDS = (
    ("recover",), ("history",), ("attached",), ("rollback",), ("confirm",), ("detach", "--all"), ("detach", "x"),
    ("verify", "lo"),
)  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_state_directory_that_another_may_have_written_is_refused(
    way: Callable[[Path], Path], napctl: Napctl
) -> None:
    with Journal(napctl.state):
        pass
    foreign = Napctl(way(napctl.state))
    before = {file.name: file.lstat() for file in napctl.state.iterdir()}

    for command in COMMANDS:
        assert foreign(*command).failed_with(2, str(foreign.state), WAYS[way]), command
    assert foreign.guards() == []
    assert {file.name: file.lstat() for file in napctl.state.iterdir()} == before


def test_nothing_is_attached_over_it(server: Server, client: object, unchanged: None, napctl: Napctl) -> None:
    napctl.state.mkdir()
    assert napctl.__class__(given_away(napctl.state))("attach", server.pid).failed_with(2, "belongs to user nobody")
    assert list(napctl.state.iterdir()) == []


def test_a_state_directory_behind_a_link_of_root_is_taken(napctl: Napctl) -> None:
    with Journal(napctl.state):
        pass
    assert Napctl(behind_a_link_of_root(napctl.state))("recover").stdout == "nothing to recover\n"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """An interrupted run whose hook would leave a trace."""
    directory = RunDirectory(tmp_path / "run")
    directory.create(RUN.config, {"kernel": os.uname().release})
    for cell in RUN.cells:
        directory.append(cell)
    config = json.loads((directory.path / "config.json").read_text())
    trace = f"touch {tmp_path}/run-as-root"
    config |= {"treatments": ["base", "mine"], "hooks": {"mine": [trace, trace]}, "load": trace, "source": "load"}
    (directory.path / "config.json").write_text(json.dumps(config))
    return directory.path


@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_another_may_have_written_is_neither_gone_on_with_nor_reported(
    way: Callable[[Path], Path], run: Path, napctl: Napctl, tmp_path: Path
) -> None:
    foreign = way(run)
    for command in (("compare", "--resume"), ("report",)):
        assert napctl(*command, foreign).failed_with(2, str(foreign), WAYS[way]), command
    assert not (tmp_path / "run-as-root").exists()
    assert not (run / "report.html").exists()


def test_the_page_of_a_run_is_not_written_through_a_link(run: Path, napctl: Napctl, tmp_path: Path) -> None:
    for name in ("report.html", "raw/0001.out"):
        (run / name).symlink_to(tmp_path / "victim")
        assert napctl("report", run).failed_with(2, name, "a symbolic link")
        (run / name).unlink()
    assert not (tmp_path / "victim").exists()


def test_a_run_is_made_where_nobody_else_may_write_whatever_the_umask(tmp_path: Path) -> None:
    former = os.umask(0)
    try:
        directory = RunDirectory(tmp_path / "run")
        directory.create(RUN.config, {})
    finally:
        os.umask(former)
    assert directory.config() == RUN.config
    made = [directory.path, *directory.path.iterdir()]
    assert not any(each.stat().st_mode & 0o022 for each in made)
    with pytest.raises(Exception, match="others may write"):
        RunDirectory(open_to_all(directory.path)).config()


def test_what_the_lab_runs_is_not_taken_from_a_cache_that_another_may_have_written(
    napctl: Napctl, tmp_path: Path
) -> None:
    (tmp_path / "cache").mkdir()
    done = napctl(
        "lab", "run", "--rate", 100, "--seconds", 1, "--", "true",
        NAPCTL_CACHE_DIR=str(given_away(tmp_path / "cache")),
    )  # fmt: skip
    assert done.failed_with(2, str(tmp_path / "cache"), "belongs to user nobody")
