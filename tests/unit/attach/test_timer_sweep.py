"""Whether there is traffic to try timers on."""

from collections.abc import Iterator
from itertools import accumulate, pairwise
from typing import cast

import pytest

from napctl.attach.packet_cost import CostProbe
from napctl.attach.timer_sweep import LEAST_PACKETS_PER_SECOND, LOOKS, WINDOW_SECONDS, has_traffic

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
