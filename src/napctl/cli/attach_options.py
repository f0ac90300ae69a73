"""The options that say how to attach, for `attach` and `run`."""

from collections.abc import Callable
from typing import Any, get_args

import click

from napctl.adapt.preference import Prefer
from napctl.attach.attach_options import AUTO, DEFAULT, RANGE, timer_ns_of, timer_range_ns_of
from napctl.cli.options import Duration
from napctl.model.limits import (
    LEAST_BUDGET_NS,
    LONGEST_TIMER_NS,
    MOST_BUSY_POLL_BUDGET,
    MOST_BUSY_POLL_USECS,
    MOST_DEFER_HARD_IRQS,
)
from napctl.model.modes import ASKED
from napctl.model.units import duration_text

__all__ = ["attach_options"]


class Timer(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """A number of µs, with or without its unit, as ns; or "auto", as None."""

    name = "timer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """To ns."""
        try:
            return timer_ns_of(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class TimerRange(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """Two times, such as 20us..200us, as ns."""

    name = "range"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """To ns."""
        try:
            return timer_range_ns_of(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def attach_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What options_of() of attach/attach_options.py makes AttachOptions from."""
    options = (
        click.option("--steer", is_flag=True,
                     help="Where workers listen with SO_REUSEPORT: send connections of RX queue q to worker q mod n."),
        click.option("--force", is_flag=True, help="Attach also what does not fit, if the kernel accepts it."),
        click.option("--mode", type=click.Choice(ASKED), default="suspend", show_default=True,
                     help="How its packets are to be taken. suspend: IRQ suspension, and busy polling where sockets "
                     "are read without epoll. poll: that busy polling alone, also of io_uring. thread: by a NAPI "
                     "thread for each instance that feeds it, on a CPU beside the server. defer: interrupts deferred, "
                     "by at most gro-flush-timeout. auto: suspension where it fits, else the best of the others under "
                     "the traffic that is there."),
        click.option("--spin", is_flag=True,
                     help="With --mode thread: threads that busy poll, and take a core each, also at rest (Linux "
                     "6.19)."),
        click.option("--defer-us", "timer_ns", type=Timer(), default=AUTO, show_default=True, metavar="auto|µs",
                     help="gro-flush-timeout: timer of the deferred polls. auto: tries 20, 50 and 200 under the "
                     "traffic that is there, and says why it chose one."),
        click.option("--latency-budget", "latency_budget_ns", type=Duration(LEAST_BUDGET_NS, LONGEST_TIMER_NS),
                     help="99 of 100 requests are to be read by the server within that time of their arrival, beside "
                     "what it needs by itself. With --stay, and by run: napctl adapts, and takes what costs the least "
                     "CPU within it, interrupts or a timer. Else auto tries no timer longer than that. Not beside a "
                     "--defer-us that sets one."),
        click.option("--timer-range", "timer_range_ns", type=TimerRange(), metavar="A..B",
                     help=f"Timers to adapt among, beside interrupts.  [default: {RANGE}]"),
        click.option("--prefer", type=click.Choice(get_args(Prefer)),
                     help="Within the budget: the least CPU per packet, or the least latency that costs at most 1.25 "
                     "times as much.  [default: cpu]"),
        click.option("--defer-hard-irqs", type=click.IntRange(1, MOST_DEFER_HARD_IRQS),
                     default=DEFAULT.defer_hard_irqs, show_default=True,
                     help="Empty polls before the interrupt is unmasked."),
        click.option("--irq-suspend-timeout", "irq_suspend_timeout_ns", type=Duration(1, LONGEST_TIMER_NS),
                     default=duration_text(DEFAULT.irq_suspend_timeout_ns), show_default=True,
                     help="Safety timer: interrupts come back if the server does not poll for so long."),
        click.option("--busy-poll-usecs", type=click.IntRange(0, MOST_BUSY_POLL_USECS),
                     default=DEFAULT.busy_poll_usecs, show_default=True,
                     help="Longest spin of an epoll_wait; 0: one poll. A spinning task cannot be killed, "
                     "so more than 10000 needs --force."),
        click.option("--busy-poll-budget", type=click.IntRange(1, MOST_BUSY_POLL_BUDGET),
                     default=DEFAULT.busy_poll_budget, show_default=True,
                     help="Packets that one busy poll may take."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command
