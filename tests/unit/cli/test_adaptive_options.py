"""Promises of `plan --adaptive` and `--range`: what they take, and whom they refuse in one line."""

import click
import pytest

from napctl.cli.adaptive_options import DelayRange, range_of, refuse_without_profile
from napctl.cli.status import show
from napctl.cli.text.settings import value_text
from napctl.model.errors import Unsupported
from napctl.plan.proposal import Range
from tests.unit.plan.test_adaptive import KERNELS, VIRTIO
from tests.unit.plan.test_propose import NIC, machine


def converted(text: str) -> Range:
    return DelayRange().convert(text, None, None)


def test_a_range_is_two_times() -> None:
    assert converted("5us..0.1ms") == Range(shortest_us=5, longest_us=100)
    assert converted("20us..20us") == Range(shortest_us=20, longest_us=20)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("5us", "no range of two times"),
        ("5..100", "no time with its unit"),
        ("100us..5us", "the shortest comes first"),
        ("0..100us", "not between 1us and 10ms"),
        ("1us..11ms", "not between 1us and 10ms"),
    ],
)
def test_another_text_is_refused(text: str, why: str) -> None:
    with pytest.raises(click.BadParameter, match=why):
        converted(text)


def test_a_range_is_for_adaptive_alone() -> None:
    assert range_of(adaptive=False, delays=None) is None
    assert range_of(adaptive=True, delays=None) == Range()
    with pytest.raises(click.UsageError):
        range_of(adaptive=False, delays=Range())


def test_who_takes_no_profile_is_named_with_what_it_would_need() -> None:
    with pytest.raises(Unsupported, match=r"eth0 \(mlx5_core\): takes no steps .*Linux 6\.11.*without --adaptive"):
        refuse_without_profile([VIRTIO, NIC], named=True)
    with pytest.raises(Unsupported):
        refuse_without_profile([NIC], named=False)
    refuse_without_profile([VIRTIO, NIC], named=False)
    refuse_without_profile([], named=False)


def test_levels_are_shown_on_one_line() -> None:
    assert value_text("rx_profile", KERNELS) == "1/256 8/256 64/256 128/256 256/256"


def test_status_shows_them_below_the_other_settings_on_lines_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    show(machine(VIRTIO))
    assert capsys.readouterr().out.splitlines()[1:4] == [
        "  coalescing  rx-usecs 0, rx-max-frames 0, tx-usecs 0, tx-max-frames 1,",
        "              use-adaptive-rx off",
        "              rx-profile 1/256 8/256 64/256 128/256 256/256 (µs/packets)",
    ]
