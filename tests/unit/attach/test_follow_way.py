"""Into which way a follower brings an attachment, and what it tries again. Without a kernel."""

import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from napctl.adapt.preference import LatencyGoal
from napctl.adapt.ways import INTERRUPTS, Way, ways_between
from napctl.attach import follow_way
from napctl.attach.adapting import Turn, WantedWay
from napctl.attach.attach_options import AttachOptions
from napctl.attach.follow_way import FollowWay
from napctl.attach.follow_words import Words
from napctl.attach.parts import Part
from napctl.attach.switch_way import in_force, in_way
from napctl.change.exchange import Exchanged
from napctl.change.journal import Journal
from napctl.model.change import EpollChange, NapiChange, Switch, Transaction
from napctl.model.suspension import Suspension
from napctl.probe import ProbeUnavailable
from tests.unit.attach.steps import attached
from tests.unit.attach.targets import examination, instance

WAYS = ways_between(20_000, 200_000)
GOAL = LatencyGoal(ways=WAYS, budget_ns=150_000, prefer="cpu")
TRANSACTION = attached(examination(instance(5, {300: 1})))


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def way(told: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FollowWay:
    monkeypatch.setattr(follow_way, "AGAIN_SECONDS", 0.0)
    words = Words(lambda line, _kind=None: told.append(line))
    return FollowWay(AttachOptions(Suspension(), goal=GOAL), tmp_path, words)


def test_what_could_not_begin_to_adapt_is_tried_again(way: FollowWay, monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[Exception] = [OSError(24, "Too many open files"), ProbeUnavailable("no BPF here")]

    def adapting(*_arguments: object) -> None:
        raise errors.pop(0)

    monkeypatch.setattr(follow_way, "Adapting", adapting)
    way.begin(TRANSACTION, 0)
    assert way.seconds_left(time.monotonic()) == 0

    assert way.is_another_wanted(), "without probes one timer is kept"
    assert errors == []


def test_what_was_away_at_a_switch_is_tried_again_until_it_is_there(
    way: FollowWay, told: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is told of a way that nobody has yet; each switch is recorded once."""
    wanted = Way(gro_flush_timeout_ns=100_000)
    recorded: list[Switch | None] = []

    def switch(
        _journal: Journal, was: Transaction, to: Suspension, record: Switch | None, _part: Part | None
    ) -> Exchanged:
        recorded.append(record)
        there = len(recorded) > 2
        changes = (
            replace(each, after=to.napi, leaving=None if there else each.before)
            if isinstance(each, NapiChange)
            else each
            for each in was.changes
        )
        return Exchanged(replace(was, changes=tuple(changes)), ())

    monkeypatch.setattr(follow_way, "switch_way", switch)
    monkeypatch.setattr(follow_way, "Adapting", unavailable)
    monkeypatch.setattr(follow_way, "unmeasured", lambda _goal: wanted)
    way.begin(TRANSACTION, 0)
    assert way.suspension == in_way(Suspension(), INTERRUPTS.gro_flush_timeout_ns)

    transaction = TRANSACTION
    with Journal(tmp_path / "state") as journal:
        while way.is_another_wanted():
            transaction = way.switch(journal, transaction)
            way._words.tell_all()
            assert bool(told) == (len(recorded) == 3)
    assert [each is not None for each in recorded] == [True, False, False]
    assert way.suspension == in_way(Suspension(), 100_000)


def unavailable(*_arguments: object) -> None:
    raise ProbeUnavailable("no BPF here")


def in_which(wanted: Suspension) -> Transaction:
    """An attachment that was given that."""
    changes = (
        replace(each, after=wanted.napi) if isinstance(each, NapiChange) else replace(each, after=wanted.epoll)
        for each in TRANSACTION.changes
        if isinstance(each, NapiChange | EpollChange)
    )
    return replace(TRANSACTION, changes=tuple(changes))


TIMER = in_way(Suspension(), 50_000)
OFF = in_way(Suspension(), None).napi


@pytest.mark.parametrize("gro_flush_timeout_ns", [None, 20_000, 200_000])
def test_adapting_goes_on_from_the_way_that_is_in_force(
    gro_flush_timeout_ns: int | None, way: FollowWay, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[object] = []

    def adapting(*arguments: object) -> None:
        begun.append(arguments[-1])

    monkeypatch.setattr(follow_way, "Adapting", adapting)
    wanted = in_way(Suspension(), gro_flush_timeout_ns)
    assert way.adopt(in_which(wanted)) == Way(gro_flush_timeout_ns=gro_flush_timeout_ns)
    assert begun == [Way(gro_flush_timeout_ns=gro_flush_timeout_ns)]
    assert way.suspension == wanted
    assert way.seconds_left(time.monotonic()) == float("inf"), "nothing else is wanted"


@pytest.mark.parametrize(
    ("options", "then"),
    [
        (AttachOptions(Suspension(), timer_ns=50_000), None),
        (AttachOptions(Suspension()), None),
        (AttachOptions(Suspension(), budget_ns=60_000), None),
        (AttachOptions(Suspension(), timer_ns=20_000), "changed to gro-flush-timeout 20us: asked for"),
        (AttachOptions(Suspension(), budget_ns=30_000), "changed to gro-flush-timeout 20us: asked for"),
        (
            AttachOptions(Suspension(irq_suspend_timeout_ns=30_000_000)),
            "changed to gro-flush-timeout 50us: other settings are asked for",
        ),
    ],
)
def test_what_stands_is_left_as_it_is_unless_other_options_ask_for_something_else(
    options: AttachOptions, then: str | None, told: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = Words(lambda line, _kind=None: told.append(line))
    way = FollowWay(options, tmp_path, words)

    def switch(
        _journal: Journal, _was: Transaction, to: Suspension, _record: Switch | None, _part: Part | None
    ) -> Exchanged:
        return Exchanged(in_which(to), ())

    monkeypatch.setattr(follow_way, "switch_way", switch)
    way.adopt(in_which(TIMER))
    assert way.is_another_wanted() == (then is not None)
    if then is not None:
        with Journal(tmp_path / "state") as journal:
            way.switch(journal, in_which(TIMER))
    words.tell_all()
    assert told == ([] if then is None else [then])


def test_one_killed_amid_a_switch_is_brought_to_its_end() -> None:
    first, second = (each for each in in_which(TIMER).changes if isinstance(each, NapiChange | EpollChange))
    assert isinstance(first, NapiChange)
    unsure = replace(first, leaving=Suspension().napi)
    assert in_force(replace(TRANSACTION, changes=(unsure, second)), Suspension()).prefer_busy_poll
    way = FollowWay(AttachOptions(Suspension()), Path("/nowhere"), Words(print))
    assert way.adopt(replace(TRANSACTION, changes=(unsure,))) == Way(gro_flush_timeout_ns=50_000)
    assert way.is_another_wanted()


TWO_QUEUES = attached(examination(instance(5, {300: 1}, pid=10), instance(5, {301: 1}, pid=11)))
HEAVY, LIGHT = (
    Part(frozenset({(each.netns, each.napi_id)}), frozenset())
    for each in TWO_QUEUES.changes
    if isinstance(each, NapiChange)
)


class TwoGroups:
    """As Adapting, of two groups, of which the light one wants interrupts."""

    tries = False

    def __init__(self, *_arguments: object) -> None:
        self.of = {HEAVY: Way(gro_flush_timeout_ns=200_000), LIGHT: Way(gro_flush_timeout_ns=200_000)}
        self.wanted: tuple[WantedWay, ...] = (WantedWay(INTERRUPTS, "its load is light", LIGHT),)
        self.switches: list[tuple[Way, Part | None]] = []

    @property
    def ways(self) -> tuple[Way, ...]:
        return tuple(self.of.values())

    def way_of(self, part: Part | None) -> Way:
        return next(way for of, way in self.of.items() if part is None or of.napis & part.napis)

    def seconds_left(self, _now: float) -> float:
        return 0.0

    def turn(self) -> Turn:
        wanted, self.wanted = self.wanted, ()
        return Turn(wanted, ())

    def switched(self, way: Way, part: Part | None) -> None:
        self.switches.append((way, part))
        self.of = {each: way if part in (None, each) else there for each, there in self.of.items()}

    def follow(self, _transaction: Transaction) -> None:
        self.of = {HEAVY: self.of[HEAVY]}


@pytest.fixture
def two(way: FollowWay, monkeypatch: pytest.MonkeyPatch) -> TwoGroups:
    """Adapting of `way`, both groups with the timer."""

    def switch(
        _journal: Journal, was: Transaction, to: Suspension, record: Switch | None, part: Part | None
    ) -> Exchanged:
        changes = (
            replace(each, after=to.napi) if isinstance(each, NapiChange) and (part is None or part.has(each)) else each
            for each in was.changes
        )
        return Exchanged(replace(was, changes=tuple(changes), switches=(record,) if record else ()), ())

    monkeypatch.setattr(follow_way, "Adapting", TwoGroups)
    monkeypatch.setattr(follow_way, "switch_way", switch)
    way.begin(TWO_QUEUES, 200_000)
    assert isinstance(way._adapting, TwoGroups)
    return way._adapting


def test_one_group_is_switched_alone_and_whoever_is_new_gets_the_way_of_the_heaviest(
    way: FollowWay, two: TwoGroups, told: list[str], tmp_path: Path
) -> None:
    with Journal(tmp_path / "state") as journal:
        assert way.is_another_wanted()
        done = way.switch(journal, TWO_QUEUES)
        assert not way.is_another_wanted()
    way._words.tell_all()
    timers = [each.after.gro_flush_timeout_ns for each in done.changes if isinstance(each, NapiChange)]
    assert timers == [Suspension().gro_flush_timeout_ns, 0]
    assert two.switches == [(INTERRUPTS, LIGHT)]
    assert told == [f"changed to interrupts for {LIGHT}: its load is light"]
    assert way.suspension == in_way(Suspension(), 200_000)
    assert not way.polls, "not all of it"


def test_when_it_has_other_parts_all_get_the_way_of_the_heaviest(
    way: FollowWay, two: TwoGroups, told: list[str], tmp_path: Path
) -> None:
    with Journal(tmp_path / "state") as journal:
        assert way.is_another_wanted()
        done = way.switch(journal, TWO_QUEUES)
        way.follow(done)
        assert way.is_another_wanted()
        done = way.switch(journal, done)
    way._words.tell_all()
    assert {each.after for each in done.changes if isinstance(each, NapiChange)} == {in_way(Suspension(), 200_000).napi}
    assert told[1:] == ["changed to gro-flush-timeout 200us: it has other parts now: one way for all"]
    assert way.polls


TWO_WAYS = replace(
    TWO_QUEUES,
    changes=tuple(
        replace(each, after=in_way(Suspension(), None).napi)
        if LIGHT.has(each) and isinstance(each, NapiChange)
        else each
        for each in TWO_QUEUES.changes
    ),
)


def test_groups_that_were_left_stay_as_they_are(way: FollowWay, monkeypatch: pytest.MonkeyPatch) -> None:
    """What becomes of them is for Adapting to say: nothing is written, until a look has told more."""
    monkeypatch.setattr(TwoGroups, "turn", lambda _self: None)
    monkeypatch.setattr(follow_way, "Adapting", TwoGroups)
    assert way.adopt(TWO_WAYS) == Way(gro_flush_timeout_ns=200_000)
    assert not way.is_another_wanted()


def test_groups_that_were_left_stay_where_adapting_can_only_begin_later(
    way: FollowWay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Transaction] = []

    def adapting(*arguments: object) -> None:
        transaction = arguments[1]
        assert isinstance(transaction, Transaction)
        begun.append(transaction)
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(follow_way, "Adapting", adapting)
    way.adopt(TWO_WAYS)
    assert not way.is_another_wanted()
    assert begun[-1] == TWO_WAYS

    way._wanted = [WantedWay(INTERRUPTS, "asked for")]
    monkeypatch.setattr(follow_way, "switch_way", lambda *_arguments: Exchanged(TWO_QUEUES, ()))
    with Journal(tmp_path / "state") as journal:
        way.switch(journal, TWO_WAYS)
    assert not way.is_another_wanted()
    assert begun[-1] == TWO_QUEUES, "not as it was left"


@pytest.mark.parametrize("goal", [None, GOAL])
def test_without_a_probe_or_a_goal_an_attachment_that_was_left_in_two_ways_gets_one(
    goal: LatencyGoal | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow_way, "Adapting", unavailable)
    way = FollowWay(AttachOptions(Suspension(), goal=goal), tmp_path, Words(lambda _line, _kind=None: None))
    way.adopt(TWO_WAYS)
    assert way.is_another_wanted()
    assert [each.part for each in way._wanted] == [None]


def test_groups_of_which_one_was_cut_off_amid_a_switch_get_one_way(
    way: FollowWay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow_way, "Adapting", TwoGroups)
    unsure = (replace(each, leaving=OFF) if isinstance(each, NapiChange) else each for each in TWO_WAYS.changes)
    way.adopt(replace(TWO_WAYS, changes=tuple(unsure)))
    assert way.is_another_wanted()
    assert [(each.part, bool(each.why)) for each in way._wanted] == [(None, True)]


@pytest.fixture
def away(two: TwoGroups, monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """NAPI instances that are hidden, as their device is down: they may have what was before."""
    hidden: set[int] = set()

    def switch(
        _journal: Journal, was: Transaction, to: Suspension, _record: Switch | None, part: Part | None
    ) -> Exchanged:
        changes = (
            replace(each, after=to.napi, leaving=each.after if each.napi_id in hidden else None)
            if isinstance(each, NapiChange) and (part is None or part.has(each))
            else each
            for each in was.changes
        )
        return Exchanged(replace(was, changes=tuple(changes)), ())

    assert two.wanted
    monkeypatch.setattr(follow_way, "AGAIN_SECONDS", 60.0)
    monkeypatch.setattr(follow_way, "switch_way", switch)
    return hidden


def test_what_was_away_in_one_group_is_tried_again_after_a_switch_of_the_other(
    way: FollowWay, two: TwoGroups, away: set[int], told: list[str], tmp_path: Path
) -> None:
    two.wanted = (WantedWay(Way(gro_flush_timeout_ns=100_000), "its load is heavy", HEAVY), *two.wanted)
    away.add(300)
    with Journal(tmp_path / "state") as journal:
        done = TWO_QUEUES
        for _ in range(2):
            assert way.is_another_wanted()
            done = way.switch(journal, done)
        assert not way.is_another_wanted()
        assert 0 < way._again_at - time.monotonic() <= 60

        away.clear()
        way._again_at = 0.0
        assert way.is_another_wanted()
        done = way.switch(journal, done)
        way._again_at = 0.0
        assert not way.is_another_wanted(), "nothing is left to try"
    way._words.tell_all()
    assert [(each.after.gro_flush_timeout_ns, each.leaving) for each in napis(done)] == [(100_000, None), (0, None)]
    assert sorted(told) == [
        f"changed to gro-flush-timeout 100us for {HEAVY}",
        f"changed to interrupts for {LIGHT}: its load is light",
    ]


def test_what_was_away_when_all_was_switched_is_tried_again_but_for_a_group_that_got_another_way_since(
    way: FollowWay, two: TwoGroups, away: set[int], tmp_path: Path
) -> None:
    away |= {300, 301}
    way._wanted = [WantedWay(Way(gro_flush_timeout_ns=50_000), "asked for")]
    with Journal(tmp_path / "state") as journal:
        done = way.switch(journal, TWO_QUEUES)
        away.clear()
        assert way.is_another_wanted()
        assert [each.part for each in way._wanted] == [LIGHT]
        done = way.switch(journal, done)
        way._again_at = 0.0
        assert way.is_another_wanted()
        done = way.switch(journal, done)
    assert [(each.after.gro_flush_timeout_ns, each.leaving) for each in napis(done)] == [(50_000, None), (0, None)]


def napis(transaction: Transaction) -> list[NapiChange]:
    return [each for each in transaction.changes if isinstance(each, NapiChange)]
