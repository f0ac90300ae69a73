"""Which parts of an attachment can be decided upon for themselves."""

from hypothesis import given
from hypothesis import strategies as st

from napctl.attach.parts import FORGET_LOOKS, Feeds, Part, parts_of, whole
from napctl.model.change import EpollChange, Holder, NapiChange, Transaction
from napctl.model.settings import EpollParams, NapiSettings

NETNS = 7
OFF, ON = (EpollParams(busy_poll_usecs=0, busy_poll_budget=8, prefer_busy_poll=each) for each in (False, True))


def attached(workers: dict[int, tuple[int, ...]], napis: set[int]) -> Transaction:
    """Processes, with those that hold the same epoll instance, and NAPI instances."""
    epolls = (
        EpollChange(
            pid=pid, name="w", started_ticks=1, epoll_fd=5, before=OFF, after=ON,
            also=tuple(Holder(pid=other, started_ticks=1, fd=5) for other in also),
        )
        for pid, also in workers.items()
    )  # fmt: skip
    found = (
        NapiChange(
            netns=NETNS,
            device="d",
            ifindex=2,
            napi_id=each,
            before=NapiSettings(),
            after=NapiSettings(defer_hard_irqs=1),
        )
        for each in sorted(napis)
    )
    return Transaction(boot_id="b", made_unix_ns=1, name="w", pid=1, changes=(*found, *epolls))


def part(napis: set[int], servers: set[int]) -> Part:
    return Part(frozenset((NETNS, each) for each in napis), frozenset(servers))


def feeds(**of: set[int]) -> dict[int, frozenset[int]]:
    return {int(pid.removeprefix("p")): frozenset(ids) for pid, ids in of.items()}


def test_a_worker_for_each_queue_is_a_part_for_each() -> None:
    transaction = attached({10: (), 11: ()}, {300, 301})
    assert parts_of(transaction, feeds(p10={300}, p11={301})) == (part({300}, {10}), part({301}, {11}))


def test_a_process_that_two_queues_feed_joins_them() -> None:
    transaction = attached({10: (), 11: (), 12: ()}, {300, 301, 302})
    found = parts_of(transaction, feeds(p10={300, 301}, p11={302}, p12={302}))
    assert found == (part({300, 301}, {10}), part({302}, {11, 12}))


def test_who_holds_the_same_epoll_instance_is_of_one_part() -> None:
    transaction = attached({10: (11,), 11: ()}, {300, 301})
    assert parts_of(transaction, feeds(p10={300}, p11={301})) == (whole(transaction),)


def test_where_it_is_not_known_who_feeds_whom_all_is_one() -> None:
    transaction = attached({10: (), 11: ()}, {300, 301})
    for unknown in (feeds(p10={300}), feeds(p10={300}, p11={999}), feeds(p10={300}, p11={300}), {}):
        assert parts_of(transaction, unknown) == (whole(transaction),)


@given(st.dictionaries(st.integers(10, 20), st.frozensets(st.integers(300, 306), min_size=1), min_size=1))
def test_parts_have_nothing_in_common_and_are_all_together(known: dict[int, frozenset[int]]) -> None:
    transaction = attached(dict.fromkeys(known, ()), set().union(*known.values()))
    parts = parts_of(transaction, known)
    assert sorted(key for each in parts for key in each.napis) == sorted(whole(transaction).napis)
    assert sorted(pid for each in parts for pid in each.servers) == sorted(known)
    for pid, ids in known.items():
        (mine,) = (each for each in parts if pid in each.servers)
        assert {(NETNS, each) for each in ids} <= mine.napis
    assert all(sum(each.has(change) for each in parts) == 1 for change in transaction.changes)


def test_a_part_is_named_by_its_napi_instances_some_of_them_if_they_are_many() -> None:
    assert str(part({301, 300}, {10})) == "NAPI 300, 301"
    assert str(part(set(range(300, 305)), {10})) == "NAPI 300, 301, 302, 303, 304"
    assert str(part(set(range(300, 364)), {10})) == "NAPI 300, 301, 302, 303 and 60 more"


@given(st.sets(st.integers(300, 306)), st.sets(st.integers(300, 306)))
def test_what_is_left_of_a_part_without_another_has_nothing_of_that(napis: set[int], others: set[int]) -> None:
    one, other = part(napis, {each - 290 for each in napis}), part(others, {each - 290 for each in others})
    left = one.without(other)
    assert left == part(napis - others, {each - 290 for each in napis - others})


def test_a_feed_that_a_sample_of_the_sockets_misses_is_forgotten_after_several_looks() -> None:
    known, all_of_it = Feeds(), part({300, 301}, {10, 11})
    known.told(feeds(p10={300, 301}, p11={301}), all_of_it)
    for _ in range(FORGET_LOOKS - 1):
        known.told(feeds(p10={300}), all_of_it)
    assert known.by_process == feeds(p10={300, 301}, p11={301})
    known.told(feeds(p10={301}), all_of_it)
    for _ in range(FORGET_LOOKS - 1):
        known.told(feeds(p10={300}), all_of_it)
        assert known.by_process[10] == {300, 301}
    known.told(feeds(p10={300}), all_of_it)
    assert known.by_process == feeds(p10={300}, p11={301}), "of the other no look has told anything"


def test_a_feed_is_forgotten_at_once_where_its_napi_instance_or_its_process_is_attached_no_more() -> None:
    known = Feeds()
    known.told(feeds(p10={300}, p11={301}), part({300, 301}, {10, 11}))
    known.told(feeds(p10={400}), part({400, 301}, {10}))
    assert known.by_process == feeds(p10={400})


@given(st.lists(st.dictionaries(st.integers(10, 12), st.frozensets(st.integers(300, 303), min_size=1)), max_size=12))
def test_what_the_last_look_has_seen_is_always_known(looks: list[dict[int, frozenset[int]]]) -> None:
    known, all_of_it = Feeds(), part({300, 301, 302, 303}, {10, 11, 12})
    for seen in looks:
        known.told(seen, all_of_it)
        assert all(ids <= known.by_process[pid] for pid, ids in seen.items())
    ever = {pid: frozenset[int]().union(*(seen.get(pid, frozenset()) for seen in looks)) for pid in known.by_process}
    assert all(ids <= ever[pid] for pid, ids in known.by_process.items())
