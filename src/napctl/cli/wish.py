"""The options that say how to attach, for `attach` and `run`."""

from collections.abc import Callable
from typing import Any

import click

from napctl.attach.operate import Wish
from napctl.cli.options import Duration
from napctl.model.errors import BadInput
from napctl.model.suspension import Suspension
from napctl.model.units import NS_PER, duration_ns

DEFAULT = Suspension()
S32_MAX = 2**31 - 1
"""What the kernel takes at most: netdev_nl_napi_set_config() in net/core/netdev-genl.c, ep_eventpoll_bp_ioctl()."""
AUTO = "auto"
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


def wish_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What Wish is made of."""
    options = (
        click.option("--steer", is_flag=True,
                     help="Where workers listen with SO_REUSEPORT: send connections of RX queue q to worker q mod n."),
        click.option("--force", is_flag=True, help="Attach also what does not fit, if the kernel takes it."),
        click.option("--defer-us", "timer_ns", type=Timer(), default=AUTO, show_default=True, metavar="auto|µs",
                     help="gro-flush-timeout: timer of the deferred polls. auto: tries 20, 50 and 200 under the "
                     "traffic that is there, and says what it chose from."),
        click.option("--latency-budget", "budget_ns", type=Duration(least_ns=1000),
                     help="How long a packet may wait for its poll; auto tries no longer timer."),
        click.option("--defer-hard-irqs", type=click.IntRange(1, S32_MAX), default=DEFAULT.defer_hard_irqs,
                     show_default=True, help="Empty polls before the interrupt is unmasked."),
        click.option("--irq-suspend-timeout", type=Duration(least_ns=1), default="20ms", show_default=True,
                     help="Longest time that interrupts stay suspended without the server coming back."),
        click.option("--busy-poll-usecs", type=click.IntRange(0, S32_MAX), default=DEFAULT.busy_poll_usecs,
                     show_default=True, help="Longest spin of an epoll_wait; 0: one poll. A spinning task cannot be "
                     "killed, so more than 10000 needs --force."),
        click.option("--busy-poll-budget", type=click.IntRange(1, 65535), default=DEFAULT.busy_poll_budget,
                     show_default=True, help="Packets that one busy poll may take."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def wish_of(values: dict[str, Any]) -> Wish:
    """From the values of these options. Raises BadInput for timers that contradict each other, or a spin too long."""
    if values["busy_poll_usecs"] > LONGEST_SPIN_US and not values["force"]:
        raise BadInput(
            f"--busy-poll-usecs {values['busy_poll_usecs']}: a task that spins in epoll_wait cannot be killed until it "
            f"runs out; more than {LONGEST_SPIN_US:,} µs needs --force"
        )
    return Wish(
        suspension=Suspension(
            defer_hard_irqs=values["defer_hard_irqs"],
            irq_suspend_timeout_ns=values["irq_suspend_timeout"],
            busy_poll_usecs=values["busy_poll_usecs"],
            busy_poll_budget=values["busy_poll_budget"],
        ),
        timer_ns=values["timer_ns"],
        budget_ns=values["budget_ns"],
        steer=values["steer"],
        force=values["force"],
    )
