"""What a service tells the manager that started it (sd_notify(3)): a datagram to $NOTIFY_SOCKET."""

import os
import socket
from contextlib import suppress

__all__ = ["notify", "watchdog_seconds"]


MOST_SECONDS, READY_SECONDS = 0.5, 30.0
"""To deliver one. What says READY=1 is said once, and a manager that does not hear it ends the service."""


def notify(*assignments: str) -> None:
    """READY=1, WATCHDOG=1, STATUS=… Nobody is told where nobody asked; what cannot be delivered in time is lost."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as told, suppress(OSError):
        # A manager that hangs takes nothing.
        told.settimeout(READY_SECONDS if "READY=1" in assignments else MOST_SECONDS)
        told.sendto("\n".join(assignments).encode(), address)


def watchdog_seconds() -> float | None:
    """How long the manager waits for WATCHDOG=1 before it takes this process for hung; None: it does not wait."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = os.environ.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isascii() and text.isdigit() and int(text) else None
