"""A Verdict: whether a device obeys one setting on the wire, with the figures and windows that it stands on."""

from typing import Literal

from napctl.model.histogram import EMPTY, Histogram
from napctl.model.machine import SCHEMA
from napctl.model.value import Value

__all__ = [
    "LEAST_GOODPUT",
    "Arm",
    "Outcome",
    "RatioEstimate",
    "Regression",
    "Setting",
    "ThreadPrice",
    "Verdict",
    "Verification",
    "What",
]


Outcome = Literal[
    "honoured", "clamped", "without effect", "contrary", "refused", "not enough traffic", "accepted", "not tried"
]
"""`honoured`: the wire shows it. `clamped`: another value is in force than was asked for. `without effect`: accepted,
and the wire shows that nothing changes. `contrary`: accepted, and does the opposite. `not enough traffic`: this traffic
cannot show it. `accepted`: reads back, and the wire has nothing to show it by. `not tried`: could not be compared."""

BAD: tuple[Outcome, ...] = ("clamped", "without effect", "contrary", "refused")
"""Outcomes that say: the device is not set as was asked."""

Setting = int | bool | str
"""The value of a setting; of deferral, which is two, text: "100 x 200us", defer-hard-irqs and gro-flush-timeout."""


What = Literal["throughput", "retransmits", "drops"]
"""What may be worse with a setting than without."""


class Arm(Value, frozen=True, kw_only=True):
    """What happened while the setting had one of its two values: the sum of all its windows. None: cannot be told."""

    value: Setting
    windows: int
    seconds: float
    rx_packets: int
    tx_packets: int
    interrupts: int | None = None
    polls: int | None = None
    """By softirqs and NAPI threads: those that interrupts or timers ask for."""
    runs: int | None = None
    """Of a device without NAPI instances: runs of packets that it handed over without a pause."""
    interrupts_per_packet: float | None = None
    packets_per_poll: float | None = None
    mean_gap_us: float | None = None
    """Between two interrupts of the busiest instance, µs."""
    tx_only_share: float | None = None
    """Share of polls, 0 … 1, that found TX completions alone."""
    histogram: Histogram = EMPTY
    """Polls by packets found."""


class RatioEstimate(Value, frozen=True, kw_only=True):
    """The ratio of one statistic, with the setting to without it, over pairs of windows."""

    statistic: str
    """For example "interrupts per packet"."""
    ratio: float
    low: float
    high: float
    confidence: float
    """Of the interval from low to high, 0 … 1."""
    expected: float | None = None
    """The ratio that this traffic would give if the setting were obeyed, by the model of verify/expected.py."""
    pairs: int
    seconds: float
    """Of one window; a pair has two."""


class Verdict(Value, frozen=True, kw_only=True):
    """Of one setting of one device."""

    device: str
    queue: int | None = None
    """None: device-wide."""
    setting: str
    """Field name of Coalescing, "rx_ring", "tx_ring", or "deferral"."""
    wanted: Setting
    without: Setting | None = None
    """The value it was compared with."""
    read_back: Setting | None = None
    """What the driver made of `wanted`; None: it refused."""
    outcome: Outcome
    acts_as: str | None = None
    """Of a clamped setting: the value in force."""
    estimate: RatioEstimate | None = None
    per_second: RatioEstimate | None = None
    """The same per second instead of per packet: the two differ where the setting slows the traffic itself."""
    to_acts_as: RatioEstimate | None = None
    """Of a delay that seems to be clamped: the same statistic, with the setting to with the delay that it acts as."""
    with_it: Arm | None = None
    without_it: Arm | None = None
    reason: str
    """One sentence or two."""
    needs: str | None = None
    """Where it could not be told: what would be enough."""

    @property
    def bad(self) -> bool:
        """The device is not set as was asked."""
        return self.outcome in BAD


class Regression(Value, frozen=True, kw_only=True):
    """Something that is worse with a setting than without it."""

    device: str
    queue: int | None = None
    setting: str
    what: What
    estimate: RatioEstimate
    text: str
    """One sentence with the figures."""


LEAST_GOODPUT = 0.9
"""Of what is delivered without threads: with less they do more harm at the load of now than a flood that may come."""


class ThreadPrice(Value, frozen=True, kw_only=True):
    """What the NAPI threads of one device cost at the load of now: windows with them and without them, in turns."""

    device: str
    instances: tuple[int, ...]
    """As a plan numbers them."""
    goodput: RatioEstimate | None
    """Of bytes received, UDP datagrams read, or packets forwarded: the least. None: there were hardly any."""
    cpu: RatioEstimate | None
    """Of the busy time of all CPUs."""
    waited_us: float | None
    """How long a thread that was woken waited for its CPU, on average, µs: so much later are its packets polled. None:
    the kernel does not tell."""
    refused: str | None = None
    """What the kernel said, where it takes no threads."""

    @property
    def bad(self) -> bool:
        """They are not to be had, or too dear."""
        return self.refused is not None or (self.goodput is not None and self.goodput.ratio < LEAST_GOODPUT)


class Verification(Value, frozen=True, kw_only=True):
    """All verdicts of one run."""

    schema: int = SCHEMA
    netns: int
    """Inode number of the network namespace."""
    seed: int
    """Of the order of the windows."""
    verdicts: tuple[Verdict, ...]
    regressions: tuple[Regression, ...] = ()
    prices: tuple[ThreadPrice, ...] = ()
    """Of the NAPI threads of a plan."""
    lacks: tuple[str, ...] = ()
    """What could not be seen, and why: one sentence each."""
    notes: tuple[str, ...] = ()
    """Where to look besides: one sentence each."""

    @property
    def bad(self) -> bool:
        """A setting is not obeyed, or harms."""
        harm = bool(self.regressions) or any(price.bad for price in self.prices)
        return harm or any(verdict.bad for verdict in self.verdicts)
