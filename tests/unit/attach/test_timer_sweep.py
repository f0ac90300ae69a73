"""Whether there is traffic to try timers on, and in which rounds."""

from collections.abc import Iterator
from itertools import accumulate, pairwise
from typing import cast

import pytest

from napctl.attach.packet_cost import CostProbe
from napctl.attach.timer_choice import whole_rounds
from napctl.attach.timer_sweep import LEAST_PACKETS_PER_SECOND, LOOKS, WINDOW_SECONDS, has_traffic
from napctl.model.timer_choice import TrialWindow

ENOUGH = round(LEAST_PACKETS_PER_SECOND * WINDOW_SECONDS)


class Counting:
    """Packets of one window after the other; it is read before and after each."""

    def __init__(self, *windows: int):
        counts = list(accumulate(windows, initial=0))
        self._readings = iter([count for pair in pairwise(counts) for count in pair])

    def packets(self, _napis: object) -> int:
        return next(self._readings)


@pytest.mark.parametrize(
    ("windows", "looked", "expected"),
    [
        ((ENOUGH,), 1, True),
        ((0, ENOUGH), 2, True),
        ((0, ENOUGH - 1, ENOUGH), 3, True),
        ((0, 0, ENOUGH - 1, ENOUGH), LOOKS, False),
    ],
)
def test_a_window_without_packets_is_no_server_without_traffic(
    windows: tuple[int, ...], looked: int, expected: bool
) -> None:
    found: list[bool] = []

    def all_of_it() -> Iterator[float]:
        found.append((yield from has_traffic(cast("CostProbe", Counting(*windows)), ())))

    assert list(all_of_it()) == [WINDOW_SECONDS] * looked
    assert found == [expected]


def windows(*packets: int) -> list[TrialWindow]:
    return [TrialWindow(seconds=0.1, cpu_seconds=0.1, packets=each, wait_p50_us=None) for each in packets]


def test_a_round_in_which_a_window_saw_no_packet_is_left_out_of_all() -> None:
    found = whole_rounds({"short": windows(1, 2, 3, 4, 5, 6), "long": windows(7, 8, 0, 9, 10, 11)})
    assert found is not None
    assert {way: [each.packets for each in some] for way, some in found.items()} == {
        "short": [1, 2, 4, 5, 6],
        "long": [7, 8, 9, 10, 11],
    }


@pytest.mark.parametrize("rounds", [(1, 0, 1, 1, 0, 1), (1, 0), (0, 1), ()])
def test_a_way_under_which_more_than_one_in_six_see_none_may_be_why(rounds: tuple[int, ...]) -> None:
    assert whole_rounds({"short": windows(*[1] * len(rounds)), "long": windows(*rounds)}) is None
