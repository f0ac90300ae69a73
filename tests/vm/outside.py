"""Who is outside the virtual machine, at the other end of e1000e2's wire: it floods the guest when a test there asks.

`scripts/run-in-vm --outside` runs it in the host, in a network namespace that has nothing of the host's.
"""

import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from napctl.lab.compiled import compiled
from napctl.lab.flood import FloodResult
from napctl.model.value import Value, from_json, to_json
from tests.vm.wire import run

DEVICE, ADDRESS, PORT = "e1000e2", "10.0.4.1", 7000
"""In the guest: what it floods."""
OUTSIDE_DEVICE, OUTSIDE_ADDRESS, CONTROL_PORT = "outside", "10.0.4.2", 7001
PATIENCE_S = 60
"""After the end of a flood, whose last packets are still to be taken."""


class Asked(Value, frozen=True, kw_only=True):
    """A flood."""

    rate: float
    seconds: float
    settling_seconds: float
    """Its beginning, which does not count."""
    mac: str


class Answered(Value, frozen=True, kw_only=True):
    """What came of it."""

    flood: FloodResult
    guest_cpu_seconds: float
    """What the host gave the guest's CPUs while it counted: a machine that has other work gives less."""
    settling_seconds: float

    @property
    def goodput(self) -> float:
        """Answers in each second that the guest's CPUs had. As many as in a second, where they always had one."""
        return sum(self.flood.answered_by_tenth[round(self.settling_seconds * 10) :]) / self.guest_cpu_seconds


def flooded(rate: float, seconds: float, settling_seconds: float) -> Answered:
    """For a test in the guest: flood its server, and wait for the end."""
    mac = Path(f"/sys/class/net/{DEVICE}/address").read_text().strip()
    asked = Asked(rate=rate, seconds=seconds, settling_seconds=settling_seconds, mac=mac)
    with socket.create_connection((OUTSIDE_ADDRESS, CONTROL_PORT), PATIENCE_S) as connection:
        connection.sendall(to_json(asked) + b"\n")
        connection.settimeout(seconds + PATIENCE_S)
        with connection.makefile("rb") as answered:
            return from_json(answered.read(), Answered)


# Outside.


@dataclass(frozen=True)
class Guest:
    """QEMU, which is in the same network namespace; one thread emulates all CPUs."""

    pid: int

    @classmethod
    def found(cls) -> "Guest":
        ours = Path("/proc/self/ns/net").readlink()
        for each in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended meanwhile
                if (each / "comm").read_text().startswith("qemu") and (each / "ns/net").readlink() == ours:
                    return cls(int(each.name))
        raise LookupError("there is no QEMU")

    def cpu_seconds(self) -> float:
        """Of that thread: no other but the first, which emulates the devices, has so much."""
        threads = Path(f"/proc/{self.pid}/task").iterdir()
        times = [int((each / "schedstat").read_text().split()[0]) for each in threads if each.name != str(self.pid)]
        return max(times) / 1e9


def answer(connection: socket.socket, guest: Guest) -> None:
    with connection.makefile("rb") as lines:
        asked = from_json(lines.readline(), Asked)
    options = {"host": ADDRESS, "port": PORT, "rate": asked.rate, "seconds": asked.seconds}
    options |= {"device": OUTSIDE_DEVICE, "mac": asked.mac}
    command = [str(compiled("flood")), *(f"--{name}={value}" for name, value in options.items())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as flood:
        assert flood.stderr is not None
        flood.stderr.readline()  # it has begun
        time.sleep(asked.settling_seconds)
        before = guest.cpu_seconds()
        time.sleep(asked.seconds - asked.settling_seconds)
        taken = guest.cpu_seconds() - before
        output, _ = flood.communicate()
    found = Answered(
        flood=from_json(output, FloodResult), guest_cpu_seconds=taken, settling_seconds=asked.settling_seconds
    )
    connection.sendall(to_json(found))


def main() -> None:
    run("ip", "address", "add", f"{OUTSIDE_ADDRESS}/24", "dev", OUTSIDE_DEVICE)
    with socket.create_server((OUTSIDE_ADDRESS, CONTROL_PORT)) as listener:
        while True:
            connection, _ = listener.accept()
            with connection:
                answer(connection, Guest.found())


if __name__ == "__main__":
    main()
