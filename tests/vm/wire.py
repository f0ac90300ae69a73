"""Two NICs on one cable, each in a network namespace of its own."""

import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

DEFERRAL = ("napi_defer_hard_irqs", "gro_flush_timeout")
LINK_S = 30
"""The e1000e's link needs 2 s after it is up, emulated or not."""


def run(*command: str) -> str:
    """What a command that must not fail writes."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@dataclass(frozen=True)
class Wire:
    """Its near end is in this network namespace, its far end in `peer_namespace` (a name, as of `ip netns`)."""

    device: str = "e1000e0"
    driver: str = "e1000e"
    address: str = "10.0.0.1"
    peer: str = "virtio0"
    peer_address: str = "10.0.0.2"
    peer_namespace: str = "peer"

    @contextmanager
    def laid(self) -> Iterator["Wire"]:
        run("ip", "netns", "add", self.peer_namespace)
        run("ip", "link", "set", self.peer, "netns", self.peer_namespace)
        try:
            self.in_peer("ip", "link", "set", "lo", "up")
            for run_in, device, address in (
                (run, self.device, self.address),
                (self.in_peer, self.peer, self.peer_address),
            ):
                run_in("sysctl", "-qw", f"net.ipv6.conf.{device}.disable_ipv6=1")  # no packets that no test sent
                run_in("ip", "address", "add", f"{address}/24", "dev", device)
                run_in("ip", "link", "set", device, "up")
            self.wait_for_link()
            yield self
        finally:
            run("ip", "netns", "delete", self.peer_namespace)

    def in_peer(self, *command: str) -> str:
        """The same from the other end."""
        return run("ip", "netns", "exec", self.peer_namespace, *command)

    def wait_for_link(self) -> None:
        """Until packets flow: after the wire was laid, or after a change that took the link down."""
        carrier = Path(f"/sys/class/net/{self.device}/carrier")
        end = time.monotonic() + LINK_S
        while carrier.read_text().strip() != "1":
            assert time.monotonic() < end, f"{self.device} has no link"
            time.sleep(0.1)
        self.ping(1)

    def ping(self, packets: int, interval_s: float = 0.01) -> None:
        """From the far end; every packet must be answered. It takes `packets` x `interval_s`."""
        said = self.in_peer("ping", "-q", "-W", "10", "-c", str(packets), "-i", str(interval_s), self.address)
        assert f"{packets} received" in said, said

    def settings(self) -> Mapping[str, int]:
        """Coalescing parameters that the driver has, named as `ethtool -C` names them, and deferral as sysfs does."""
        listed = re.findall(r"^([a-z-]+):\s+(\d+)$", run("ethtool", "-c", self.device), re.MULTILINE)
        deferral = {name: int(self._file(name).read_text()) for name in DEFERRAL}
        return {**{name: int(value) for name, value in listed}, **deferral}

    def put_back(self, before: Mapping[str, int]) -> None:
        """What a test changed."""
        now = self.settings()
        for name, value in before.items():
            if now.get(name) == value:
                continue
            if name in DEFERRAL:
                self._file(name).write_text(str(value))
            else:
                run("ethtool", "-C", self.device, name, str(value))

    def _file(self, name: str) -> Path:
        return Path(f"/sys/class/net/{self.device}/{name}")
