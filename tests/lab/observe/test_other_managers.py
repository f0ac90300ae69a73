"""Who is known for another manager: by his process, which not everybody can have."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from napctl.kernel import processes
from napctl.kernel.namespaces import NetworkNamespace
from napctl.observe.other_managers import other_managers
from tests.lab.helpers import until

pytestmark = pytest.mark.lab

NOBODY = 65534


@contextmanager
def called(directory: Path, name: str, user: int = 0) -> Iterator[int]:
    """A process that is executed from a program of that name."""
    directory.chmod(0o755)
    copy = directory / name
    shutil.copy(shutil.which("sleep") or "/bin/sleep", copy)
    with subprocess.Popen([copy, "60"], user=user, cwd="/") as process:
        try:
            until(lambda: (found := processes.process(process.pid)) and found.name == name[:15], f"it to be {name}")
            yield process.pid
        finally:
            process.kill()


@pytest.fixture
def directory() -> Iterator[Path]:
    """That nobody can execute from as well."""
    with tempfile.TemporaryDirectory(prefix="napctl-managers-", dir="/tmp") as path:
        yield Path(path)


def found() -> dict[str, int]:
    with NetworkNamespace.current() as netns:
        return {each.name: each.pid for each in other_managers(netns)}


def test_roots_process_executed_from_that_program_is_known_and_another_users_is_not(directory: Path) -> None:
    before = found()
    with called(directory, "irqbalance", NOBODY) as pid:
        assert pid not in found().values()
        with called(directory, "NetworkManager") as manager:
            now = found()
            assert before.get("NetworkManager", now["NetworkManager"]) == now["NetworkManager"]
            assert now["NetworkManager"] == manager or "NetworkManager" in before
    assert found() == before


def test_one_that_only_calls_itself_so_is_not_known() -> None:
    before = found()
    script = "printf irqbalance >/proc/self/comm; sleep 60; true"
    with subprocess.Popen(["sh", "-c", script]) as process:
        try:
            until(lambda: (one := processes.process(process.pid)) and one.name == "irqbalance", "its name")
            assert found() == before
        finally:
            process.kill()


def test_who_is_in_another_network_namespace_sets_no_device_of_this_one(directory: Path) -> None:
    before = found()
    with (
        NetworkNamespace.current() as ours,
        NetworkNamespace.create() as elsewhere,
        elsewhere.entered(),
        called(directory, "NetworkManager") as pid,
    ):
        assert [each.pid for each in other_managers(elsewhere) if each.name == "NetworkManager"] == [pid]
        assert pid not in {each.pid for each in other_managers(ours)}
    assert found() == before
