"""A trial of whoever is new to an attachment, and the next one where it told nothing."""

import socket
import time

import pytest

from napctl.attach import follow_trial
from napctl.attach.follow_trial import AGAIN_SECONDS, TRIAL_SECONDS, UNDECIDED, Trials
from napctl.lab.servers import Server
from napctl.model.activity import Now
from tests.lab.conftest import LoadStarter
from tests.lab.helpers import Napctl, until

pytestmark = pytest.mark.lab


def test_one_that_was_too_quiet_to_tell_is_made_again_until_it_tells(
    server: Server, client: socket.socket, load: LoadStarter, napctl: Napctl
) -> None:
    attached, trials = napctl.attach_quickly(server.pid), Trials()

    def read() -> Now | None:
        trials.catch_up(attached, polls=True, settled=True)
        return trials.read()

    try:
        trials.begin(attached, now=True)
        first = until(read, "the first trial")
        assert first is not None
        assert first.verdict in UNDECIDED
        assert trials.until - time.monotonic() <= AGAIN_SECONDS[0]
        load(2_000)

        def told() -> Now | None:
            """Not of one in which a busy machine has let the load wait."""
            found = read()
            return found if found is not None and found.verdict not in UNDECIDED else None

        second = until(told, "the next one")
        assert second is not None
        assert second.verdict == "active"
        assert trials.until == float("inf"), "one that has told something is the last"
    finally:
        trials.end()


def test_of_a_target_without_traffic_not_for_ever(
    server: Server, client: socket.socket, napctl: Napctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a tenth of the time."""
    monkeypatch.setattr(follow_trial, "TRIAL_SECONDS", TRIAL_SECONDS / 10)
    monkeypatch.setattr(follow_trial, "AGAIN_SECONDS", tuple(each / 10 for each in AGAIN_SECONDS))
    attached, trials = napctl.attach_quickly(server.pid), Trials()
    trials.begin(attached, now=True)
    made = 0
    while trials.until < float("inf"):
        time.sleep(max(0.0, trials.until - time.monotonic()))
        trials.catch_up(attached, polls=True, settled=True)
        made += trials.read() is not None
    assert made == 1 + len(AGAIN_SECONDS)
    assert sum(AGAIN_SECONDS) < 20
