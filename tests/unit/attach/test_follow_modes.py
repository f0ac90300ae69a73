"""Following in the modes of NAPI instances: nothing of the target polls, and what the devices lose is mended."""

from collections.abc import Mapping
from dataclasses import replace as but
from pathlib import Path

import pytest
from msgspec.structs import replace

from napctl.attach.attach_options import AttachOptions, in_mode
from napctl.attach.attachment import planned
from napctl.attach.follow import Stay
from napctl.attach.follow_memory import Known
from napctl.attach.follow_mode import FollowedMode
from napctl.attach.follow_step import Present, Step, cheap_step, next_step
from napctl.attach.follow_thread import state_of_thread
from napctl.attach.follow_way import FollowWay
from napctl.attach.follow_words import Words
from napctl.attach.inspect_target import Examination
from napctl.attach.judge_target import JudgedTarget
from napctl.attach.switch_way import in_way
from napctl.attach.target import parse
from napctl.model.change import Guard, NapiChange, ThreadChange, Transaction
from napctl.model.modes import Mode
from napctl.model.next_best import NextBest, Offer
from napctl.model.settings import NapiSettings, ThreadSettings
from napctl.model.suspension import Suspension
from tests.unit.attach.steps import DEVICE, attachment, of
from tests.unit.attach.targets import ABLE, NETNS, examination, instance
from tests.unit.attach.test_next_best import GO, SOFTIRQ, in_mode_of_instances, with_threads

DEFERRAL = in_way(in_mode(AttachOptions(suspension=Suspension()), "defer").suspension, 200_000)
DEFERS = replace(DEFERRAL.napi, threaded="disabled")
THREADED = replace(ABLE, threaded="enabled")
OURS = ThreadSettings(threaded="enabled", nice=0, cpus="2")


def attached(mode: Mode, found: Examination = GO) -> Transaction:
    return attachment(planned(in_mode_of_instances(found, mode), DEFERRAL))


def there(settings: NapiSettings, *napi_ids: int) -> Present:
    napis: Mapping[tuple[int, int], NapiSettings] = {(NETNS, each): settings for each in napi_ids}
    return Present(napis, {DEVICE: napi_ids} if napi_ids else {})


def step_of(transaction: Transaction, now: JudgedTarget, present: Present) -> Step:
    return next_step(transaction, now, DEFERRAL, present)


def test_a_target_that_suspension_does_not_fit_keeps_its_deferral() -> None:
    transaction = attached("defer")
    assert not step_of(transaction, in_mode_of_instances(GO, "defer"), there(DEFERS, 300, 301, 302, 303))
    now = in_mode_of_instances(GO, "defer")
    emptied = but(now, choice=now.choice.without([300, 301]))
    assert not step_of(transaction, emptied, there(DEFERS, 300, 301, 302, 303))
    idle = with_threads(examination(instance(5), nics=[GO.napis[300].device]))
    assert not step_of(transaction, in_mode_of_instances(idle, "defer"), there(DEFERS, 300, 301, 302, 303))


@pytest.mark.parametrize(("mode", "settings"), [("defer", DEFERS), ("thread", THREADED)])
def test_an_instance_that_comes_to_feed_it_is_attached_too(mode: Mode, settings: NapiSettings) -> None:
    more = with_threads(examination(instance(5, {300: 3, 301: 2, 302: 1}), queues=4), OURS)
    step = step_of(attached(mode), in_mode_of_instances(more, mode), there(settings, 300, 301, 302, 303))
    assert [each.napi_id for each in step.more if isinstance(each, NapiChange | ThreadChange)] == [302]
    assert (step.without, step.forget) == ([], [])


def test_a_thread_that_a_reset_took_is_forgotten_and_the_next_look_gives_one_to_its_successor() -> None:
    transaction = attached("thread")
    step = cheap_step(transaction, there(ABLE, 310, 311), {42})
    assert of(step, ThreadChange) == {"forget": ["NAPI thread 300 of eth0", "NAPI thread 301 of eth0"]}
    left = replace(transaction, changes=())
    anew = with_threads(examination(instance(5, {310: 3, 311: 2})))
    step = step_of(left, in_mode_of_instances(anew, "thread"), there(ABLE, 310, 311))
    assert [each.before for each in step.more if isinstance(each, ThreadChange)] == [SOFTIRQ, SOFTIRQ]


