"""What attaching sets, and the values it sets by default."""

from msgspec.structs import replace

from napctl.model.settings import EpollParams, NapiSettings
from napctl.model.value import Value

__all__ = ["Suspension"]


class Suspension(Value, frozen=True, kw_only=True):
    """Deferral and suspension for a NAPI instance, busy-poll parameters for the epoll instance that follows it.

    The defaults are `suspend200` of the published experiments (repository martinkarsten/irqsuspend, and
    Documentation/networking/napi.rst, "IRQ suspension"): deferral masks the interrupt, so it is needed even though
    only its timer is left when the application is slow.
    """

    defer_hard_irqs: int = 100
    gro_flush_timeout_ns: int = 200_000
    irq_suspend_timeout_ns: int = 20_000_000
    busy_poll_usecs: int = 0
    """0: one poll per epoll_wait; the application never spins."""
    busy_poll_budget: int = 64
    prefer_busy_poll: bool = True

    @property
    def napi(self) -> NapiSettings:
        """The device's half."""
        return NapiSettings(
            defer_hard_irqs=self.defer_hard_irqs,
            gro_flush_timeout_ns=self.gro_flush_timeout_ns,
            irq_suspend_timeout_ns=self.irq_suspend_timeout_ns,
        )

    @property
    def deferral(self) -> NapiSettings:
        """The device's half where nobody can suspend."""
        return replace(self.napi, irq_suspend_timeout_ns=0)

    @property
    def epoll(self) -> EpollParams:
        """The application's half."""
        return EpollParams(
            busy_poll_usecs=self.busy_poll_usecs,
            busy_poll_budget=self.busy_poll_budget,
            prefer_busy_poll=self.prefer_busy_poll,
        )
