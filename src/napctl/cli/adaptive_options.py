"""The options of `plan` that let the driver adapt its RX delay, and whom they fit."""

from collections.abc import Callable, Collection
from typing import Any

import click

from napctl.cli.options import Duration
from napctl.model.errors import Unsupported
from napctl.model.limits import MOST_ADDED_LATENCY_NS
from napctl.model.machine import Device
from napctl.plan.adaptive import takes_profile
from napctl.plan.proposal import Range

__all__ = ["adaptive_options", "range_of", "refuse_without_profile"]


class DelayRange(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """SHORTEST..LONGEST, such as 5us..100us, as whole µs: a level has no finer delay."""

    name = "range"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Range:
        """Both ends are at least 1 µs."""
        if isinstance(value, Range):
            return value
        first, dots, last = value.partition("..")
        if not dots:
            self.fail(f"'{value}' is no range of two times, such as 5us..100us", param, ctx)
        shortest, longest = (
            Duration(1_000, MOST_ADDED_LATENCY_NS).convert(end, param, ctx) // 1000 for end in (first, last)
        )
        if shortest > longest:
            self.fail(f"{value} is empty: the shortest comes first", param, ctx)
        return Range(shortest_us=shortest, longest_us=longest)


def adaptive_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What range_of() reads."""
    options = (
        click.option("--adaptive", is_flag=True,
                     help="Let the driver adapt its RX delay in five steps inside the latency budget, instead of a "
                     "fixed one: for drivers that take such steps (rx-profile)."),
        click.option("--range", "delays", type=DelayRange(), metavar="A..B",
                     help="With --adaptive: between which delays, such as 5us..100us; never beyond the budget."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def range_of(adaptive: bool, delays: Range | None) -> Range | None:
    """None: a fixed delay is wanted. Raises click.UsageError for a range without --adaptive."""
    if delays is not None and not adaptive:
        raise click.UsageError("--range is for --adaptive")
    return (delays or Range()) if adaptive else None


def refuse_without_profile(devices: Collection[Device], *, named: bool) -> None:
    """Raises Unsupported where none of the devices takes a profile, or a named one does not."""
    lacking = [device for device in devices if not takes_profile(device)]
    if lacking and (named or len(lacking) == len(devices)):
        names = ", ".join(f"{device.name} ({device.driver or 'driver unknown'})" for device in lacking)
        raise Unsupported(
            f"{names}: takes no steps for adaptive RX (rx-profile: Linux 6.11, and a driver and device that have it, "
            "such as virtio_net with VIRTIO_NET_F_VQ_NOTF_COAL); without --adaptive a fixed delay is proposed"
        )
