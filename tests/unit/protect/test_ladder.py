"""The ladder in made-up worlds: when it climbs, when it comes down, and that it never does more than it promises."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from napctl.protect.ladder import (
    AGAIN_SECONDS,
    APART_SECONDS,
    CALM_SECONDS,
    CALM_SHARE,
    KINDS,
    SETTLE_SECONDS,
    STARVED_SECONDS,
    WINDOW_SECONDS,
    Flood,
    Ladder,
    Move,
    StepKind,
    next_move,
    not_made,
)

WORDS = "CPU 1 overloaded: packets take 97 %, threads waited 85 % of the time"
FLOOD = Flood(offered_per_second=400_000, overload=WORDS)
HELD = Flood(offered_per_second=400_000, dropped_per_second=300_000)
"""The same with a thread that is nice: the ring drops."""
REST = Flood(offered_per_second=40_000)
WHY = "stress (77) never waits and had 98 % of CPU 1, the packets' thread 1 %"
STARVED = replace(HELD, starved=WHY)
Look = tuple[Flood, int]
"""What is seen, at so many looks."""


@dataclass
class World:
    """Looks at something, and keeps what is done."""

    steps: Sequence[StepKind] = ("threads", "nice")
    ladder: Ladder = field(default_factory=Ladder)
    now: float = 1000.0
    done: list[tuple[float, Move]] = field(default_factory=list)

    def see(self, seen: Flood, seconds: float) -> list[Move]:
        """For that long; what was done meanwhile."""
        already, end = len(self.done), self.now + seconds
        while self.now < end:
            self.now += WINDOW_SECONDS
            self.ladder, move = next_move(self.ladder, seen, self.now, self.steps)
            if move is not None:
                self.done.append((self.now, move))
        return [move for _, move in self.done[already:]]


def test_the_first_look_that_shows_overload_makes_the_first_step_and_the_next_follows_when_that_has_settled() -> None:
    world = World()
    first, second = world.see(FLOOD, 3)
    (at, _), (later, _) = world.done
    assert (first.steps, second.steps, first.up, second.up) == (("threads",), ("nice",), True, True)
    assert at == 1000 + WINDOW_SECONDS
    assert later - at == SETTLE_SECONDS
    assert first.why == f"{WORDS}; 400,000 packets/s offered"


def test_where_the_first_step_helps_the_second_is_not_made() -> None:
    world = World()
    world.see(FLOOD, WINDOW_SECONDS)
    assert world.see(Flood(offered_per_second=400_000), 60) == []
    assert world.ladder.made == ("threads",)


def test_a_thread_that_is_not_nice_and_works_for_nothing_still_becomes_nice() -> None:
    """Not overloaded any more: it has half of the CPU."""
    world = World()
    world.see(FLOOD, WINDOW_SECONDS)
    (move,) = world.see(Flood(offered_per_second=400_000, late_per_second=50_000), 5)
    assert move.steps == ("nice",)
    assert move.why == "50,000/s are dropped after the stack worked on them still; 400,000 packets/s offered"


def test_all_is_taken_back_ten_seconds_after_the_flood_with_its_reason() -> None:
    world = World()
    world.see(FLOOD, 1)
    world.see(HELD, 30)
    began = world.now
    (back,) = world.see(REST, CALM_SECONDS + 1)
    assert (back.steps, back.up) == (("nice", "threads"), False)
    assert CALM_SECONDS <= world.done[-1][0] - began <= CALM_SECONDS + WINDOW_SECONDS
    assert back.why == "40,000 packets/s offered, for 10s under 70 % of the 400,000 that caused it"
    assert world.ladder.made == ()


def test_what_the_ring_drops_counts_as_offered_so_a_flood_that_is_held_back_is_not_over() -> None:
    world = World()
    world.see(FLOOD, 1)
    assert world.see(HELD, 600) == []


def test_a_ring_of_which_nobody_counts_the_drops_is_not_calm_before_it_is_emptied() -> None:
    world = World()
    world.see(FLOOD, 1)
    assert world.see(replace(REST, is_whole=False), 60) == []
    assert len(world.see(REST, 11)) == 1


def test_a_first_look_that_saw_a_part_of_the_flood_does_not_keep_it_up_when_the_load_is_as_before() -> None:
    world = World()
    world.see(replace(FLOOD, offered_per_second=20_000), WINDOW_SECONDS)
    world.see(FLOOD, 2)
    assert world.ladder.cause_per_second == 400_000
    world.see(replace(FLOOD, offered_per_second=900_000), 60)
    assert world.ladder.cause_per_second == 400_000
    assert len(world.see(REST, 11)) == 1


def test_a_load_that_is_often_over_what_it_caused_does_not_flap() -> None:
    """The threshold is one that the normal load exceeds: it climbs once, and stays there."""
    world = World()
    for _ in range(60):
        world.see(FLOOD, 1)
        world.see(REST, 1)
    assert [(move.steps, move.up) for _, move in world.done] == [(("threads",), True), (("nice",), True)]


def test_a_flood_that_comes_again_at_once_waits_for_its_ten_seconds() -> None:
    world = World()
    world.see(FLOOD, 1)
    world.see(REST, CALM_SECONDS + 1)
    back_at = world.done[-1][0]
    world.see(FLOOD, 15)
    assert world.done[-2][1].steps == ("threads",)
    assert world.done[-2][0] - back_at == APART_SECONDS


def test_storm_control_comes_last_where_it_is_allowed_and_the_ring_still_drops() -> None:
    allowed = World(KINDS)
    allowed.see(FLOOD, 1)
    (move,) = allowed.see(HELD, 5)
    assert move.steps == ("storm control",)
    assert move.why == "the ring drops 75 % of the packets; 400,000 packets/s offered"

    forbidden = World()
    forbidden.see(FLOOD, 1)
    assert forbidden.see(HELD, 5) == []


def test_a_device_with_threads_begins_with_their_nice_value() -> None:
    world = World(("nice",))
    (move,) = world.see(FLOOD, 5)
    assert move.steps == ("nice",)


def test_of_a_cause_that_is_not_known_it_is_over_when_next_to_nothing_is_dropped() -> None:
    world = World(ladder=Ladder(made=("threads", "nice")))
    assert world.see(HELD, 60) == []
    assert world.see(replace(REST, is_whole=False), 60) == []
    (back,) = world.see(REST, CALM_SECONDS + 1)
    assert back.why == "40,000 packets/s offered, next to none dropped for 10s"


def test_a_refused_step_is_tried_again_after_ten_seconds_and_not_before() -> None:
    before = Ladder()
    climbed, move = next_move(before, FLOOD, 5.0, ("threads",))
    assert move is not None
    left = not_made(before, climbed)
    assert left.made == ()
    assert next_move(left, FLOOD, 14.9, ("threads",))[1] is None
    assert next_move(left, FLOOD, 15.0, ("threads",))[1] is not None


def test_what_starves_its_threads_is_taken_back_within_two_seconds_and_not_made_again_for_ten_minutes() -> None:
    world = World()
    world.see(FLOOD, 1)
    nice_at = world.done[-1][0]
    back, *more = world.see(replace(FLOOD, starved=WHY), AGAIN_SECONDS - 2)
    assert (back.steps, back.up, back.starves, back.why) == (("nice",), False, True, WHY)
    assert STARVED_SECONDS <= world.done[2][0] - nice_at <= STARVED_SECONDS + WINDOW_SECONDS
    assert more == []
    assert world.ladder.made == ("threads",)
    assert [each.steps for each in world.see(FLOOD, 5)] == [("nice",)]


def test_a_step_that_would_starve_is_passed_over_and_the_next_one_made_where_it_is_allowed() -> None:
    world = World(KINDS)
    _, passed, last = world.see(replace(FLOOD, starved=WHY), 3)
    assert (passed.steps, passed.up, passed.starves, passed.why) == (("nice",), True, True, WHY)
    assert (last.steps, last.starves) == (("storm control",), False)
    assert world.ladder.made == ("threads", "storm control")
    (nice,) = world.see(FLOOD, APART_SECONDS)
    assert (nice.steps, nice.starves) == (("nice",), False)
    (back,) = world.see(REST, CALM_SECONDS + 2)
    assert back.steps == ("nice", "storm control", "threads")


def test_what_cannot_be_taken_back_is_tried_again_a_second_later() -> None:
    before = Ladder(made=("threads", "nice"), cause_per_second=400_000)
    left, move = next_move(before, STARVED, 50.0, ("threads", "nice"))
    assert move is not None
    kept = not_made(before, left)
    assert kept.made == before.made
    assert next_move(kept, STARVED, 50.9, ("threads", "nice"))[1] is None
    assert next_move(kept, STARVED, 51.0, ("threads", "nice"))[1] == move


floods = st.builds(
    Flood,
    offered_per_second=st.floats(0, 1e7),
    dropped_per_second=st.floats(0, 1e7),
    is_whole=st.booleans(),
    late_per_second=st.floats(0, 1e6),
    overload=st.sampled_from(["", "", WORDS]),
)
looks = st.lists(st.tuples(floods, st.integers(1, 120)), min_size=1, max_size=40)
starvable = st.builds(replace, floods, starved=st.sampled_from(["", WHY]))
hungry_looks = st.lists(st.tuples(starvable, st.integers(1, 120)), min_size=1, max_size=40)
possible = st.sampled_from([("threads", "nice"), ("nice",), KINDS, ("nice", "storm control"), ()])


def lived(seen: Sequence[Look], steps: Sequence[StepKind]) -> World:
    world = World(steps)
    for flood, count in seen:
        world.see(flood, count * WINDOW_SECONDS)
    return world


@given(looks, possible)
def test_two_changes_of_one_kind_are_ten_seconds_apart_whatever_is_seen(
    seen: Sequence[Look], steps: Sequence[StepKind]
) -> None:
    world = lived(seen, steps)
    for kind in KINDS:
        times = [at for at, move in world.done if kind in move.steps]
        assert all(later - at >= APART_SECONDS for at, later in pairwise(times))


@given(hungry_looks, possible)
def test_only_what_starves_is_taken_back_sooner_and_then_left_for_ten_minutes(
    seen: Sequence[Look], steps: Sequence[StepKind]
) -> None:
    changes = [(at, move) for at, move in lived(seen, steps).done if not (move.up and move.starves)]
    for kind in KINDS:
        those = [(at, move) for at, move in changes if kind in move.steps]
        for (at, move), (later, after) in pairwise(those):
            assert move.up != after.up
            assert later - at >= (AGAIN_SECONDS if move.starves else 0 if after.starves else APART_SECONDS)
            assert kind == "nice" or not after.starves


@given(looks, possible)
def test_without_overload_nothing_is_changed(seen: Sequence[Look], steps: Sequence[StepKind]) -> None:
    world = lived([(replace(flood, overload=""), count) for flood, count in seen], steps)
    assert world.done == []


@given(hungry_looks, possible)
def test_after_any_storm_it_comes_back_to_the_ground_and_only_possible_steps_were_made(
    seen: Sequence[Look], steps: Sequence[StepKind]
) -> None:
    world = lived(seen, steps)
    least = world.ladder.cause_per_second
    over = Flood(offered_per_second=0.0 if least is None else 0.99 * CALM_SHARE * least)
    world.see(over, CALM_SECONDS + APART_SECONDS + 1)
    assert world.ladder.made == ()
    done = [move for _, move in world.done if not (move.up and move.starves)]
    assert {kind for move in done for kind in move.steps} <= set(steps)
    up = [kind for move in done for kind in move.steps if move.up]
    down = [kind for move in done for kind in move.steps if not move.up]
    assert sorted(up) == sorted(down)


@given(looks, possible)
def test_steps_are_made_from_below_and_taken_back_together(seen: Sequence[Look], steps: Sequence[StepKind]) -> None:
    standing: list[StepKind] = []
    for _, move in lived(seen, steps).done:
        if move.up:
            standing += move.steps
            assert standing == list(steps[: len(standing)])
        else:
            assert list(move.steps) == standing[::-1]
            standing = []


@given(st.floats(2_000, 1e7), st.floats(0, 0.2))
def test_a_flood_is_answered_within_a_second_and_a_half_by_all_that_is_possible(offered: float, jitter: float) -> None:
    world = World(now=1000 + jitter)
    world.see(Flood(offered_per_second=offered, overload=WORDS), 1.5)
    assert world.ladder.made == ("threads", "nice")
