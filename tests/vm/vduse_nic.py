"""A network device that this process is: virtio-net over VDUSE (Documentation/userspace-api/vduse.rst), with interrupt
moderation per queue, which no device that QEMU emulates has (VIRTIO_NET_F_VQ_NOTF_COAL).

`python -m tests.vm.vduse_nic NAME RATE`: receives at most RATE packets a second from nowhere, and never two at once, so
that packets which share an interrupt are its moderation's doing however busy the machine is. For each line on standard
input, which may give another RATE, it writes what it did so far, as JSON. It ends with its standard input.

The kernel refuses a network device with a control queue, as a process that does not answer would block all of rtnetlink
(commit 56e71885b034); loaded() loads its module without that refusal.
"""

import json
import lzma
import mmap
import os
import platform
import select
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fcntl import ioctl
from pathlib import Path

NET = 1
MAC, STATUS, CTRL_VQ, VERSION_1, ACCESS_PLATFORM, VQ_NOTF_COAL, NOTF_COAL = 5, 16, 17, 32, 33, 52, 53
FEATURES = sum(1 << bit for bit in (MAC, STATUS, CTRL_VQ, VERSION_1, ACCESS_PLATFORM, VQ_NOTF_COAL, NOTF_COAL))
RX, TX, CONTROL = range(3)
QUEUES, SIZE = 3, 256
ADDRESS = bytes.fromhex("02766475736f")
CONFIG = ADDRESS + struct.pack("<HH", 1, 1)  # link up, one pair of queues
DRIVER_OK = 4
GET_VQ_STATE, SET_STATUS, UPDATE_IOTLB = range(3)
MESSAGE = 152
"""Bytes of a request and of a response."""
NEXT, WRITABLE = 1, 2
NO_INTERRUPT = 1
COALESCE, RX_SET, VQ_SET = 6, 1, 2
"""Class and commands on the control queue (Virtual I/O Device, 5.1.6.5.9)."""
HEADER = struct.pack("<BBHHHHH", 0, 0, 0, 0, 0, 0, 1)  # of each packet: one buffer
FRAME = ADDRESS + bytes.fromhex("020000000001") + b"\x88\xb5" + bytes(186)  # local experimental: nobody answers

UNSIGNED_MODULE = 1 << 13
"""The taint that loaded() leaves (Documentation/admin-guide/tainted-kernels.rst)."""


def loaded() -> None:
    """Load vduse and virtio_vdpa. In the guest: the module is changed, without which the kernel refuses the device."""
    if Path("/dev/vduse").exists():
        return
    subprocess.run(["modprobe", "--all", "vdpa", "vhost_iotlb", "virtio_vdpa"], check=True)
    kernel = Path("/lib/modules") / platform.release()
    module = lzma.decompress((kernel / "kernel/drivers/vdpa/vdpa_user/vduse.ko.xz").read_bytes())
    refusal = b"\xa9" + struct.pack("<I", 1 << CTRL_VQ)  # test $0x20000, %eax
    assert module.count(refusal) == 1, "vduse.ko is compiled otherwise: features_is_valid() has to be found anew"
    module = module.replace(refusal, b"\xa9" + bytes(4)).removesuffix(b"~Module signature appended~\n")
    changed = Path("/tmp/vduse.ko")
    changed.write_bytes(module)
    subprocess.run(["insmod", changed], check=True)


