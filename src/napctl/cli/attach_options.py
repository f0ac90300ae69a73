"""The options that say how to attach, for `attach` and `run`."""

from collections.abc import Callable
from typing import Any, get_args

import click

from napctl.adapt.preference import LatencyGoal, Prefer
from napctl.adapt.ways import ways_between
from napctl.attach.attach_options import AttachOptions
from napctl.cli.options import Duration
from napctl.model.errors import BadInput
from napctl.model.suspension import Suspension
from napctl.model.units import NS_PER, duration_ns

__all__ = ["attach_options", "options_of"]


DEFAULT = Suspension()
S32_MAX = 2**31 - 1
"""What the kernel takes at most: netdev_nl_napi_set_config() in net/core/netdev-genl.c, ep_eventpoll_bp_ioctl()."""
AUTO = "auto"
DEFAULT_RANGE_NS = (20_000, 200_000)
RANGE = "20us..200us"
LONGEST_SPIN_US = 10_000
"""Without --force: ep_busy_loop() looks for packets, and not for signals, for all that time (fs/eventpoll.c)."""


class Timer(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """A number of µs, with or without its unit, as ns; or "auto", as None."""

    name = "timer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """To ns."""
        if value == AUTO:
            return None
        try:
            ns = duration_ns(value if not value.isdigit() else f"{value}us")
        except ValueError:
            self.fail(f"'{value}' is neither 'auto' nor a number of µs, such as 50", param, ctx)
        if not 0 < ns <= 10 * NS_PER["s"]:
            self.fail(f"{value} is not between 1ns and 10s", param, ctx)
        return ns


class TimerRange(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """Two times, such as 20us..200us, as ns."""

    name = "range"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """To ns."""
        ends = value.split("..")
        try:
            shortest, longest = (duration_ns(each) for each in ends)
        except ValueError:
            self.fail(f"'{value}' is no range of times, such as 20us..200us", param, ctx)
        return shortest, longest


def attach_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What AttachOptions is made of."""
    options = (
        click.option("--steer", is_flag=True,
                     help="Where workers listen with SO_REUSEPORT: send connections of RX queue q to worker q mod n."),
        click.option("--force", is_flag=True, help="Attach also what does not fit, if the kernel accepts it."),
        click.option("--defer-us", "timer_ns", type=Timer(), default=AUTO, show_default=True, metavar="auto|µs",
                     help="gro-flush-timeout: timer of the deferred polls. auto: tries 20, 50 and 200 under the "
                     "traffic that is there, and says why it chose one."),
        click.option("--latency-budget", "budget_ns", type=Duration(least_ns=1000),
                     help="99 of 100 requests are to be read by the server within that time of their arrival, beside "
                     "what it needs by itself. With --stay, and by run: napctl adapts, and takes what costs the least "
                     "CPU within it, interrupts or a timer. Else auto tries no timer longer than that. Not beside a "
                     "--defer-us that sets one."),
        click.option("--timer-range", type=TimerRange(), metavar="A..B",
                     help=f"Timers to adapt among, beside interrupts.  [default: {RANGE}]"),
        click.option("--prefer", type=click.Choice(get_args(Prefer)),
                     help="Within the budget: the least CPU per packet, or the least latency that costs at most 1.25 "
                     "times as much.  [default: cpu]"),
        click.option("--defer-hard-irqs", type=click.IntRange(1, S32_MAX), default=DEFAULT.defer_hard_irqs,
                     show_default=True, help="Empty polls before the interrupt is unmasked."),
        click.option("--irq-suspend-timeout", type=Duration(least_ns=1), default="20ms", show_default=True,
                     help="Safety timer: interrupts come back if the server does not poll for so long."),
        click.option("--busy-poll-usecs", type=click.IntRange(0, S32_MAX), default=DEFAULT.busy_poll_usecs,
                     show_default=True, help="Longest spin of an epoll_wait; 0: one poll. A spinning task cannot be "
                     "killed, so more than 10000 needs --force."),
        click.option("--busy-poll-budget", type=click.IntRange(1, 65535), default=DEFAULT.busy_poll_budget,
                     show_default=True, help="Packets that one busy poll may take."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def options_of(values: dict[str, Any], *, stays: bool) -> AttachOptions:
    """From the values of these options. `stays`: napctl stays, and so can adapt. Raises BadInput for timers that
    contradict each other, or a spin too long."""
    if values["busy_poll_usecs"] > LONGEST_SPIN_US and not values["force"]:
        raise BadInput(
            f"--busy-poll-usecs {values['busy_poll_usecs']}: a task that spins in epoll_wait cannot be killed until it "
            f"runs out; more than {LONGEST_SPIN_US:,} µs needs --force"
        )
    suspension = Suspension(
        defer_hard_irqs=values["defer_hard_irqs"],
        irq_suspend_timeout_ns=values["irq_suspend_timeout"],
        busy_poll_usecs=values["busy_poll_usecs"],
        busy_poll_budget=values["busy_poll_budget"],
    )
    return AttachOptions(
        suspension=suspension,
        timer_ns=values["timer_ns"],
        budget_ns=values["budget_ns"],
        goal=_goal(values, suspension, stays=stays),
        steer=values["steer"],
        force=values["force"],
    )


def _goal(values: dict[str, Any], suspension: Suspension, *, stays: bool) -> LatencyGoal | None:
    """What to adapt for; None: nothing is adapted, and no option is for that."""
    timer_range, prefer, budget_ns = values["timer_range"], values["prefer"], values["budget_ns"]
    given = "--timer-range" if timer_range else "--prefer" if prefer else ""
    if values["timer_ns"] is not None and (chooses := given or ("" if budget_ns is None else "--latency-budget")):
        raise BadInput(f"{chooses}: --defer-us sets the timer, so there is nothing to choose; leave out one of both")
    if given and not stays:
        raise BadInput(f"{given}: only who stays can adapt; add --stay")
    if given and budget_ns is None:
        raise BadInput(f"{given}: adapting needs a --latency-budget, such as 150us")
    if budget_ns is None or not stays:
        return None
    shortest_ns, longest_ns = timer_range or DEFAULT_RANGE_NS
    ways = ways_between(shortest_ns, longest_ns, irq_suspend_timeout_ns=suspension.irq_suspend_timeout_ns)
    return LatencyGoal(ways=ways, budget_ns=budget_ns, prefer=prefer or "cpu")
