"""Who is outside the virtual machine, at the other end of e1000e2's wire: it floods the guest when a test there asks.

`scripts/run-in-vm --outside` runs it in the host, in a network namespace that has nothing of the host's.
"""

import json
import socket
import subprocess
from pathlib import Path

from napctl.lab.compiled import compiled
from napctl.lab.flood import FloodResult
from napctl.model.value import from_json
from tests.vm.wire import run

DEVICE, ADDRESS, PORT = "e1000e2", "10.0.4.1", 7000
"""In the guest: what it floods."""
OUTSIDE_DEVICE, OUTSIDE_ADDRESS, CONTROL_PORT = "outside", "10.0.4.2", 7001
PATIENCE_S = 60
"""After the end of a flood, whose last packets are still to be taken."""


def answer(connection: socket.socket) -> None:
    """One line with the rate, the seconds and the server's MAC address; the flood's own output, or what it complained
    of, in answer."""
    with connection.makefile("r") as asked:
        rate, seconds, mac = json.loads(asked.readline())
    options = {"host": ADDRESS, "port": PORT, "rate": rate, "seconds": seconds, "device": OUTSIDE_DEVICE, "mac": mac}
    command = [str(compiled("flood")), *(f"--{name}={value}" for name, value in options.items())]
    done = subprocess.run(command, capture_output=True, check=False)
    connection.sendall(done.stdout or done.stderr)


def flooded(rate: float, seconds: float) -> FloodResult:
    """For a test in the guest: what came of a flood of its server. Waits for its end."""
    mac = Path(f"/sys/class/net/{DEVICE}/address").read_text().strip()
    with socket.create_connection((OUTSIDE_ADDRESS, CONTROL_PORT), PATIENCE_S) as connection:
        connection.sendall(f"{json.dumps([rate, seconds, mac])}\n".encode())
        connection.settimeout(seconds + PATIENCE_S)
        with connection.makefile("rb") as answered:
            return from_json(answered.read(), FloodResult)


def main() -> None:
    run("ip", "address", "add", f"{OUTSIDE_ADDRESS}/24", "dev", OUTSIDE_DEVICE)
    with socket.create_server((OUTSIDE_ADDRESS, CONTROL_PORT)) as listener:
        while True:
            connection, _ = listener.accept()
            with connection:
                answer(connection)


if __name__ == "__main__":
    main()