def _ioc(direction: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | 0x81 << 8 | number


CREATE_DEV, DESTROY_DEV = _ioc(1, 2, 336), _ioc(1, 3, 256)
IOTLB_GET_FD, VQ_SETUP, VQ_GET_INFO = _ioc(3, 0x10, 32), _ioc(1, 0x14, 32), _ioc(3, 0x15, 48)
VQ_SETUP_KICKFD, VQ_INJECT_IRQ = _ioc(1, 0x16, 8), _ioc(1, 0x17, 4)


@dataclass
class Moderation:
    """Of one queue: what the driver asked for, and what waits for its interrupt since when."""

    usecs: int = 0
    packets: int = 0
    waiting: int = 0
    since: float = 0


@dataclass
class Done:
    """What the device did."""

    packets: int = 0
    interrupts: int = 0
    asked: list[tuple[int, int]] = field(default_factory=list)
    """(µs, packets) of each time that the driver set the moderation of the RX queue."""


class Memory:
    """What the driver shares, by its I/O addresses."""

    def __init__(self, device: int):
        self._device = device
        self._regions: list[tuple[int, int, mmap.mmap]] = []

    def forget(self) -> None:
        """All of it, as the mappings have changed."""
        self._regions.clear()

    def at(self, address: int) -> tuple[mmap.mmap, int]:
        """(region, offset in it)."""
        for start, last, region in self._regions:
            if start <= address <= last:
                return region, address - start
        entry = bytearray(struct.pack("<QQQB7x", 0, address, address, 0))
        file = ioctl(self._device, IOTLB_GET_FD, entry)
        offset, start, last, permission = struct.unpack("<QQQB7x", entry)
        protection = {1: mmap.PROT_READ, 2: mmap.PROT_WRITE}.get(permission, mmap.PROT_READ | mmap.PROT_WRITE)
        region = mmap.mmap(file, last - start + 1, mmap.MAP_SHARED, protection, offset=offset)
        os.close(file)
        self._regions.append((start, last, region))
        return region, address - start

    def read(self, address: int, length: int) -> bytes:
        """Bytes of the driver's."""
        region, offset = self.at(address)
        return region[offset : offset + length]

    def write(self, address: int, data: bytes) -> None:
        """Bytes for the driver."""
        region, offset = self.at(address)
        region[offset : offset + len(data)] = data


class Queue:
    """A split virtqueue, from the device's side (Virtual I/O Device, 2.7)."""

    def __init__(self, device: int, memory: Memory, index: int):
        self._device, self._memory, self._index = device, memory, index
        info = bytearray(struct.pack("<IIQQQ8sB7x", index, 0, 0, 0, 0, b"", 0))
        ioctl(device, VQ_GET_INFO, info)
        _, self._size, self._descriptors, self._available, self._used, _, _ = struct.unpack("<IIQQQ8sB7x", info)
        self._next = self._count = 0
        self.kick = os.eventfd(0, os.EFD_NONBLOCK)
        ioctl(device, VQ_SETUP_KICKFD, struct.pack("<Ii", index, self.kick))

    def take(self) -> tuple[int, list[tuple[int, int, bool]]] | None:
        """The next chain: (its number, [(address, length, writable)]); None if there is none."""
        (offered,) = struct.unpack("<H", self._memory.read(self._available + 2, 2))
        if offered == self._next:
            return None
        at = self._available + 4 + 2 * (self._next % self._size)
        (head,) = struct.unpack("<H", self._memory.read(at, 2))
        self._next = (self._next + 1) % 2**16
        chain, number, flags = [], head, NEXT
        while flags & NEXT:
            address, length, flags, following = struct.unpack(
                "<QIHH", self._memory.read(self._descriptors + 16 * number, 16)
            )
            chain.append((address, length, bool(flags & WRITABLE)))
            number = following
        return head, chain

    def give(self, head: int, written: int) -> None:
        """Back to the driver."""
        at = self._used + 4 + 8 * (self._count % self._size)
        self._memory.write(at, struct.pack("<II", head, written))
        self._count = (self._count + 1) % 2**16
        self._memory.write(self._used + 2, struct.pack("<H", self._count))

    def interrupt(self) -> bool:
        """Unless the driver polls and wants none."""
        (flags,) = struct.unpack("<H", self._memory.read(self._available, 2))
        if flags & NO_INTERRUPT:
            return False
        with suppress(OSError):  # the driver is not ready yet
            ioctl(self._device, VQ_INJECT_IRQ, struct.pack("<I", self._index))
        return True


class Nic:
    """The device, from its creation on."""

    def __init__(self, name: str, rate: float):
        self._interval, self._due = 1 / rate, 0.0
        self._control = os.open("/dev/vduse/control", os.O_RDWR)
        config = struct.pack("<256sIIQII52xI", name.encode(), 0, NET, FEATURES, QUEUES, mmap.PAGESIZE, len(CONFIG))
        ioctl(self._control, CREATE_DEV, config + CONFIG)
        self._name, path = name, Path("/dev/vduse") / name
        while not path.exists():
            time.sleep(0.01)
        self._device = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        for index in range(QUEUES):
            ioctl(self._device, VQ_SETUP, struct.pack("<IHHI20x", index, SIZE, 0, 0))
        self._memory = Memory(self._device)
        self._queues: list[Queue] = []
        self._moderation, self.done = Moderation(), Done()
        self._poll = select.epoll()
        for file in (self._device, sys.stdin.fileno()):
            self._poll.register(file, select.EPOLLIN)

    def run(self) -> None:
        """Until standard input ends."""
        while True:
            ready = {file for file, _ in self._poll.poll(self._patience())}
            if self._device in ready:
                self._answer()
            for queue in self._queues:
                if queue.kick in ready:
                    os.eventfd_read(queue.kick)
            if self._queues:
                self._serve_control()
                self._send()
                self._receive()
            if sys.stdin.fileno() in ready:
                line = sys.stdin.readline()
                if not line:
                    return
                self._interval = 1 / float(line) if line.strip() else self._interval
                print(json.dumps(vars(self.done)), flush=True)

    def destroy(self) -> None:
        """After the vdpa device is gone."""
        os.close(self._device)
        ioctl(self._control, DESTROY_DEV, struct.pack("256s", self._name.encode()))

    def _patience(self) -> float | None:
        if not self._queues:
            return None
        now, moderation = time.monotonic(), self._moderation
        ends = [self._due, *([moderation.since + moderation.usecs / 1e6] if moderation.waiting else [])]
        return max(0, min(ends) - now)

    def _answer(self) -> None:
        """The kernel's messages about the device."""
        request = os.read(self._device, MESSAGE)
        kind, number = struct.unpack_from("<II", request)
        payload = b""
        if kind == SET_STATUS:
            ready = bool(request[24] & DRIVER_OK)
            if ready and not self._queues:
                self._queues = [Queue(self._device, self._memory, index) for index in range(QUEUES)]
                for queue in self._queues:
                    self._poll.register(queue.kick, select.EPOLLIN)
                self._due = time.monotonic()
            if not ready:
                for queue in self._queues:
                    self._poll.unregister(queue.kick)
                    os.close(queue.kick)
                self._queues = []
        elif kind == UPDATE_IOTLB:
            self._memory.forget()
        else:
            payload = request[24:32]  # GET_VQ_STATE: nobody asks for it but who migrates
        os.write(self._device, struct.pack(f"<II16x{len(payload)}s", number, 0, payload).ljust(MESSAGE, b"\0"))

    def _serve_control(self) -> None:
        for head, chain in self._taken(CONTROL):
            asked = b"".join(self._memory.read(at, length) for at, length, writable in chain if not writable)
            if asked[0] == COALESCE and asked[1] in (RX_SET, VQ_SET):
                vector = struct.unpack_from("<H", asked, 2)[0] if asked[1] == VQ_SET else RX
                packets, usecs = struct.unpack_from("<II", asked, 2 if asked[1] == RX_SET else 6)
                if vector == RX:
                    self._moderation.usecs, self._moderation.packets = usecs, packets
                    self.done.asked.append((usecs, packets))
            at, _, _ = chain[-1]
            self._memory.write(at, b"\0")
            self._queues[CONTROL].give(head, 1)
            self._queues[CONTROL].interrupt()

    def _send(self) -> None:
        """To nowhere."""
        sent = False
        for head, _ in self._taken(TX):
            self._queues[TX].give(head, 0)
            sent = True
        if sent:
            self._queues[TX].interrupt()

    def _receive(self) -> None:
        """The interrupt whose time has come; then the packet that is due. What was missed meanwhile is not made up."""
        now, moderation = time.monotonic(), self._moderation
        if moderation.waiting and now >= moderation.since + moderation.usecs / 1e6:
            self._interrupt()
        if now < self._due:
            return
        self._due = now + self._interval
        taken = self._queues[RX].take()
        if taken is None:
            return
        head, chain = taken
        rest = HEADER + FRAME
        for at, length, _ in chain:
            self._memory.write(at, rest[:length])
            rest = rest[length:]
        self._queues[RX].give(head, len(HEADER + FRAME))
        self.done.packets += 1
        moderation.since = moderation.since if moderation.waiting else now
        moderation.waiting += 1
        if moderation.usecs == 0 or (moderation.packets and moderation.waiting >= moderation.packets):
            self._interrupt()

    def _interrupt(self) -> None:
        self.done.interrupts += self._queues[RX].interrupt()
        self._moderation.waiting = 0

    def _taken(self, index: int) -> Iterator[tuple[int, list[tuple[int, int, bool]]]]:
        while (taken := self._queues[index].take()) is not None:
            yield taken


if __name__ == "__main__":
    loaded()
    nic = Nic(sys.argv[1], float(sys.argv[2]))
    print("ready", flush=True)
    nic.run()
    nic.destroy()
