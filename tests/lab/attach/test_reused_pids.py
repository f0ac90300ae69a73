"""A pid that means another program within a second: what napctl was asked to attach is changed, nothing else ever."""

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from napctl.lab.bed import Lab
from tests.lab.helpers import Napctl, state_of

pytestmark = pytest.mark.lab

SERVICE = Path(__file__).parents[1] / "services" / "reused.py"
SECONDS = 7
PORT, PID = 5555, 300


def test_a_bystander_that_gets_the_pid_of_the_target_is_never_changed(lab: Lab, napctl: Napctl) -> None:
    """With napctl in the same PID namespace, attaching by name as fast as it can."""
    before = state_of(lab.server)
    over = threading.Event()
    with lab.client.namespace.entered():
        client = socket.socket(type=socket.SOCK_DGRAM)
    client.bind((lab.client.address, 0))

    def feed() -> None:
        while not over.wait(0.002):
            client.sendto(b"x", (lab.server.address, PORT))

    words = (SECONDS, lab.server.address, PORT, *client.getsockname(), PID)
    with lab.server.namespace.entered():
        service = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, SERVICE, *map(str, words)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        first = Path(f"/proc/{service.pid}/task/{service.pid}/children")
        until_s = time.monotonic() + SECONDS - 2
        while not first.read_text():
            time.sleep(0.01)
        inside = ["nsenter", "--target", first.read_text().strip(), "--pid", "--mount"]
        while time.monotonic() < until_s:
            done = napctl("attach", "name:target", "--window", 0, "--defer-us", 200, under=inside)
            assert done.status in (0, 2, 3, 6), done  # 3: it has received nothing yet
            assert done.status == 0 or done.stderr.splitlines()[-1].startswith("napctl: "), done
        output, _ = service.communicate(timeout=60)
    finally:
        over.set()
        feeder.join()
        client.close()
        service.kill()
    assert napctl("recover").status == 0
    found = {name: (int(lived), int(changed)) for name, lived, changed in map(str.split, output.splitlines())}
    assert found["bystander"][0] >= 3, "it had the pid"
    assert found["bystander"][1] == 0
    assert found["target"][1] >= 1, "some were attached"
    assert state_of(lab.server) == before
