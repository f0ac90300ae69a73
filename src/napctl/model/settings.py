"""Settings as the kernel has them. None always means: this kernel or driver does not have the setting."""

from napctl.model.value import Value

__all__ = [
    "BUSY_POLL",
    "DISABLED",
    "DYNAMIC",
    "ENABLED",
    "INACTIVE",
    "STATIC",
    "THREADED",
    "EpollParams",
    "NapiSettings",
    "RingPolling",
    "SocketPolling",
    "ThreadSettings",
    "kernel_name",
]


DISABLED, ENABLED, BUSY_POLL = "disabled", "enabled", "busy-poll"
THREADED = (DISABLED, ENABLED, BUSY_POLL)
"""Who polls a NAPI instance, by the kernel's numbers (enum netdev_napi_threaded of include/uapi/linux/netdev.h): the
softirq, a thread of its own, or such a thread that spins (Linux 6.19, commit c18d4b190a46)."""


class NapiSettings(Value, frozen=True, kw_only=True):
    """Deferral, suspension and threading of one NAPI instance (Documentation/netlink/specs/netdev.yaml)."""

    defer_hard_irqs: int | None = None
    """Empty polls that may pass before the interrupt is unmasked (Linux 6.13)."""
    gro_flush_timeout_ns: int | None = None
    """The timer that drives those polls, ns (Linux 6.13)."""
    irq_suspend_timeout_ns: int | None = None
    """How long interrupts may stay masked while the application polls, ns (Linux 6.13)."""
    threaded: str | None = None
    """"disabled", "enabled" or "busy-poll" (per NAPI instance since Linux 6.17)."""

    @property
    def defers(self) -> bool:
        """Whether deferral is on: it needs both halves."""
        return bool(self.defer_hard_irqs) and bool(self.gro_flush_timeout_ns)


class ThreadSettings(Value, frozen=True, kw_only=True):
    """The kernel thread of one NAPI instance. In what is asked for, None stands for: not touched."""

    threaded: str | None = None
    """One of THREADED."""
    nice: int | None = None
    cpus: str | None = None
    """On which it may run, as a kernel list: "0-3,8"."""


class EpollParams(Value, frozen=True, kw_only=True):
    """Busy-poll parameters of one epoll instance: struct epoll_params of include/uapi/linux/eventpoll.h (Linux 6.9)."""

    busy_poll_usecs: int
    """How long one epoll_wait may busy poll without finding anything, µs."""
    busy_poll_budget: int
    """Packets one busy poll may take; 0 stands for the kernel's default of 8."""
    prefer_busy_poll: bool
    """Whether the task's own polling is preferred to softirq; suspension needs it."""

    @property
    def polls(self) -> bool:
        """Whether a task waiting on this instance polls the NAPI instance itself."""
        return self.prefer_busy_poll or self.busy_poll_usecs > 0


class SocketPolling(Value, frozen=True, kw_only=True):
    """Busy polling by the reads of one socket that nobody waits for in epoll (socket(7))."""

    busy_poll_usecs: int
    """SO_BUSY_POLL: how long a blocking read may busy poll, µs."""
    prefer_busy_poll: bool
    """SO_PREFER_BUSY_POLL (Linux 5.11)."""


INACTIVE, DYNAMIC, STATIC = "inactive", "dynamic", "static"


class RingPolling(Value, frozen=True, kw_only=True):
    """NAPI busy polling of one io_uring instance: struct io_uring_napi of include/uapi/linux/io_uring.h (Linux 6.9)."""

    tracking: str
    """"inactive": it does not poll; "dynamic": it polls what feeds the sockets that it waits for; "static": what its
    program has listed, which nobody can read back (Linux 6.13)."""
    busy_poll_usecs: int
    """busy_poll_to: how long one wait may busy poll without finding anything, µs."""
    prefer_busy_poll: bool
    """Whether its own polling is preferred to softirq."""

    @property
    def polls(self) -> bool:
        """Whether a task that waits in it polls NAPI instances itself."""
        return self.tracking != INACTIVE


def kernel_name(field: str) -> str:
    """A field's name as netlink and ethtool have it: rx_usecs is rx-usecs, gro_flush_timeout_ns gro-flush-timeout."""
    return field.removesuffix("_ns").replace("_", "-")
