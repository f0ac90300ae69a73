"""A treatment that adapts: what follows the server while a cell is measured, and how that ends."""

import signal
import socket
from pathlib import Path

import pytest

from napctl.experiment.run_directory import RunDirectory
from napctl.lab.bed import Lab
from napctl.lab.servers import Server
from tests.lab.helpers import Napctl, machine_of, until

pytestmark = pytest.mark.lab


def test_it_is_measured_like_any_other_and_has_learned_before(napctl: Napctl, tmp_path: Path) -> None:
    for attempt in range(3):
        run = tmp_path / f"run-{attempt}"
        done = napctl(
            "compare", "base", "adapt:150us", "--lab", "--rates", "20k", "--rounds", 1, "--seconds", 1, "--learn", 2,
            "--warmup", 1, "--output", run, timeout_s=90,
        )  # fmt: skip
        failed = [cell.failed for cell in RunDirectory(run).cells()]
        if failed == ["", ""]:
            break  # a busy machine has let the load come in time

    assert done.status in (0, 1), done
    assert "adapt:150us learns 20,000/s" in done.stderr
    assert failed == ["", ""]
    assert sum(each.title == "attach memcached" for each in napctl.live()) == 0


@pytest.mark.long
def test_it_ends_with_a_comparison_that_is_killed_and_everything_is_put_back(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path
) -> None:
    before = machine_of(lab.server)
    load = ("--load", "sleep 8; echo rate 5", "--adapter", "regex:requests_per_second=rate (\\S+)")
    arguments = ("--target", server.pid, *load, "--rounds", 1, "--seconds", 1, "--warmup", 0, "--learn", 0)

    with napctl.start("compare", "adapt:150us", *arguments, "--output", tmp_path / "run") as running:
        until(lambda: napctl.live() or running.poll() is not None, "the server to be attached")
        assert running.poll() is None, running.communicate()
        running.send_signal(signal.SIGKILL)

    until(lambda: not napctl.live(), "the server to be let go")
    assert machine_of(lab.server) == before


@pytest.mark.long
def test_where_nothing_comes_to_be_attached_the_cell_has_failed_and_says_why(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path
) -> None:
    load = ("--load", "sleep 2; echo rate 5", "--adapter", "regex:requests_per_second=rate (\\S+)")
    arguments = ("--target", server.pid, *load, "--rounds", 1, "--seconds", 1, "--warmup", 0, "--learn", 0)

    with napctl.start("compare", "base", "adapt:150us", *arguments, "--output", tmp_path / "run") as running:
        until((tmp_path / "run").exists, "the run to begin")
        client.close()
        _, errors = running.communicate(timeout=60)

    failed = {cell.treatment: cell.failed for cell in RunDirectory(tmp_path / "run").cells()}
    assert failed["base"] == "", errors
    assert "nothing was attached: waiting" in failed["adapt:150us"]
