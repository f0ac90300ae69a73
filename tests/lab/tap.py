"""A tap in a network namespace of its own, into which a process writes frames: a driver that accepts and ignores.

tun takes rx-max-frames and gathers frames only for those who say that more will come (MSG_MORE, which vhost does and
write(2) cannot; tun_rx_batched() in drivers/net/tun.c).
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from napctl.kernel.ethtool import Ethtool
from napctl.kernel.links import links
from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.machine import Coalescing
from tests.lab.helpers import in_namespace

DEVICE = "tap0"
WRITER = """
import fcntl, os, struct, sys, time
IFF_TAP, IFF_NO_PI, TUNSETIFF = 0x0002, 0x1000, 0x400454CA
tap = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", b"tap0", IFF_TAP | IFF_NO_PI))
print("made", flush=True)
sys.stdin.readline()
pause_s = float(sys.argv[1])
udp = bytes.fromhex("4500002e00000000401166a90a4d00020a4d0001") + bytes.fromhex("00090009001a0000") + bytes(18)
frame = bytes.fromhex("020000000001" "020000000002" "0800") + udp
while pause_s:
    os.write(tap, frame)
    time.sleep(pause_s)
time.sleep(1000)
"""


@dataclass
class Tap:
    """The namespace of `tap0`."""

    namespace: NetworkNamespace

    @property
    def here(self) -> tuple[str, str]:
        """To look into it."""
        return "--netns", f"/proc/{os.getpid()}/fd/{self.namespace.fd}"

    @property
    def frames(self) -> int | None:
        """rx-max-frames."""
        (ifindex,) = (link.ifindex for link in links(self.namespace) if link.name == DEVICE)
        with Ethtool(self.namespace) as ethtool:
            coalescing = ethtool.coalescing(ifindex)
        return coalescing.rx_max_frames if coalescing else None

    @frames.setter
    def frames(self, value: int) -> None:
        (ifindex,) = (link.ifindex for link in links(self.namespace) if link.name == DEVICE)
        with Ethtool(self.namespace) as ethtool:
            ethtool.set_coalescing(ifindex, Coalescing(rx_max_frames=value))


@contextmanager
def written_to(*, pause_s: float = 0.0002) -> Iterator[Tap]:
    """With a writer that pauses so long between frames; 0: it writes nothing."""
    with NetworkNamespace.create() as namespace:
        with namespace.entered():
            writer = subprocess.Popen(
                [sys.executable, "-c", WRITER, str(pause_s)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        with writer:
            try:
                assert writer.stdin
                assert writer.stdout
                assert writer.stdout.readline() == "made\n"
                address = ("address", "02:00:00:00:00:01", "addrgenmode", "none")  # no packets but the writer's
                in_namespace(namespace, "ip", "link", "set", DEVICE, *address, "up")
                writer.stdin.write("go\n")
                writer.stdin.flush()
                yield Tap(namespace)
            finally:
                writer.kill()
