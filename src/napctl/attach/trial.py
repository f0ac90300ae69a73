"""A moment in which it is measured what somebody new makes of it: what starves is not to stay attached."""

import time

from napctl.attach.measure import Meter
from napctl.attach.report import Now
from napctl.model.change import Transaction

TRIAL_SECONDS = 1.0


class Trial:
    """From now on. Whoever begins it ends it, by read() or close()."""

    def __init__(self, transaction: Transaction):
        self._meter = Meter([transaction]).__enter__()
        self.until = time.monotonic() + TRIAL_SECONDS

    def over(self) -> bool:
        """Whether there is enough to read."""
        return time.monotonic() >= self.until

    def read(self) -> Now:
        """What was measured, and the end of it."""
        try:
            ((now, _window),) = self._meter.read()
            return now
        finally:
            self.close()

    def close(self) -> None:
        """The end of it."""
        self._meter.__exit__(None, None, None)
