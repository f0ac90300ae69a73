"""A pid that means another program within a second: what napctl was asked to attach is changed, nothing else ever."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from napctl.lab.bed import Lab
from tests.lab.helpers import Napctl, state_of, until
from tests.meanwhile import again_and_again

pytestmark = pytest.mark.lab

SERVICE = Path(__file__).parents[1] / "services" / "reused.py"
PORT, PID = 5555, 300


def test_a_bystander_that_gets_the_pid_of_the_target_is_never_changed(lab: Lab, napctl: Napctl, tmp_path: Path) -> None:
    """With napctl in the same PID namespace, attaching by name as fast as it can, until some were attached."""
    before, told = state_of(lab.server), tmp_path / "told"
    with lab.client.namespace.entered():
        client = socket.socket(type=socket.SOCK_DGRAM)
    client.bind((lab.client.address, 0))

    def counted(name: str) -> tuple[int, int]:
        lines = [line.split() for line in told.read_text().splitlines() if line.startswith(name)]
        _, lived, changed = lines[-1] if lines else ("", 0, 0)
        return int(lived), int(changed)

    words = (lab.server.address, PORT, *client.getsockname(), PID)
    with lab.server.namespace.entered(), told.open("wb") as output:
        service = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, SERVICE, *map(str, words)],
            stdin=subprocess.PIPE, stdout=output,
        )  # fmt: skip
    with client, service, again_and_again(lambda: client.sendto(b"x", (lab.server.address, PORT)), 0.002):
        try:
            first = Path(f"/proc/{service.pid}/task/{service.pid}/children")
            inside = ["nsenter", "--target", until(first.read_text, "the service").strip(), "--pid", "--mount"]

            def some_were_attached() -> bool:
                done = napctl("attach", "name:target", "--window", 0, "--defer-us", 200, under=inside)
                assert done.status in (0, 2, 3, 6), done  # 3: it has received nothing yet
                assert done.status == 0 or done.stderr.splitlines()[-1].startswith("napctl: "), done
                return counted("target")[1] >= 1 and counted("bystander")[0] >= 4

            until(some_were_attached, "targets that were attached, and bystanders that had the pid")
            assert service.stdin
            service.stdin.close()
            service.wait(60)
        finally:
            service.kill()
    assert napctl("recover").status == 0
    assert counted("bystander")[1] == 0
    assert state_of(lab.server) == before
