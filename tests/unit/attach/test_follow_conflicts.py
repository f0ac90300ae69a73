"""What counts as left to somebody else, and whose doing a loss is."""

import errno
from collections.abc import Callable
from dataclasses import replace as but
from pathlib import Path

import pytest
from msgspec.structs import replace

from napctl.attach.follow import Stay
from napctl.attach.follow_conflicts import RESETS, Conflicts, foreign_settings
from napctl.attach.follow_devices import PlacedNotice
from napctl.attach.follow_step import Step, cheap_step, next_step
from napctl.attach.follow_words import Words, found_before
from napctl.attach.objections import Objections
from napctl.attach.target import parse
from napctl.kernel.monitor import Notice
from napctl.model.change import EpollChange, Guard, NapiChange
from napctl.model.policy import AttachEntry, Origin
from napctl.model.settings import THREADED
from napctl.service.policy_keys import attach_options_of
from tests.unit.attach.steps import IN_FORCE, WANTED, attached, attachment, present
from tests.unit.attach.targets import NETNS, examination, instance, judged

FOUND = examination(instance(5, {300: 1}))
CHANGES = attached(FOUND).changes
(NAPI,) = (each for each in CHANGES if isinstance(each, NapiChange))
(EPOLL,) = (each for each in CHANGES if isinstance(each, EpollChange))


def conflicts() -> tuple[Conflicts, Objections]:
    objections = Objections()
    return Conflicts(objections, "nginx", Words(lambda *_: None)), objections


def lost(of: Conflicts, times: int = 3) -> bool:
    """Both, so many times, and set again each time; whether they were left in the end."""
    is_left = False
    for _ in range(times):
        is_left = of.leave(Step(lost=[NAPI, EPOLL]))
        of.made([NAPI, EPOLL])
    return is_left


def test_what_somebody_had_set_before_is_named_once_for_all_that_are_alike() -> None:
    had = replace(NAPI.before, defer_hard_irqs=2, gro_flush_timeout_ns=50_000)
    napis = [replace(NAPI, napi_id=number, before=had) for number in (300, 301, 302)]
    epoll = replace(EPOLL, before=replace(EPOLL.before, busy_poll_usecs=7))
    assert [*found_before(attachment((*napis, NAPI, epoll, EPOLL)))] == [
        f"{napis[0].where} and 2 more had defer-hard-irqs 2, gro-flush-timeout 50us, which comes back in the end",
        f"{EPOLL.where} had busy-poll-usecs 7, which comes back in the end",
    ]


@pytest.mark.parametrize("threaded", THREADED)
def test_a_thread_that_somebody_else_gives_to_what_is_attached_is_no_other_hand(threaded: str) -> None:
    """As protection does in a flood: nothing is told, lost, left to it, or set again."""
    transaction, now = attached(FOUND), present(FOUND, replace(IN_FORCE, threaded=threaded))
    set_by_now = judged(examination(instance(5, {300: 1}, EPOLL.after)))
    assert foreign_settings(transaction, now) == {}
    for step in (cheap_step(transaction, now, [EPOLL.pid]), next_step(transaction, set_by_now, WANTED, now)):
        assert (bool(step), step.words, step.lost) == (False, {}, [])


def test_who_insists_is_counted_for_as_long_as_there_is_something_that_is_left_to_him() -> None:
    mine, objections = conflicts()
    assert lost(mine)
    assert (mine.left, mine.count) == ({NAPI.where, EPOLL.where}, 2)
    mine.look(FOUND)
    assert mine.count == 2
    mine.look(but(FOUND, napis={}))
    assert mine.count == 2, "no device feeds it at the moment"
    renumbered = examination(instance(6, {301: 1}))
    mine.look(but(renumbered, napis={301: FOUND.napis[300]}))
    assert (mine.count, objections.left) == (0, frozenset())


def test_of_a_target_that_does_not_run_nothing_of_its_processes_is_left() -> None:
    mine, _ = conflicts()
    lost(mine)
    mine.look(None)
    assert mine.left == {NAPI.where}


@pytest.mark.parametrize("what", [*RESETS, "lost"])
def test_what_was_lost_by_a_reset_or_amid_notices_that_were_is_nobodys_doing(what: str) -> None:
    mine, _ = conflicts()
    ifindex = 0 if what == "lost" else NAPI.ifindex
    for _ in range(5):
        mine.heed([(NETNS, Notice(what=what, ifindex=ifindex))])  # type: ignore[arg-type] # each of them is one
        lost(mine, 1)
    assert NAPI.where not in mine.left


def test_a_reset_in_another_network_namespace_excuses_nobody() -> None:
    mine, _ = conflicts()
    for _ in range(3):
        mine.heed([(NETNS + 1, Notice(what="link up", ifindex=NAPI.ifindex))])
        lost(mine, 1)
    assert NAPI.where in mine.left


def test_what_was_lost_while_the_machine_slept_is_nobodys_doing() -> None:
    mine, _ = conflicts()
    for _ in range(5):
        mine.heed_nobody_knows_what()
        lost(mine, 1)
    assert NAPI.where not in mine.left


def reset_of_the_device() -> tuple[PlacedNotice, ...]:
    return ((NETNS, Notice(what="link up", ifindex=NAPI.ifindex)),)


def unreadable() -> tuple[PlacedNotice, ...]:
    raise OSError(errno.ENOBUFS, "No buffer space available")


@pytest.mark.parametrize("notices", [reset_of_the_device, unreadable, None])
def test_a_follower_hears_what_has_happened_before_it_counts_what_was_lost(
    notices: Callable[[], tuple[PlacedNotice, ...]] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None: nothing was told, as the machine slept."""
    options = attach_options_of(AttachEntry(origin=Origin(file="", line=1), target="nginx"))
    guard = Guard(pid=0, started_ticks=0, deadline_boot_ns=0)
    stay = Stay(parse("nginx"), options, guard, tmp_path, lambda *_: None)
    if notices is not None:
        monkeypatch.setattr(stay._settings._devices, "notices", notices)
    for _ in range(5):
        if notices is None:
            stay.look_anew()
        assert not stay._is_left(Step(lost=[NAPI]))
        stay._conflicts.made([NAPI])
    assert stay.conflicts == 0
