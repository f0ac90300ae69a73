"""What adapting meets in weeks: probes that are full, a server that reads in another way. In its own loop."""

import errno
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from napctl.adapt.preference import LatencyGoal
from napctl.adapt.ways import INTERRUPTS, ways_between
from napctl.attach.adapting import Adapting
from napctl.attach.packet_cost import Cost
from napctl.attach.window_probes import (
    MOST_REFUSALS,
    PENDING_WINDOWS,
    RENEW_SECONDS,
    UNSEEN_PACKETS,
    UNSEEN_WINDOWS,
)
from napctl.kernel.netdev import Netdev
from napctl.lab.bed import Lab
from napctl.lab.servers import Server
from napctl.model.latency import LatencyHistogram
from napctl.model.settings import NapiSettings
from napctl.model.suspension_counts import SuspensionCounts
from napctl.probe.latency import LatencyProbe
from napctl.probe.libbpf import BpfObject, LibbpfError
from napctl.probe.suspension import SuspensionProbe
from tests.lab.conftest import LoadStarter
from tests.lab.helpers import Napctl, until

pytestmark = pytest.mark.lab

FAR_PIDS = range(4_100_000, 4_101_000)
"""Which nobody has: pids end at 4,194,304, and these come last."""


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def adapting(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path, said: list[str]
) -> Iterator[Adapting]:
    goal = LatencyGoal(ways=ways_between(20_000, 200_000), budget_ns=150_000)
    with Adapting(goal, napctl.attach_quickly(server.pid), tmp_path / "kept", said.append, INTERRUPTS) as adapting:
        yield adapting


def full(probe: SuspensionProbe, polled_at: int) -> None:
    """Take every free place, by instances at an address where there is none, that were polled then."""
    for slot in probe._counters.slots:
        if not slot.napi:
            slot.napi, slot.polled_at = 2, polled_at
    probe._counters.lost_polls = 1


def full_of_processes(probe: LatencyProbe) -> None:
    """Take every free place, by processes that are looked at."""
    free = [each for each in probe._latency.processes if not each.tgid]
    for each, pid in zip(free, FAR_PIDS, strict=False):
        each.tgid = pid
        probe.add(pid)


def look_for_full_probes(adapting: Adapting) -> None:
    adapting._renewed_at -= RENEW_SECONDS
    adapting.turn()


def measures(adapting: Adapting) -> bool:
    """Whether a window comes to its end, and something is decided from it."""

    def decided() -> bool:
        time.sleep(adapting.seconds_left(time.monotonic()))
        return adapting.turn() is not None

    return until(decided, "a decision")


def busy() -> Cost:
    """A window of a server that is."""
    counts = SuspensionCounts(napi_id=300, netns=1)
    waits = (UNSEEN_PACKETS, *counts.waits[1:])
    return Cost(seconds=1.0, at=1.0, cpu_seconds=0.1, napis={(1, 300): replace(counts, waits=waits)})


def test_a_probe_that_is_full_of_what_has_gone_is_loaded_anew_and_goes_on_measuring(
    adapting: Adapting, load: LoadStarter, said: list[str]
) -> None:
    load(5_000)
    before = adapting._probes._cost._suspension
    full(before, polled_at=1)

    look_for_full_probes(adapting)

    assert adapting._probes._cost._suspension is not before
    assert not adapting._probes._cost.is_full
    assert measures(adapting)
    assert said == []


def test_one_that_is_full_of_what_is_polled_is_kept_and_that_is_said(
    adapting: Adapting, load: LoadStarter, said: list[str]
) -> None:
    load(5_000)
    before = adapting._probes._cost._suspension
    full(before, polled_at=time.monotonic_ns())

    for _ in range(2):
        look_for_full_probes(adapting)

    assert adapting._probes._cost._suspension is before
    assert set(said) == {"there are more NAPI instances than the probe has places for: not all is measured"}
    assert measures(adapting)


