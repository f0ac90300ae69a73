"""What of an attachment is taken back if some of its NAPI instances starve."""

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.targets import ABLE, examination, instance, loose

from napctl.attach.attach import choose, planned
from napctl.attach.fitness import verdicts
from napctl.attach.look import EpollInstance
from napctl.attach.takeback import starved_changes
from napctl.change.transaction import begun
from napctl.model.change import Change, EpollChange, NapiChange, SocketChange, SteeringChange, Transaction
from napctl.model.suspension import Suspension

NAPIS = st.integers(300, 303)


def attached(*instances: EpollInstance) -> Transaction:
    found = examination(*instances)
    choice = choose(found, verdicts(found), steer=False, force=True)
    return begun("attach", "server", planned(found, choice, Suspension()), pid=42, started_ticks=42)


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
    found = examination(loose=(loose(300),), queues=2)
    changes: tuple[Change, ...] = (
        SteeringChange(pid=42, name="server", started_ticks=42, fd=7, inodes=(7,), address="tcp 10.0.0.1:80"),
        *(
            NapiChange(netns=1, device="eth0", ifindex=3, napi_id=napi, before=ABLE, after=Suspension().napi)
            for napi in (300, 301)
        ),
        SocketChange(
            pid=42, name="server", started_ticks=42, fd=9, inode=900, budget=64,
            before=loose().polling, after=loose().polling,
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
