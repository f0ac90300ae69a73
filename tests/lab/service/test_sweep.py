"""While the service tries timers on one target, it is there for all others, and for whoever asks it to end."""

import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from napctl.change.journal import Journal
from napctl.lab.bed import Lab
from napctl.lab.load import LoadSpec, started
from tests.lab.following import Following, all_unset, attached, flap, served, settings_of
from tests.lab.helpers import Napctl, machine_of, until
from tests.lab.service.services import HURRIED, guards_gone, policy_of, serving
from tests.tries import in_one_of

pytestmark = pytest.mark.lab

AUTO = '"auto"'


@pytest.mark.alone
def test_while_timers_are_tried_another_target_is_mended_within_a_second_and_sigterm_is_heard_as_soon(
    napctl: Napctl, tmp_path: Path
) -> None:
    with served() as tried, served() as other, ExitStack() as stack:
        before = machine_of(tried.lab.server)
        load = LoadSpec(rate_per_second=2_000, seconds=60)
        stack.enter_context(started(tried.lab, tried.server, load)).wait_for_warmup()
        policy = policy_of(tmp_path, (tried.server.pid, AUTO), other.server.pid)
        with serving(napctl, policy) as it:
            it.told(f"pid:{tried.server.pid}: trying timers for about 6 s")
            it.told(f"pid:{other.server.pid}: attached memcached")
            in_one_of(lambda: mended_at_once(it, other.lab))
            mended = time.time()
            chosen = it.told(f"pid:{tried.server.pid}: attached memcached").seconds
            assert chosen > mended, "the sweep was over before anything was tried"
            it.told(f"pid:{tried.server.pid}: chose gro-flush-timeout")
            assert it.end(signal.SIGTERM) == 0
        assert machine_of(tried.lab.server) == before

        def attempt() -> None:
            with serving(napctl, policy) as it:
                it.told(f"pid:{tried.server.pid}: trying timers")
                time.sleep(0.7)
                asked = time.monotonic()
                assert it.end(signal.SIGTERM) == 0
                taken = time.monotonic() - asked
                assert it.since()[-1] == "stopped: all is put back"
            assert machine_of(tried.lab.server) == before
            assert all_unset(tried.server.pid, other.server.pid)
            assert napctl.live() == []
            assert taken < 1.5

        in_one_of(attempt)
    guards_gone(napctl)


def mended_at_once(it: Following, lab: Lab) -> None:
    """What a reset of that device has taken."""
    began = time.time()
    flap(lab)
    assert it.told("attached NAPI", since=began).seconds - began < 1


def test_a_trial_that_cannot_be_put_back_in_time_is_put_back_later_and_others_follow(
    napctl: Napctl, tmp_path: Path
) -> None:
    with served() as one, ExitStack() as stack:
        before = machine_of(one.lab.server)
        load = LoadSpec(rate_per_second=2_000, seconds=60, sleeps=True)
        stack.enter_context(started(one.lab, one.server, load)).wait_for_warmup()
        with serving(napctl, policy_of(tmp_path, (one.server.pid, AUTO)), before=HURRIED) as it:
            it.told("trying timers")
            until(lambda: any(map(attached, settings_of(one.lab))), "a trial")
            with Journal(napctl.state):  # another napctl is at work, for longer than the service waits
                it.told("is changing settings; try again")
            it.told("attached memcached")
            assert len(napctl.live()) == 1
            assert it.end(signal.SIGTERM) == 0
        assert machine_of(one.lab.server) == before


def test_a_trial_that_somebody_detaches_is_over_and_the_target_is_left_to_him(napctl: Napctl, tmp_path: Path) -> None:
    with served() as one, ExitStack() as stack:
        before = machine_of(one.lab.server)
        load = LoadSpec(rate_per_second=2_000, seconds=60, sleeps=True)
        stack.enter_context(started(one.lab, one.server, load)).wait_for_warmup()
        with serving(napctl, policy_of(tmp_path, (one.server.pid, AUTO))) as it:
            it.told("trying timers")
            while napctl("detach", one.server.pid).status:  # between two of them there is nothing to detach
                time.sleep(0.02)
            it.told("somebody else has detached it while it was tried")
            it.told("detached by hand: left so")
            assert machine_of(one.lab.server) == before
            assert it.end(signal.SIGTERM) == 0
