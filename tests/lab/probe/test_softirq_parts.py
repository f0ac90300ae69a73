"""Time in NET_RX softirqs by whose it is: of NAPI instances, and of processes on top of which it came."""

import pytest

from napctl.probe.softirq_parts import SoftirqPartsProbe
from napctl.probe.softirq_time import SoftirqTimeProbe
from tests.lab.helpers import free_pid
from tests.lab.probe.test_softirq_time import sender, turn

pytestmark = pytest.mark.lab

BACKLOG = 0
"""The id of who polls what loopback delivers."""
NOBODY = 65_000


def test_polls_are_of_their_instances_part_and_softirqs_of_the_process_below() -> None:
    with sender() as process, SoftirqTimeProbe.load([process.pid]) as all_of_it:
        parts = [([BACKLOG], [free_pid()]), ([NOBODY], [process.pid])]
        with SoftirqPartsProbe.load(parts) as probe:
            there, before = all_of_it.read(), probe.read()
            turn(process)
            polled, below = (
                (now.polled_ns - then.polled_ns, now.on_ns - then.on_ns)
                for now, then in zip(probe.read(), before, strict=True)
            )
            found = all_of_it.read()  # of a time in which that of the parts lies: others have softirqs all the time
    assert polled[1] == 0
    assert below[0] == 0
    assert 20_000 * 100 <= below[1] <= 1.2 * (found.on_chosen_ns - there.on_chosen_ns)
    assert 20_000 * 50 <= polled[0] <= 1.2 * (found.ns - there.ns)


def test_other_parts_are_told_apart_without_loading_it_anew() -> None:
    with sender() as process, SoftirqPartsProbe.load([([NOBODY], [free_pid()]), ([BACKLOG], [])]) as probe:
        probe.choose([([BACKLOG], [process.pid])])
        (before,) = probe.read()
        turn(process)
        (after,) = probe.read()
    assert after.polled_ns - before.polled_ns >= 20_000 * 50
    assert after.on_ns - before.on_ns >= 20_000 * 100
