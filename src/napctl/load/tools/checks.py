"""Whether the rate that a tool told fits the count and the time that it told. Where figures contradict each other all
of them are refused: nobody knows which one is right.

Tools print rounded numbers, so a printed number is an interval here, as wide as its last digit.
"""

import re
from dataclasses import dataclass
from typing import Self

from napctl.load.tools.numbers import NUMBER, US_PER, number

__all__ = ["Printed", "check_divisor", "check_length", "check_rate"]


SLACK = 0.02
"""By how much a rate may miss count/time beyond rounding: tools take the two times a moment apart."""
SHORTEST, LONGEST = 0.9, 2.0
"""What a run that is ended by a clock may take of the time that was asked for. wrk2 with many threads takes its own
start for later than it was; wrk with timeouts subtracts more than it waited."""
COARSEST = 0.02
"""How uncertain, by its rounding alone, a time may be that a count is divided by."""


@dataclass(frozen=True)
class Printed:
    """What a printed number can stand for."""

    text: str
    low: float
    high: float

    @classmethod
    def of(cls, text: str, unit: str = "") -> Self:
        """A number as it was printed; with a unit of time, in seconds. Raises ValueError."""
        value, factor = number(text), US_PER[unit] / 1e6 if unit else 1.0
        digits, _, exponent = text.lower().partition("e")
        half = 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2])) / 2
        return cls(f"{text}{unit}", max(0.0, value - half) * factor, (value + half) * factor)

    @classmethod
    def time(cls, text: str) -> Self:
        """A time with its unit, in seconds. Raises ValueError."""
        split = re.fullmatch(rf"({NUMBER})\s?(\S+)", text)
        if not split or split[2] not in US_PER:
            raise ValueError(f"'{text}' is no time with its unit")
        return cls.of(split[1], split[2])

    @classmethod
    def exactly(cls, seconds: float) -> Self:
        """Seconds that nobody rounded."""
        return cls(f"{seconds:g}s", seconds, seconds)


def check_rate(rate: Printed, count: int, seconds: Printed) -> None:
    """Raises ValueError if the rate is not the count by the time."""
    if not rate.low * seconds.low * (1 - SLACK) <= count <= rate.high * seconds.high * (1 + SLACK):
        raise ValueError(f"its figures contradict each other: {rate.text} a second, but {count:,} in {seconds.text}")


def check_length(ran: Printed, asked: Printed) -> None:
    """Raises ValueError if a run took quite another time than was asked for."""
    if ran.high < asked.low * SHORTEST or ran.low > asked.high * LONGEST:
        raise ValueError(
            f"it was to run for {asked.text} and says that it ran for {ran.text}: its rate is not to be believed; "
            "give it more time, fewer threads, or a load at which no request times out"
        )


def check_divisor(seconds: Printed, count: int) -> None:
    """Raises ValueError if a time is printed too coarsely for the count by it to be a rate."""
    if seconds.high - seconds.low > COARSEST * (seconds.high + seconds.low):
        raise ValueError(f"{count:,} in {seconds.text} are no rate: give it more time")
