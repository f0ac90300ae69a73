"""Which NAPI instances of an attachment starve, and what of it is taken back then."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.attach.attachment import planned
from napctl.attach.inspect_process import EpollInstance
from napctl.attach.starving import starved_changes
from napctl.change.transaction import begun
from napctl.model.activity import Now, judge
from napctl.model.change import Change, EpollChange, NapiChange, SocketChange, SteeringChange, Transaction
from napctl.model.counts import PollerCounts
from napctl.model.histogram import Histogram
from napctl.model.suspension import Suspension
from napctl.model.suspension_counts import SuspensionCounts
from napctl.model.window import NapiWindow, Window
from tests.unit.attach.targets import ABLE, examination, instance, judged, plain_socket

NAPIS = st.integers(300, 303)


def attached(*instances: EpollInstance) -> Transaction:
    target = judged(examination(*instances), force=True)
    return begun("attach", "server", planned(target, Suspension()), pid=42, started_ticks=42)


def window(seconds: float, *napis: NapiWindow) -> Window:
    return Window(started_unix_ns=0, seconds=seconds, source="bpf", napis=napis, cpus=(), devices=(), lacks=())


def polled_by(own_polls: int) -> NapiWindow:
    """NAPI 300, whose thread has found packets in a hundred polls."""
    own = PollerCounts(pid=42, name="server", polls=own_polls, empty=own_polls, packets=0)
    found, nothing = Histogram.of({1: 100}), Histogram.of({0: own_polls})
    return NapiWindow(napi_id=300, device="eth0", ifindex=1, netns=1, thread=found, busy_poll=nothing, pollers=(own,))


def where(transaction: Transaction, *instances: EpollInstance, starving: set[int]) -> tuple[set[int], set[int]]:
    """Descriptors of epoll instances and ids of NAPI instances that are taken back."""
    taken = list(starved_changes(transaction, examination(*instances), starving))
    epolls = {each.epoll_fd for each in taken if isinstance(each, EpollChange)}
    napis = {each.napi_id for each in taken if isinstance(each, NapiChange)}
    assert len(taken) == len(epolls) + len(napis)
    return epolls, napis


def test_the_one_that_starves_goes_with_what_it_feeds_and_the_others_stay() -> None:
    both = instance(5, {300: 4}), instance(6, {301: 4})

    assert where(attached(*both), *both, starving={301}) == ({6}, {301})
    assert where(attached(*both), *both, starving=set()) == (set(), set())
    assert where(attached(*both), *both, starving={300, 301}) == ({5, 6}, {300, 301})


def test_all_that_one_feeds_goes_as_it_is_not_known_who_lets_it_starve() -> None:
    alike = instance(5, {300: 4}), instance(6, {300: 1}), instance(7, {301: 1})

    assert where(attached(*alike), *alike, starving={300}) == ({5, 6}, {300})


def test_one_that_feeds_nobody_else_who_is_attached_goes_too() -> None:
    forced = instance(5, {300: 4, 301: 2, 302: 1}), instance(6, {302: 3})

    assert where(attached(*forced), *forced, starving={301}) == ({5}, {300, 301})


def test_it_counts_who_is_fed_by_then() -> None:
    before = instance(5, {300: 1}), instance(6, {301: 1})
    after = instance(5, {301: 1}), instance(6, {300: 1})

    assert where(attached(*before), *after, starving={300}) == ({6}, {300})


def test_an_instance_that_polls_by_itself_loses_its_napi_instance_only() -> None:
    own = instance(5, {300: 1}, Suspension().epoll)

    assert where(attached(own), own, starving={300}) == (set(), {300})


def test_a_socket_that_is_read_without_epoll_goes_as_well_and_steering_stays() -> None:
    found = examination(plain_sockets=(plain_socket(300),), queues=2)
    changes: tuple[Change, ...] = (
        SteeringChange(pid=42, name="server", started_ticks=42, fd=7, inodes=(7,), address="tcp 10.0.0.1:80"),
        *(
            NapiChange(netns=1, device="eth0", ifindex=3, napi_id=napi, before=ABLE, after=Suspension().napi)
            for napi in (300, 301)
        ),
        SocketChange(
            pid=42, name="server", started_ticks=42, fd=9, inode=900, budget=64,
            before=plain_socket().polling, after=plain_socket().polling,
        ),
    )  # fmt: skip
    transaction = begun("attach", "server", changes, pid=42, started_ticks=42)

    assert list(starved_changes(transaction, found, {300})) == [changes[1], changes[3]]


@given(st.lists(st.dictionaries(NAPIS, st.integers(1, 3), min_size=1), min_size=1, max_size=4), st.sets(NAPIS))
def test_no_instance_that_stays_is_fed_by_one_that_goes(fed: list[dict[int, int]], starving: set[int]) -> None:
    instances = [instance(5 + number, each) for number, each in enumerate(fed)]
    epolls, napis = where(attached(*instances), *instances, starving=starving)

    for each in instances:
        assert each.fd in epolls or not napis & set(each.sockets_by_napi)
        assert (each.fd in epolls) == bool(starving & set(each.sockets_by_napi))


@pytest.mark.parametrize(
    ("timeout_ms", "seconds", "rescues", "starves"),
    [
        (20, 1, 2, False), (20, 1, 4, False), (20, 1, 5, True), (20, 10, 40, False), (20, 10, 50, True),
        (0, 1, 0, False), (20, 0.1, 2, False), (20, 0.1, 3, True), (1, 1, 50, False), (1, 1, 100, True),
        (1000, 1, 1, True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("busy_share", [0, 0.1])
def test_a_napi_instance_starves_that_is_left_to_its_suspend_timer_for_a_tenth_of_the_time(
    timeout_ms: int, seconds: float, rescues: int, starves: bool, busy_share: float
) -> None:
    """As the server that pauses now and then does not, nor one that has no CPU."""
    without_cpu = int(busy_share * seconds * 1000 / timeout_ms) if timeout_ms else 1000
    now = judged_in(window(seconds, polled_by(100)), timeout_ms, rescues + without_cpu, without_cpu)

    assert (now.verdict == "starving", now.starving) == (starves, (300,) if starves else ())
    assert (f"NAPI 300 waited {rescues / seconds:.0f} times a second" in now.why) == starves


@pytest.mark.parametrize(("rescues", "without_cpu", "starves"), [(25, 25, True), (24, 24, False), (40, 38, True)])
def test_one_that_is_left_to_it_for_half_of_the_time_starves_whoever_is_at_fault(
    rescues: int, without_cpu: int, starves: bool
) -> None:
    """Acknowledgements and other servers are in the same queue, and have a CPU."""
    now = judged_in(window(1, polled_by(100)), 20, rescues, without_cpu)

    assert (now.verdict == "starving") == starves
    assert (f"NAPI 300 waited {rescues} times a second" in now.why) == starves


@pytest.mark.parametrize("own_polls", [0, 9, 10])
def test_one_that_hardly_polls_starves_whatever_keeps_it_from_its_cpu(own_polls: int) -> None:
    """As a loop that never waits: it is always ready to run."""
    now = judged_in(window(1, polled_by(own_polls)), 20, 20, 20)

    assert (now.verdict == "starving") == (own_polls < 10)


def judged_in(seen: Window, timeout_ms: int, timeouts: int, without_cpu: int) -> Now:
    """Of a server that is fed by NAPI 300, with so many rescues, and by 301."""
    fed = instance(5, {300: 4}), instance(6, {301: 4})
    wanted = Suspension(irq_suspend_timeout_ns=timeout_ms * 10**6)
    transaction = begun("attach", "server", planned(judged(examination(*fed)), wanted), pid=42, started_ticks=42)
    counts = {
        (1, 300): SuspensionCounts(napi_id=300, netns=1, timeouts=timeouts, without_cpu=without_cpu, resumes=timeouts),
        (1, 301): SuspensionCounts(napi_id=301, netns=1),
    }
    return judge(transaction, seen, counts)
