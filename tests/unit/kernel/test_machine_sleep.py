"""A machine that has slept is known by its two clocks; whoever is held up between them is not taken for one."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from napctl.kernel.machine_sleep import LEAST_NS, SleepWatch, now_boot_ns

SECOND = 10**9
HOURS = 8 * 3600 * SECOND


class Machine:
    """Its clocks go on with each question, as whoever asks may be held up then; `held_up` says for how long."""

    def __init__(self, held_up: Callable[[], int] = lambda: 100) -> None:
        self.awake_ns = self.asleep_ns = 5 * SECOND
        self._held_up = held_up

    def boot_ns(self) -> int:
        self.awake_ns += self._held_up()
        return self.awake_ns + self.asleep_ns

    def monotonic_ns(self) -> int:
        self.awake_ns += self._held_up()
        return self.awake_ns

    def watch(self) -> SleepWatch:
        return SleepWatch(self.boot_ns, self.monotonic_ns)


def test_a_sleep_is_told_once_with_its_length() -> None:
    machine = Machine()
    watch = machine.watch()
    machine.awake_ns += HOURS
    assert watch.slept_ns() == 0, "it was awake all the time"
    machine.asleep_ns += HOURS
    assert HOURS - 1000 < watch.slept_ns() <= HOURS
    assert watch.slept_ns() == 0
    machine.asleep_ns += LEAST_NS // 2
    assert watch.slept_ns() == 0
    machine.asleep_ns += LEAST_NS
    assert watch.slept_ns() > LEAST_NS, "two short ones are a longer one"


@given(st.lists(st.tuples(st.integers(0, HOURS), st.booleans()), max_size=20), st.data())
def test_never_more_is_told_than_it_slept_however_late_one_is(
    course: list[tuple[int, bool]], data: st.DataObject
) -> None:
    machine = Machine(lambda: data.draw(st.integers(0, 5 * SECOND)))
    watch, told, slept = machine.watch(), 0, 0
    for ns, sleeps in course:
        if sleeps:
            machine.asleep_ns += ns
            slept += ns
        else:
            machine.awake_ns += ns
        told += watch.slept_ns()
        assert told <= slept


def test_the_clocks_of_this_machine_say_that_it_is_awake() -> None:
    assert SleepWatch().slept_ns() == 0
    assert now_boot_ns() > 0
