"""When somebody else's wish is left to him."""

from napctl.attach.objections import RESET_SECONDS, WITHIN_SECONDS, LostSettings, Objections
from napctl.model.change import EpollChange, NapiChange
from tests.unit.attach.steps import attached
from tests.unit.attach.targets import examination, instance


def test_who_puts_it_back_three_times_in_ten_minutes_is_left_alone() -> None:
    objections = Objections()
    assert not objections.heard("eth0 rx-usecs", 0)
    assert not objections.heard("eth0 rx-usecs", 300)
    assert not objections.heard("eth1 rx-usecs", 301)
    assert objections.heard("eth0 rx-usecs", 599)
    assert objections.heard("eth0 rx-usecs", 9_999), "for good"
    assert objections.left == {"eth0 rx-usecs"}
    objections.forget()
    assert objections.left == frozenset()
    assert not objections.heard("eth0 rx-usecs", 10_000)


def test_thrice_in_longer_than_ten_minutes_is_not_insisting() -> None:
    objections = Objections()
    assert not any(objections.heard("x", number * WITHIN_SECONDS / 2) for number in range(20))
    assert any(objections.heard("x", 1e6 + number * WITHIN_SECONDS / 3) for number in range(3))


def test_what_was_left_before_stays_left() -> None:
    objections = Objections()
    objections.leave(frozenset({"x"}))
    assert objections.heard("x", 0)


CHANGES = attached(examination(instance(5, {300: 1}))).changes
(NAPI,) = (each for each in CHANGES if isinstance(each, NapiChange))
(EPOLL,) = (each for each in CHANGES if isinstance(each, EpollChange))


def test_what_is_lost_thrice_is_left_and_each_time_is_heard_once() -> None:
    objections = Objections()
    losses = LostSettings(objections, "nginx")
    for now in (0.0, 10.0):
        assert losses.hear([NAPI, EPOLL], now) == []
        assert losses.hear([NAPI], now + 1) == [], "it has not been made again since"
        losses.made([NAPI])
    assert losses.hear([NAPI, EPOLL], 20.0) == [NAPI]
    assert losses.left == {NAPI.where}
    assert LostSettings(objections, "memcached").left == set()


def test_what_a_reset_took_is_nobodys_objection() -> None:
    losses = LostSettings(Objections(), "nginx")
    for now in range(0, 100, 10):
        losses.reset((NAPI.netns, NAPI.ifindex), float(now))
        assert losses.hear([NAPI], now + RESET_SECONDS - 1) == []
        losses.made([NAPI])
    assert losses.left == set()
    for _ in range(2):
        assert losses.hear([EPOLL], 95.0) == []
        losses.made([EPOLL])
    assert losses.hear([EPOLL], 96.0) == [EPOLL], "no reset of a device takes that"


def test_a_reset_elsewhere_excuses_nobody_and_one_of_everything_all() -> None:
    losses = LostSettings(Objections(), "nginx")
    for now in (0.0, 10.0, 20.0):
        losses.reset_all(now)
        assert losses.hear([NAPI], now + 1) == []
        losses.made([NAPI])
    for now in (30.0, 40.0):
        losses.reset((NAPI.netns + 1, NAPI.ifindex), now)
        assert losses.hear([NAPI], now) == []
        losses.made([NAPI])
    losses.reset((NAPI.netns + 1, NAPI.ifindex), 50.0)
    assert losses.hear([NAPI], 50.0) == [NAPI], "an interface index counts within its network namespace"


def test_what_has_gone_is_forgotten_and_what_another_target_has_is_not() -> None:
    objections = Objections()
    losses, others = LostSettings(objections, "nginx"), LostSettings(objections, "memcached")
    for first in (0.0, 1.0, 2.0):
        for each in (losses, others):
            each.hear([NAPI, EPOLL], first)
            each.made([NAPI, EPOLL])
    assert losses.left == others.left == {NAPI.where, EPOLL.where}
    losses.forget_if(NAPI.where.__eq__)
    assert losses.left == {EPOLL.where}
    assert others.left == {NAPI.where, EPOLL.where}
    for now in (10.0, 11.0):
        assert losses.hear([NAPI], now) == [], "another one with that id begins anew"
        losses.forget_if(NAPI.where.__eq__)  # what has gone was not made again
    for now in (20.0, 21.0, 22.0):
        assert losses.hear([NAPI], now) == ([NAPI] if now == 22.0 else [])
        losses.made([NAPI])


def test_what_nobody_insists_on_is_forgotten_with_the_time() -> None:
    objections = Objections()
    for number in range(1000):
        objections.heard(f"NAPI {number}", number * WITHIN_SECONDS)
    assert len(objections._at) == 1
