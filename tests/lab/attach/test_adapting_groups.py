"""Adapting with a queue for each worker: where loads differ each gets its own way, and nothing of either stays."""

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import log
from pathlib import Path

import pytest
from msgspec.structs import replace

from napctl.adapt.grouping import DIFFER_SECONDS
from napctl.adapt.learned import Learned, LearnedWay, Pool
from napctl.adapt.ways import INTERRUPTS, Way
from napctl.attach.adapting import TOLD_SECONDS
from napctl.attach.packet_cost import CostProbe, cost_between, costs_of_parts
from napctl.attach.parts import Part
from napctl.attach.switch_way import in_way, switch_way
from napctl.change.journal import Journal
from napctl.lab.bed import Lab
from napctl.lab.load import LoadSpec, started
from napctl.lab.servers import Server, memcached
from napctl.lab.webservers import nginx
from napctl.model.change import EpollChange, Switch
from napctl.model.suspension import Suspension
from napctl.model.value import from_json, to_json
from tests.lab.following import Following, connections, following, get, get_again, killed, queues_of, settings_of
from tests.lab.helpers import Napctl, ask, ending, params_of, until
from tests.lab.kernel_writes import TRACED, writes_in
from tests.lab.stays import staying
from tests.meanwhile import again_and_again

pytestmark = [pytest.mark.lab, pytest.mark.alone, pytest.mark.timeout(150)]

TIMER = Way(gro_flush_timeout_ns=200_000)
OPTIONS = ("--latency-budget", "100ms", "--timer-range", "200us..200us")
HEAVY = LoadSpec(rate_per_second=12_000, seconds=120, warmup_seconds=0.3, connections=1, protocol="http")
PAUSE_SECONDS = 0.002
"""Between two requests of the light client: some 400 a second, a thirtieth."""


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab.build(queues=2) as lab:
        yield lab


@pytest.fixture
def server(lab: Lab) -> Iterator[Server]:
    """A listening socket for each of two workers."""
    with nginx(lab, workers=2, reuseport=True) as server:
        yield server


def teach(kept: Path) -> None:
    """As if it had been seen for long that interrupts cost less below 1,024 packets/s, and the timer above."""
    learned = from_json(kept.read_bytes(), Learned)
    cells = tuple(
        LearnedWay(
            octave=octave,
            way=way,
            at=learned.traffic_seconds,
            cost=Pool(weight=120, mean=log(1e-5 if (way == INTERRUPTS) == (octave < 10) else 1e-4), variance=1e-3),
            p99=Pool(weight=120, mean=log(200_000), variance=1e-3),
        )
        for octave in range(5, 20)
        for way in (INTERRUPTS, TIMER)
    )
    kept.write_bytes(to_json(replace(learned, cells=cells)))


@contextmanager
def asked_now_and_then(lab: Lab, server: Server) -> Iterator[None]:
    """Requests over a connection that comes to another worker than those that are open."""
    (busy,) = until(lambda: queues_of(*server.workers), "the first connection")
    with ExitStack() as stack:
        for _ in range(40):
            connection = stack.enter_context(get(lab, server))
            if queues_of(*server.workers).keys() - {busy}:
                break
        else:
            pytest.fail("all connections come to one worker")
        with again_and_again(lambda: get_again(connection), PAUSE_SECONDS):
            yield


@contextmanager
def steered(lab: Lab, server: Server, napctl: Napctl) -> Iterator[Following]:
    """Attached and adapted; each worker gets a queue of its own, before it has a connection that stays."""
    with following(napctl, server.pid, "--steer", *OPTIONS) as it:
        with connections(lab, server, 12):
            it.told("1 steered group")
        until(lambda: not queues_of(*server.workers), "the workers to close their connections")
        yield it


@pytest.mark.long
def test_where_one_worker_has_thirty_times_the_load_of_another_two_ways_are_in_force_and_ctrl_c_puts_all_back(
    lab: Lab, server: Server, napctl: Napctl
) -> None:
    with steered(lab, server, napctl) as it:
        assert it.end(signal.SIGINT) == 0
    (kept,) = (napctl.state / "learned").iterdir()
    teach(kept)
    before, params = napctl.machine(lab.server), [params_of(pid) for pid in server.workers]
    with steered(lab, server, napctl) as it:
        with started(lab, server, HEAVY), asked_now_and_then(lab, server):
            began = time.time()
            told = it.told("changed to interrupts for NAPI ", began, patience_s=DIFFER_SECONDS + 30)
            assert told.seconds - began >= DIFFER_SECONDS

            light = int(told.text.removeprefix("changed to interrupts for NAPI ").split(":")[0])
            timers = {napi.napi_id: napi.settings.gro_flush_timeout_ns for napi in lab.server.napis()}
            assert timers.pop(light) == 0
            assert list(timers.values()) == [200_000]
            queues = queues_of(*server.workers)
            polls = {pid: any(each.prefer_busy_poll for each in params_of(pid).values()) for pid in server.workers}
            assert polls == {pid: ids != {light} for pid, ids in queues.items()}
            assert sorted(polls.values()) == [False, True]
            assert napctl("attached").status == 0
            (attached,) = napctl.live()
            assert attached.switches[-1].to == f"interrupts for NAPI {light}"
            assert it.end(signal.SIGINT) == 0
        assert settings_of(lab)[0] == settings_of(lab)[1]
    assert napctl.machine(lab.server) == before
    assert [params_of(pid) for pid in server.workers] == params
    assert napctl.live() == []


