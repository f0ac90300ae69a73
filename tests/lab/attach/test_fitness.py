"""The traps of suspension are seen before they are stepped into; with --force, their tails are seen and said.

An epoll instance follows one NAPI id (ep_set_busy_poll_napi_id() in fs/eventpoll.c). Packets of another one, and those
for a loop that never waits, lie until the suspend timer fires.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any

import pytest
from msgspec.structs import replace

from napctl.lab.bed import Lab
from napctl.lab.load import LoadResult, LoadSpec, started
from napctl.lab.servers import Server, memcached
from napctl.lab.webservers import nginx
from napctl.model.settings import NapiSettings
from tests.lab.helpers import Napctl, Ran, ending, machine_of, params_of, set_napi
from tests.lab.trial import CONNECTIONS, WARMUP_SECONDS, Protocol, fed_by, held, plain

pytestmark = pytest.mark.lab

RATE = 10_000
SECONDS = 0.5
ROUNDS = 2
ATTEMPTS, WINDOWS = 3, 12
"""Of rounds, and of what a window shows, if other work of the machine lets the load wait in it."""
TAIL_US = 10_000
"""Half of the default irq-suspend-timeout."""
DEFERRED = NapiSettings(defer_hard_irqs=100, gro_flush_timeout_ns=200_000, irq_suspend_timeout_ns=0)
FORCED = ("--force", "--defer-us", 200)


def spec(protocol: Protocol, seconds: float, seed: int = 1, warmup_seconds: float = WARMUP_SECONDS) -> LoadSpec:
    return LoadSpec(
        rate_per_second=RATE,
        seconds=seconds,
        warmup_seconds=warmup_seconds,
        connections=CONNECTIONS,
        protocol=protocol,
        seed=seed,
    )


@contextmanager
def under_load(lab: Lab, server: Server, protocol: Protocol) -> Iterator[None]:
    """Within the block requests come, over all queues."""
    with started(lab, server, replace(spec(protocol, 100), sleeps=True)) as load:
        load.wait_for_warmup()
        yield


def deferral(lab: Lab, server: Server, protocol: Protocol, seed: int) -> LoadResult:
    before = lab.server.napis()
    for napi in before:
        set_napi(lab, napi.napi_id, DEFERRED)
    with started(lab, server, spec(protocol, SECONDS, seed, 0.2)) as load:
        result = load.result()
    for napi in before:
        set_napi(lab, napi.napi_id, napi.settings)
    return result


def forced(lab: Lab, server: Server, protocol: Protocol, seed: int, napctl: Napctl) -> LoadResult:
    with started(lab, server, spec(protocol, SECONDS, seed)) as load:
        assert napctl("attach", server.pid, *FORCED, "--window", 0).status == 0
        load.wait_for_warmup()
        result = load.result()
    assert napctl("detach", server.pid).status == 0
    return result


def has_tail(lab: Lab, server: Server, protocol: Protocol, napctl: Napctl) -> bool:
    """Whether forcing makes the p99 about the suspend timer, where deferral alone does not: in interleaved rounds.

    The least round of deferral counts, since other work of the machine only ever adds to a latency.
    """
    alone, attached = [], []
    for number in range(1, ROUNDS + 1):
        alone.append(deferral(lab, server, protocol, number).p99_us or 0)
        attached.append(forced(lab, server, protocol, number, napctl).p99_us or 0)
    print("p99 with deferral alone", alone, "µs, forced", attached, "µs")
    return median(attached) >= TAIL_US and min(alone) < median(attached) / 2


def refused(lab: Lab, server: Server, napctl: Napctl) -> str:
    """Under load: what attach says; it changed nothing."""
    before = machine_of(lab.server), params_of(server.pid)
    told = napctl("attach", server.pid, "--defer-us", 200, "--window", 0)
    assert (machine_of(lab.server), params_of(server.pid)) == before
    assert napctl.live() == []
    assert told.failed_with(3, "nothing was changed")
    return told.stderr


def says_starving(napctl: Napctl, server: Server, attempts: int = WINDOWS) -> Any:
    """Attached by force under load: attach itself, and `attached`, say so with exit status 1."""
    for last in (*[False] * (attempts - 1), True):
        told = napctl("attach", server.pid, *FORCED, "--json")
        standing = napctl("attached", "--json")
        assert napctl("detach", server.pid).status == 0
        if last or all(starves(each, report) for each, report in ((told, told.json), (standing, the_one(standing)))):
            break
    assert starves(told, told.json), told
    assert starves(standing, the_one(standing)), standing
    return told.json


def the_one(standing: Ran) -> Any:
    (found,) = standing.json["attachments"]
    return found


def starves(ran: Ran, report: Any) -> bool:
    return ran.status == 1 and report["verdict"] == "starving" and "safety timer" in report["why"]


@pytest.fixture
def two_queues() -> Iterator[Lab]:
    with Lab.build(queues=2) as lab:
        yield lab


@pytest.fixture
def one_loop(two_queues: Lab) -> Iterator[Server]:
    """One epoll instance for the connections of both queues."""
    with ending(memcached(two_queues)) as server:
        yield server


@pytest.fixture
def spinning(lab: Lab) -> Iterator[Server]:
    """One queue, and a loop that only ever asks with timeout 0."""
    with ending(plain(lab, spin=True)) as server:
        yield server


def test_one_epoll_instance_for_two_queues_is_refused(two_queues: Lab, one_loop: Server, napctl: Napctl) -> None:
    with under_load(two_queues, one_loop, "memcached"):
        assert [len(each) for each in fed_by([one_loop.pid])] == [2]

        words = refused(two_queues, one_loop, napctl)

    assert "watches sockets of 2 NAPI instances" in words
    assert "-t 2 -N 2" in words  # what would help


def test_forced_it_is_said_to_starve(two_queues: Lab, one_loop: Server, napctl: Napctl) -> None:
    before = machine_of(two_queues.server)
    with under_load(two_queues, one_loop, "memcached"):
        report = says_starving(napctl, one_loop)

    assert report["timeouts_per_second"] >= 2
    assert machine_of(two_queues.server).devices == before.devices


@pytest.mark.long
def test_forced_its_tail_is_as_long_as_the_suspend_timer(two_queues: Lab, one_loop: Server, napctl: Napctl) -> None:
    assert any(has_tail(two_queues, one_loop, "memcached", napctl) for _ in range(ATTEMPTS))


def test_a_worker_with_connections_of_one_queue_is_refused_if_those_at_its_listening_socket_have_several(
    napctl: Napctl,
) -> None:
    with Lab.build(queues=4) as lab, nginx(lab) as server, ExitStack() as connections:
        pure = mixed = False
        for _ in range(200):
            connections.enter_context(held(lab, server, "http"))
            queues = [len(each) for each in fed_by(server.workers)]
            pure, mixed = 1 in queues, max(queues) > 1
            if pure and mixed:
                break
        assert pure
        assert mixed

        for options in ((), ("--steer",)):
            arguments = ("--defer-us", 200, "--window", 0, *options)
            assert napctl("attach", server.pid, *arguments).failed_with(3, "`reuseport` on each")


def test_a_loop_that_only_asks_with_timeout_0_is_refused(lab: Lab, spinning: Server, napctl: Napctl) -> None:
    with under_load(lab, spinning, "http"):
        assert "timeout 0" in refused(lab, spinning, napctl)


def test_forced_a_loop_that_only_asks_with_timeout_0_is_said_to_starve(
    lab: Lab, spinning: Server, napctl: Napctl
) -> None:
    with under_load(lab, spinning, "http"):
        says_starving(napctl, spinning)


@pytest.mark.long
def test_forced_a_loop_that_only_asks_with_timeout_0_has_the_tail(lab: Lab, spinning: Server, napctl: Napctl) -> None:
    assert any(has_tail(lab, spinning, "http", napctl) for _ in range(ATTEMPTS))
