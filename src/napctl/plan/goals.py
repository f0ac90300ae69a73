"""What a plan may be for, as data."""

from collections.abc import Mapping

from napctl.model.plan import GoalName
from napctl.model.value import Value

__all__ = ["GOALS", "Goal"]


class Goal(Value, frozen=True, kw_only=True):
    """What is wanted, before the bounds of model/limits.py."""

    name: GoalName
    summary: str
    budget_ns: int
    """Latency that RX coalescing or deferral may add, unless another budget is given, ns."""
    rx_frames: int
    """Frames that end the wait for an RX interrupt early."""
    tx_usecs: int
    tx_frames: int
    defer_hard_irqs: int
    """Empty polls after which interrupts come back, where deferral has to do what the hardware cannot."""
    lowers_only: bool = False
    """RX delays that are in force are lowered to the budget, but none is raised."""
    keeps_adaptive_rx: bool = False
    """Adaptive RX coalescing stays on, unless a budget is given: it has no bound."""
    threads: bool = False
    """Busy queues get NAPI threads, and delays stay as they are."""
    rx_why: str
    tx_why: str


POLL_WEIGHT = 64
"""Packets that one NAPI poll takes: NAPI_POLL_WEIGHT in include/linux/netdevice.h."""

# TX: J. Kicinski's note on IRQ coalescing sets 150 µs and 128 frames, as late TX completions cost almost no latency.
# defer_hard_irqs: our choice; two looks by timer before the interrupt comes back. 100, as IRQ suspension has it, is for
# applications that poll: without one a CPU would wake up a hundred times for each lone packet.
GOALS: Mapping[GoalName, Goal] = {
    goal.name: goal
    for goal in (
        Goal(
            name="latency",
            summary="little delay, at the price of interrupts",
            budget_ns=10_000,
            rx_frames=POLL_WEIGHT // 4,
            tx_usecs=50,
            tx_frames=POLL_WEIGHT,
            defer_hard_irqs=0,
            lowers_only=True,
            rx_why="a packet waits no longer than the budget",
            tx_why="TX completions only free what was sent: a short wait saves interrupts that delay the receiving",
        ),
        Goal(
            name="balanced",
            summary="fewer interrupts, for a delay that few notice",
            budget_ns=50_000,
            rx_frames=POLL_WEIGHT,
            tx_usecs=150,
            tx_frames=128,
            defer_hard_irqs=2,
            rx_why="one interrupt serves what arrives within the latency budget",
            tx_why="TX completions only free what was sent, so they may wait, and their interrupts are saved",
        ),
        Goal(
            name="throughput",
            summary="most packets per second and CPU",
            budget_ns=100_000,
            rx_frames=2 * POLL_WEIGHT,
            tx_usecs=150,
            tx_frames=128,
            defer_hard_irqs=2,
            keeps_adaptive_rx=True,
            rx_why="one interrupt serves what arrives within the latency budget",
            tx_why="TX completions only free what was sent, so they may wait, and their interrupts are saved",
        ),
        Goal(
            name="efficiency",
            summary="fewest interrupts, at the price of latency",
            budget_ns=200_000,
            rx_frames=2 * POLL_WEIGHT,
            tx_usecs=200,
            tx_frames=256,
            defer_hard_irqs=2,
            rx_why="one interrupt serves what arrives within the latency budget",
            tx_why="TX completions only free what was sent, so they may wait as long as that saves interrupts",
        ),
        Goal(
            name="resilient",
            summary="a flood of packets leaves CPU time to everybody else, at the price of a wake-up for each poll",
            budget_ns=50_000,  # of what is written into such a plan by hand
            rx_frames=POLL_WEIGHT,
            tx_usecs=150,
            tx_frames=128,
            defer_hard_irqs=0,
            threads=True,
            rx_why="",
            tx_why="",
        ),
    )
}
