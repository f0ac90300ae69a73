"""What is to be protected, and how far protection may go."""

from napctl.model.value import Value

__all__ = ["ProtectOptions"]


class ProtectOptions(Value, frozen=True, kw_only=True):
    """As `napctl protect` takes them, and `[protect]` of a policy."""

    devices: tuple[str, ...] | None = None
    """Names, also alternative ones; None: network hardware that is up."""
    threshold: float = 0.9
    """Share of a CPU's time, 0 … 1, from which packet work may count as overload."""
    storm_control_per_second: int | None = None
    """Packets of each kind that nobody asked for, that storm control lets pass on each CPU; None: not allowed."""