def test_a_thread_that_somebody_switches_off_is_made_again_and_at_last_left_to_him() -> None:
    transaction = attached("thread")
    step = cheap_step(transaction, there(ABLE, 300, 301), {42})
    assert step.lost == step.forget == step.more == list(transaction.changes)
    step = cheap_step(transaction, there(ABLE, 300, 301), {42}, left=[each.where for each in transaction.changes])
    assert (len(step.forget), step.more) == (2, [])


def test_a_thread_that_was_begun_anew_gets_its_cpu_again_with_its_former_state_from_the_first_time() -> None:
    transaction = attached("thread")
    anew = with_threads(but(GO), replace(SOFTIRQ, threaded="enabled"))
    step = step_of(transaction, in_mode_of_instances(anew, "thread"), there(THREADED, 300, 301))
    assert step.more == step.forget == list(transaction.changes)


CHANGE = next(each for each in attached("thread").changes if isinstance(each, ThreadChange))


@pytest.mark.parametrize(
    ("there", "thread", "down", "state"),
    [
        (None, None, False, "gone"),
        (None, None, True, "stays"),
        (THREADED, None, False, "stays"),
        (THREADED, OURS, False, "stays"),
        (ABLE, None, False, "lost"),
        (ABLE, SOFTIRQ, False, "lost"),
        (THREADED, replace(OURS, cpus="0-3"), False, "lost"),
        (THREADED, replace(OURS, nice=7), False, "stays"),
        (replace(ABLE, threaded="busy-poll"), None, False, "stays"),
    ],
)
def test_what_has_become_of_a_thread(
    there: NapiSettings | None,
    thread: ThreadSettings | None,
    down: bool,
    state: str,
) -> None:
    assert state_of_thread(CHANGE, there, thread, down=down) == state


# A mode that is left to napctl.


def followed(told: list[str], directory: Path) -> FollowedMode:
    asked = in_mode(AttachOptions(suspension=Suspension()), "auto")
    words = Words(lambda line, _kind=None: told.append(line))
    mode = FollowedMode(asked, Known(asked), FollowWay(asked, directory, words), words)
    mode.take_best(None)
    assert (mode.options, mode.is_open) == (asked, True)
    return mode


def test_the_best_mode_is_taken_with_the_timer_it_was_tried_with_until_the_attachment_ends(tmp_path: Path) -> None:
    told: list[str] = []
    mode = followed(told, tmp_path)
    asked, best = mode.options, Offer(mode="defer", fits=True, why="")
    mode.take_best(NextBest(offers=(best,), gro_flush_timeout_ns=50_000, best=best, why="the figures"))
    assert (mode.options.mode, mode.options.timer_ns, mode.is_open) == ("defer", 50_000, False)
    assert mode.options.suspension.irq_suspend_timeout_ns == 0
    mode.end()
    assert mode.options == asked


def test_a_mode_that_was_chosen_and_does_not_fit_any_more_leaves_room_for_another(tmp_path: Path) -> None:
    told: list[str] = []
    asked = in_mode(AttachOptions(suspension=Suspension()), "auto")
    guard = Guard(pid=0, started_ticks=0, deadline_boot_ns=0)
    stay = Stay(parse("pid:1"), asked, guard, tmp_path, lambda line, _kind=None: told.append(line))
    best = Offer(mode="thread", fits=True, why="")
    stay._mode.take_best(NextBest(offers=(best,), gro_flush_timeout_ns=50_000, best=best, why="the figures"))
    assert not stay._mode.is_open
    now = in_mode_of_instances(GO, "thread")
    unfit = but(now, choice=but(now.choice, napis=(), threads=(), why_empty="NAPI 300 is leased"))
    stay._attach(unfit)
    stay._words.tell_all()
    assert any("waiting" in line and "NAPI 300 is leased" in line for line in told)
    assert (stay._mode.options, stay._mode.is_open) == (asked, True)


def test_without_a_better_one_it_waits_and_says_why_and_what_was_taken_over_goes_on(tmp_path: Path) -> None:
    told: list[str] = []
    mode = followed(told, tmp_path)
    mode.take_best(NextBest(offers=(), gro_flush_timeout_ns=50_000, unmeasured="too little traffic"))
    assert mode.is_open
    mode.adopt(attachment(planned(in_mode_of_instances(GO, "thread", spins=True), DEFERRAL)))
    assert (mode.options.mode, mode.options.spin) == ("thread", True)
