"""Another hand, and another napctl, while `attach` tries timers: nobody waits for it, and what he did stands."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from napctl.change.journal import Journal
from napctl.lab.bed import Lab
from napctl.lab.servers import Server
from tests.lab.change.test_another_hand import THEIRS, flush_of
from tests.lab.conftest import LoadStarter
from tests.lab.helpers import PREFERS, Napctl, params_of, set_napi, until

pytestmark = pytest.mark.lab


@contextmanager
def trying_timers(lab: Lab, server: Server, napctl: Napctl, *options: object) -> Iterator[subprocess.Popen[str]]:
    """One of them in force."""
    with napctl.start("attach", server.pid, *options) as running:
        try:
            until(lambda: flush_of(lab), "a timer")
            yield running
        finally:
            running.kill()


def test_nobody_waits_for_timers_that_are_tried(lab: Lab, server: Server, load: LoadStarter, napctl: Napctl) -> None:
    load(5_000)
    waited = list[float]()
    with trying_timers(lab, server, napctl, "--window", 0) as running:
        for _ in range(5):
            began = time.monotonic()
            with Journal(napctl.state):
                waited.append(time.monotonic() - began)
            time.sleep(0.3)
        assert running.poll() is None, "it still tries"
        assert running.wait(60) == 0

    assert max(waited) < 2, waited
    assert [each.state for each in napctl.live()] == ["attached"]


@pytest.mark.parametrize("hand", ["detaches it", "sets its timer"])
def test_timers_are_tried_no_more_when_somebody_else_comes_between(
    hand: str, lab: Lab, server: Server, load: LoadStarter, napctl: Napctl
) -> None:
    load(5_000)
    with trying_timers(lab, server, napctl, "--window", 0) as running:
        if hand == "detaches it":
            assert napctl("detach", server.pid).status == 0
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
    load(5_000)
    with trying_timers(lab, server, napctl, "--stay", "--defer-us", "auto") as running:
        assert napctl("detach", server.pid).status == 0
        output, words = running.communicate(timeout=60)

    assert (running.returncode, words) == (0, "")
    assert "somebody else has detached it" in output
    assert flush_of(lab) == 0
    assert napctl.live() == []
