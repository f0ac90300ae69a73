"""Comparisons that end before their time, or find a limit reached: all is put back, and finished cells are kept."""

import signal
import socket
import time
from pathlib import Path

import pytest

from napctl.lab.bed import Lab
from napctl.lab.load import LoadSpec, started
from napctl.lab.servers import Server
from tests.lab.experiment.comparing import GREETING, QUICK, cells
from tests.lab.helpers import Napctl, machine_of, until

pytestmark = pytest.mark.lab


def test_after_kill_9_settings_are_restored_finished_cells_kept_and_resume_goes_on(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, run: Path
) -> None:
    before = machine_of(lab.server)
    load = f"sleep 0.7; echo rate 5; kill -0 {server.pid}"
    arguments = (
        "compare",
        "defer:200us",
        "suspend:200us",
        "--target",
        server.pid,
        "--load",
        load,
        "--adapter",
        GREETING,
    )
    with napctl.start(*arguments, "--rounds", 3, *QUICK, "--output", run) as running:
        until(lambda: (run / "cells.jsonl").exists() and len(cells(run)) >= 2, "two cells")
        until(lambda: machine_of(lab.server) != before, "a treatment to be in force")
        running.send_signal(signal.SIGKILL)
    kept = cells(run)
    until(lambda: machine_of(lab.server) == before, "the guard to restore")
    assert napctl("recover").status == 0

    done = napctl("compare", "--resume", run, timeout_s=60)

    assert done.status in (0, 1), done
    assert cells(run)[: len(kept)] == kept
    assert len(cells(run)) == 6
    assert machine_of(lab.server) == before


def test_ctrl_c_stops_at_once_and_restores(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, run: Path
) -> None:
    before = machine_of(lab.server)
    examined = run.with_name("examined")  # a load is made once before the first cell
    load = f"test -e {examined} && sleep 30; touch {examined}; echo rate 5"
    arguments = ("--target", server.pid, "--load", load, "--adapter", GREETING, "--limit", 60)
    with napctl.start("compare", "defer:200us", *arguments, *QUICK, "--output", run) as running:
        until(lambda: machine_of(lab.server) != before, "a treatment to be in force", 60)
        began = time.monotonic()
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 130
        assert time.monotonic() - began < 25
    assert machine_of(lab.server) == before
    assert napctl.live() == []


@pytest.mark.alone
@pytest.mark.long
def test_live_traffic_that_suffers_is_given_back_at_once_and_the_treatment_not_tried_again(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, run: Path
) -> None:
    before = machine_of(lab.server)
    with started(lab, server, LoadSpec(rate_per_second=20_000, seconds=60)) as load:
        load.wait_for_warmup()
        done = napctl(
            "compare", "base", "defer:20ms", "--target", server.pid, "--live", "--rounds", 2, "--seconds", 1.5,
            "--settle", 0, "--max-wait-p99", "8ms", "--output", run, timeout_s=60,
        )  # fmt: skip

    assert done.status in (0, 1), done
    slow = [cell for cell in cells(run) if cell.treatment == "defer:20ms"]
    assert all("taken back at once" in cell.failed for cell in slow)
    assert slow[1].started_unix_ns > 0
    assert any(not cell.failed for cell in cells(run) if cell.treatment == "base")
    assert machine_of(lab.server) == before


@pytest.mark.alone
def test_a_live_run_that_is_resumed_keeps_its_limits_and_nobody_else_may_go_on_with_it(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, run: Path
) -> None:
    before = machine_of(lab.server)
    with started(lab, server, LoadSpec(rate_per_second=20_000, seconds=60)) as load:
        load.wait_for_warmup()
        arguments = ("compare", "base", "defer:20ms", "--target", server.pid, "--live", "--rounds", 2, "--seconds", 1.5)
        with napctl.start(*arguments, "--settle", 0, "--max-wait-p99", "8ms", "--output", run) as running:
            until(lambda: (run / "cells.jsonl").exists() and cells(run), "a cell")
            second = napctl("compare", "--resume", run)
            running.kill()
        assert second.failed_with(2, "another napctl is at work on this run")
        until(lambda: machine_of(lab.server) == before, "the guard to restore")

        done = napctl("compare", "--resume", run, timeout_s=60)

    assert done.status in (0, 1, 6), done  # other work of the machine may keep base from its limit, too
    slow = [cell for cell in cells(run) if cell.treatment == "defer:20ms"]
    assert len(slow) == 2
    assert all("taken back at once" in cell.failed for cell in slow)
    assert machine_of(lab.server) == before


def test_on_a_full_disk_it_stops_with_the_cells_that_were_written(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, run: Path
) -> None:
    """The load's own output fills it."""
    before = machine_of(lab.server)
    kept = run.parent / "kept"
    fill = f"test -e {run}/cells.jsonl && test -s {run}/cells.jsonl && head -c 2M /dev/zero > {run}/filled"
    load = f"echo rate 5; sleep 0.6; {fill}; kill -0 {server.pid}"
    disk = f"mkdir -p {run} {kept}; mount -t tmpfs -o size=512k,mode=700 none {run}"
    disk += f'; "$@"; status=$?; cp -r {run}/. {kept}; exit $status'
    done = napctl(
        "compare", "base", "defer:200us", "--target", server.pid, "--load", load, "--adapter", GREETING,
        "--rounds", 3, *QUICK, "--output", run, under=["unshare", "--mount", "sh", "-c", disk, "sh"], timeout_s=60,
    )  # fmt: skip

    assert (done.status, done.stderr.splitlines()[-1].count("No space left on device")) == (6, 1), done
    assert "Traceback" not in done.stderr
    assert len(cells(kept)) >= 1
    assert machine_of(lab.server) == before
    assert napctl.live() == []