@pytest.mark.parametrize("dropped", [True, False])
def test_one_that_is_full_of_processes_is_loaded_anew_only_if_some_of_them_are_followed_no_more(
    dropped: bool, adapting: Adapting, load: LoadStarter, said: list[str]
) -> None:
    load(5_000)
    before = adapting._probes._latency
    assert before is not None
    full_of_processes(before)
    if dropped:
        before.drop(FAR_PIDS[0])

    for _ in range(2):
        look_for_full_probes(adapting)

    assert (adapting._probes._latency is not before) == dropped
    told = {"the server has more processes than the probe has places for: not all are measured"}
    assert set(said) == (set() if dropped else told)
    assert measures(adapting)


def test_a_server_that_is_seen_to_read_by_recv_again_is_judged_by_that_again(
    adapting: Adapting, said: list[str]
) -> None:
    none = LatencyHistogram()

    def by_the_wait_for_a_poll(latency: LatencyHistogram) -> bool:
        adapting._probes._look_for_samples(busy(), latency)
        return adapting._probes._window(busy(), latency, INTERRUPTS).until_poll_only

    assert [by_the_wait_for_a_poll(none) for _ in range(UNSEEN_WINDOWS)] == [*[False] * (UNSEEN_WINDOWS - 1), True]
    (line,) = said
    assert "not seen to read by recv" in line
    read = replace(none, counts=(5, *none.counts[1:]))
    assert [by_the_wait_for_a_poll(read) for _ in range(UNSEEN_WINDOWS)] == [*[True] * (UNSEEN_WINDOWS - 1), False]
    assert not by_the_wait_for_a_poll(none), "one window without a sample says nothing"


def test_while_requests_wait_to_be_read_it_is_not_taken_to_read_by_other_means_for_long(
    adapting: Adapting, said: list[str]
) -> None:
    """As behind a queue of seconds; but those that are read by other means wait for ever."""
    probes = adapting._probes
    assert probes._latency is not None
    probes._latency._latency.pending = 1

    def is_blind() -> bool:
        probes._look_for_samples(busy(), LatencyHistogram())
        return probes._blind

    assert [is_blind() for _ in range(PENDING_WINDOWS)] == [*[False] * (PENDING_WINDOWS - 1), True]
    (line,) = said
    assert "not seen to read by recv" in line


def test_where_looking_cannot_be_gone_on_with_it_is_tried_again_and_then_given_up_and_all_is_closed(
    adapting: Adapting, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As without a free descriptor at that moment."""

    def refuse(_program: BpfObject) -> None:
        raise LibbpfError("attach", errno.EMFILE)

    probes = adapting._probes
    probes.rest()
    with monkeypatch.context() as patched:
        patched.setattr(BpfObject, "attach", refuse)
        assert [probes.begin() for _ in range(MOST_REFUSALS - 1)] == [None] * (MOST_REFUSALS - 1)
    reading = probes.begin()
    assert reading is not None
    assert reading.latency is not None
    assert said == []
    probes.rest()
    with monkeypatch.context() as patched:
        patched.setattr(BpfObject, "attach", refuse)
        readings = [probes.begin() for _ in range(MOST_REFUSALS)]
    assert readings[:-1] == [None] * (MOST_REFUSALS - 1)
    assert readings[-1] is not None
    assert readings[-1].latency is None
    (line,) = said
    assert line.startswith("server-side latency is no longer measured: ")
    probes.close()
    probes.close()


def test_threads_that_somebody_else_makes_are_counted_from_the_next_window_on(adapting: Adapting, lab: Lab) -> None:
    probes = adapting._probes
    napis = {each.napi_id for each in lab.server.napis()}
    ours = [(adapting._all, INTERRUPTS)]
    with Netdev(lab.server.namespace) as netdev:

        def threads(threaded: str) -> set[int | None]:
            for each in napis:
                netdev.set_napi(each, NapiSettings(threaded=threaded))
            return {each.thread_pid for each in lab.server.napis()} - {None}

        threads("disabled")
        before = probes.read()
        made = threads("enabled")
        now, later = probes.read(), probes.read()
    assert before.threads == {}
    assert set(now.threads.values()) == made
    assert made <= now.cost.ran.keys()
    assert probes.between(before, now, ours, 0.0)[1] == ()
    assert len(probes.between(now, later, ours, 0.0)[1]) == 1