def test_what_two_parts_cost_is_told_apart_and_is_all_of_it_together(lab: Lab, server: Server, napctl: Napctl) -> None:
    with steered(lab, server, napctl) as it, started(lab, server, HEAVY), asked_now_and_then(lab, server):
        threads = {napi.napi_id: napi.thread_pid for napi in lab.server.napis()}
        inode = lab.server.namespace.inode
        parts = [
            (frozenset({(inode, napi_id)}), frozenset({pid, threads[napi_id] or pid}))
            for pid, ids in sorted(queues_of(*server.workers).items())
            for napi_id in ids
        ]
        assert len(parts) == 2
        with CostProbe(frozenset[int]().union(*(pids for _, pids in parts))) as probe:
            probe.divide(parts)

            def told_apart() -> bool:
                """In a window of half a second, in which neither has waited for long."""
                everything = frozenset[tuple[int, int]]().union(*(napis for napis, _ in parts))
                earlier = probe.read(everything)
                time.sleep(0.5)
                later = probe.read(everything)
                together, apart = cost_between(earlier, later), costs_of_parts(earlier, later)
                assert sum(each.cpu_seconds for each in apart) == pytest.approx(together.cpu_seconds)
                assert sum(each.packets for each in apart) == together.packets
                light, heavy = sorted(apart, key=lambda each: each.packets)
                return heavy.packets > 8 * light.packets and heavy.cpu_seconds > 3 * light.cpu_seconds > 0

            until(told_apart, "the heavy and the light one")
        assert it.end() == 0


@pytest.mark.long
def test_where_one_process_has_to_do_with_both_queues_there_is_one_decision_for_all_and_that_is_said(
    lab: Lab, napctl: Napctl
) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(ending(memcached(lab)))
        for _ in range(40):
            stack.enter_context(ask(lab, server))
            if len(queues_of(server.pid).get(server.pid, ())) == 2:
                break
        with following(napctl, server.pid, "--force", *OPTIONS) as it:
            spec = replace(HEAVY, protocol="memcached")
            with started(lab, server, spec):
                it.told("with several of them): one decision for all", patience_s=DIFFER_SECONDS + 20)
                assert len(set(settings_of(lab))) == 1
            assert it.end() == 0


@pytest.mark.long
def test_two_groups_of_a_killed_one_are_taken_over_without_a_write(
    lab: Lab, server: Server, napctl: Napctl, tmp_path: Path
) -> None:
    """It idles, so nothing is decided either; looks tell which worker each queue feeds."""
    before = napctl.machine(lab.server)
    words, trace = ("follow", napctl.state, server.pid, "--steer"), tmp_path / "trace"
    with ExitStack() as stack:
        with staying(*words) as it:
            with connections(lab, server, 12):
                it.told("1 steered group")
            until(lambda: not queues_of(*server.workers), "the workers to close their connections")
            for _ in range(40):
                stack.enter_context(get(lab, server))
                if len(queues_of(*server.workers)) == 2:
                    break
            until(lambda: len(polled(napctl)) == 2, "both workers to be attached")
            killed(it)
        until(lambda: napctl.live()[0].guard.deadline_boot_ns, "the guard to see it")  # type: ignore[union-attr]
        (left,) = napctl.live()
        pid, (napi_id,) = next(iter(sorted(queues_of(*server.workers).items())))
        light = Part(frozenset({(lab.server.namespace.inode, napi_id)}), frozenset({pid}))
        switch = Switch(unix_ns=time.time_ns(), to=f"interrupts for {light}", why="its load is light")
        with Journal(napctl.state) as journal:
            switch_way(journal, left, in_way(Suspension(), None), switch, light)
        two = settings_of(lab)
        assert sorted(each.gro_flush_timeout_ns or 0 for each in two) == [0, 200_000]
        with staying(*words, "--budget-us", 100_000, under=[*TRACED, str(trace)]) as it:
            it.told("took over nginx")
            time.sleep(TOLD_SECONDS + 4)
            assert writes_in(trace) == set()
            assert settings_of(lab) == two
            assert it.since() == [each for each in it.since() if "took over" in each]
            assert it.end(signal.SIGTERM) == 0
    assert napctl.machine(lab.server) == before


def polled(napctl: Napctl) -> list[EpollChange]:
    return [each for transaction in napctl.live() for each in transaction.changes if isinstance(each, EpollChange)]
