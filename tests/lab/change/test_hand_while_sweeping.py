"""Another hand, and another napctl, while `attach` tries timers: nobody waits for it, and what he did stands."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import pytest

from napctl.change.journal import Journal
from napctl.lab.bed import Lab
from napctl.lab.servers import Server
from tests.lab.change.test_another_hand import THEIRS, flush_of
from tests.lab.conftest import LoadStarter
from tests.lab.helpers import PREFERS, Napctl, params_of, set_napi, until
from tests.lab.sweeps import sweeping

pytestmark = pytest.mark.lab


@contextmanager
def trying_timers(
    server: Server, napctl: Napctl, *options: object, says: Literal["stderr", "stdout"] = "stderr"
) -> Iterator[subprocess.Popen[str]]:
    """One of them in force."""
    with sweeping(napctl, server, *options, says=says) as running:
        try:
            yield running
        finally:
            running.kill()


def test_nobody_waits_for_timers_that_are_tried(server: Server, load: LoadStarter, napctl: Napctl) -> None:
    load(5_000, seconds=100)

    def had_between_trials() -> bool:
        """Again and again, before all of them are over."""
        with trying_timers(server, napctl, "--window", 0, "--latency-budget", "60us") as running:
            for _ in range(3):
                with Journal(napctl.state):
                    still = running.poll() is None
                time.sleep(0.3)
            assert running.wait(60) == 0
        assert [each.state for each in napctl.live()] == ["attached"]
        assert napctl("detach", server.pid).status == 0
        return still

    until(had_between_trials, "the journal while timers are tried")


@pytest.mark.parametrize("hand", ["detaches it", "sets its timer"])
def test_timers_are_tried_no_more_when_somebody_else_comes_between(
    hand: str, lab: Lab, server: Server, load: LoadStarter, napctl: Napctl
) -> None:
    load(5_000, seconds=100)
    with trying_timers(server, napctl, "--window", 0) as running:
        if hand == "detaches it":
            until(lambda: napctl("detach", server.pid).status == 0, "a trial to detach")
        else:
            (napi,) = lab.server.napis()
            set_napi(lab, napi.napi_id, THEIRS)
        output, words = running.communicate(timeout=60)

    assert (running.returncode, output) == (5, ""), words
    assert "somebody else has" in words.splitlines()[-1]
    assert flush_of(lab) == (0 if hand == "detaches it" else 777_000)
    assert PREFERS not in params_of(server.pid).values()
    assert napctl.live() == []


def test_who_stays_does_not_attach_again_what_somebody_has_detached_while_timers_were_tried(
    lab: Lab, server: Server, load: LoadStarter, napctl: Napctl
) -> None:
    load(5_000, seconds=100)
    with trying_timers(server, napctl, "--stay", "--defer-us", "auto", says="stdout") as running:
        until(lambda: napctl("detach", server.pid).status == 0, "a trial to detach")
        output, words = running.communicate(timeout=60)

    assert (running.returncode, words) == (0, "")
    assert "somebody else has detached it" in output
    assert flush_of(lab) == 0
    assert napctl.live() == []
