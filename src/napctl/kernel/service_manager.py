"""What a service tells the manager that started it (sd_notify(3)): a datagram to $NOTIFY_SOCKET. And what systemd has
loaded of a unit, by systemctl(1)."""

import os
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress

__all__ = ["notify", "unit_properties", "watchdog_seconds"]


MOST_SECONDS, READY_SECONDS = 0.5, 30.0
"""To deliver one. What says READY=1 is said once, and a manager that does not hear it ends the service."""
ANSWER_SECONDS = 5.0
"""For what is asked of it."""


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


def unit_properties(unit: str, *names: str) -> Mapping[str, str] | None:
    """As it has loaded them; empty texts of a unit that it does not know. None: no systemd runs here, or it hangs."""
    command = ("systemctl", "show", *(f"--property={each}" for each in names), "--", unit)
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, errors="replace", timeout=ANSWER_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        return None
    told = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    return {name: told.get(name, "") for name in names}
