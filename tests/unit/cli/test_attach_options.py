"""No knob goes beyond its ceiling in model/limits.py, whoever turns it: a command, a policy, a plan, or what adapts."""

from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.attach.attach_options import options_of
from napctl.cli.attach import attach
from napctl.cli.run import run
from napctl.model.errors import BadInput
from napctl.model.limits import (
    CEILINGS,
    LONGEST_SUSPENSION_NS,
    LONGEST_TIMER_NS,
    MOST_BUSY_POLL_BUDGET,
    MOST_BUSY_POLL_USECS,
    MOST_DEFER_HARD_IRQS,
)
from napctl.model.plan import Deferral
from napctl.model.strict_table import Wrong, block
from napctl.service.policy_keys import ATTACH

MOST: dict[str, int | str] = {
    "defer-us": f"{LONGEST_TIMER_NS}ns",
    "latency-budget": f"{LONGEST_TIMER_NS}ns",
    "irq-suspend-timeout": f"{LONGEST_TIMER_NS}ns",
    "defer-hard-irqs": MOST_DEFER_HARD_IRQS,
    "busy-poll-usecs": MOST_BUSY_POLL_USECS,
    "busy-poll-budget": MOST_BUSY_POLL_BUDGET,
}


def above(most: int | str) -> int | str:
    return most + 1 if isinstance(most, int) else f"{LONGEST_TIMER_NS + 1}ns"


@pytest.mark.parametrize("key", MOST)
@pytest.mark.parametrize("command", [attach, run], ids=["attach", "run"])
def test_an_option_goes_up_to_its_ceiling_and_no_further(command: click.Command, key: str) -> None:
    def parsed(value: int | str) -> Any:
        words = ["server"] if command is attach else ["--", "server"]
        return command.make_context("it", [f"--{key}", str(value), *words])

    parsed(MOST[key])
    with pytest.raises(click.BadParameter) as caught:
        parsed(above(MOST[key]))
    assert f"--{key}" in caught.value.format_message()


@pytest.mark.parametrize("key", MOST)
def test_a_key_of_the_policy_goes_up_to_the_same(key: str) -> None:
    ATTACH[key](MOST[key], key)
    with pytest.raises(Wrong, match=key):
        ATTACH[key](above(MOST[key]), key)


def test_settings_of_a_device_go_up_to_the_same() -> None:
    read = block(Deferral)
    assert read({"defer-hard-irqs": MOST_DEFER_HARD_IRQS}, "deferral").defer_hard_irqs == CEILINGS["defer_hard_irqs"]
    with pytest.raises(Wrong, match="defer-hard-irqs"):
        read({"defer-hard-irqs": MOST_DEFER_HARD_IRQS + 1}, "deferral")


TIMES = st.integers(1, 2 * LONGEST_SUSPENSION_NS)


@given(TIMES, TIMES, TIMES | st.integers(1, LONGEST_TIMER_NS))
def test_no_timer_that_is_adapted_is_longer_than_a_suspension_may_be(
    shortest_ns: int, longest_ns: int, suspend_ns: int
) -> None:
    asked = {
        "latency_budget_ns": LONGEST_TIMER_NS,
        "timer_range_ns": (shortest_ns, longest_ns),
        "irq_suspend_timeout_ns": suspend_ns,
    }
    try:
        options = options_of(asked, stays=True)
    except BadInput:
        return
    assert options.goal is not None
    assert max(way.gro_flush_timeout_ns or 0 for way in options.goal.ways) < LONGEST_SUSPENSION_NS
