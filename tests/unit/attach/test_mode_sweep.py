"""A sweep over the modes: what is refused does not fit, and what could not be put back is never passed over."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest

from napctl.attach import mode_sweep as module
from napctl.attach.attach_options import AttachOptions, in_mode
from napctl.attach.judge_target import NONE, JudgedTarget, judge
from napctl.attach.mode_sweep import ROUNDS_TO_CHOOSE, mode_sweep, offered
from napctl.model.errors import BadInput, ChangedMeanwhile, NapctlError, NotPermitted, RolledBack, Unsupported
from napctl.model.next_best import NextBest, PriceWindow
from napctl.model.suspension import Suspension
from tests.unit.attach.targets import examination, judged, ring, waits
from tests.unit.attach.test_next_best import GO

AUTO = in_mode(AttachOptions(suspension=Suspension()), "auto")


class Windows:
    def __init__(self, _target: JudgedTarget) -> None: ...

    def packets(self, _keys: object) -> int:
        self.seen = getattr(self, "seen", 0) + 1_000_000
        return self.seen

    def one(self) -> Generator[float, None, PriceWindow]:
        yield 0.0
        return PriceWindow(seconds=1, cpu_seconds=0.1, packets=1000, polls=None, wait_p50_us=None)


def after(monkeypatch: pytest.MonkeyPatch, errors: dict[str, NapctlError], *, leaving: bool = False) -> NextBest:
    """What a sweep finds if trials of these modes fail, as they begin or as they end."""

    @contextmanager
    def on_trial(_locked: object, trial: JudgedTarget, *_: object) -> Iterator[None]:
        error = errors.get(trial.choice.mode)
        if error is not None and not leaving:
            raise error
        yield
        if error is not None:
            raise error

    monkeypatch.setattr(module, "CostProbe", lambda target: nullcontext(Windows(target)))
    monkeypatch.setattr(module, "_Windows", lambda target: nullcontext(Windows(target)))
    monkeypatch.setattr(module, "on_trial", on_trial)
    locked: Any = None
    steps = mode_sweep(locked, judged(GO), AUTO, rounds=ROUNDS_TO_CHOOSE, progress=lambda _: None)
    try:
        while True:
            next(steps)
    except StopIteration as over:
        found: NextBest = over.value
        return found


def rolled_back(because: NapctlError | None) -> RolledBack:
    error = RolledBack("what had been changed was put back")
    error.because = because
    return error


@pytest.mark.parametrize(
    "error",
    [
        Unsupported("no"), BadInput("held"), NotPermitted("CAP_SYS_NICE"),
        rolled_back(NotPermitted("CAP_SYS_NICE")), rolled_back(Unsupported("no")),
    ],
)  # fmt: skip
def test_a_mode_that_is_refused_does_not_fit_and_the_others_are_tried(
    error: NapctlError, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = after(monkeypatch, {"thread": error})
    by_name = {each.name: each for each in found.offers}
    assert (by_name["thread"].fits, by_name["thread"].why) == (False, str(error))
    assert by_name["defer"].price is not None


def test_where_all_are_refused_that_is_why_none_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    found = after(monkeypatch, dict.fromkeys(("thread", "defer", "poll"), Unsupported("no")))
    assert (found.best, found.why) == (None, "none of them can be had")


@pytest.mark.parametrize("error", [rolled_back(None), rolled_back(NapctlError("interrupted")), ChangedMeanwhile("")])
def test_what_is_no_refusal_ends_the_sweep(error: NapctlError, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(type(error)):
        after(monkeypatch, {"defer": error})


@pytest.mark.parametrize("leaving", [False, True])
def test_a_trial_of_which_something_is_left_ends_the_sweep(leaving: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    error = Unsupported("the driver refuses; still to be restored: `napctl recover`")
    error.leaves_changed = True
    with pytest.raises(Unsupported, match="still to be restored"):
        after(monkeypatch, {"defer": error}, leaving=leaving)


def test_a_ring_that_came_to_no_good_is_not_offered_again() -> None:
    found = examination(rings=[ring(300, threads=(waits(call="io_uring", fd=20),))])
    harmed = {found.rings[0].key: "it starved"}

    def fits(refused: Any) -> bool:
        target = judge(found, AUTO, refused=refused)
        (poll,) = (each for each in offered(target, AUTO, refused).offers if each.mode == "poll")
        return poll.fits

    assert (fits(NONE), fits(harmed)) == (True, False)
