"""XDP programs of a few instructions, and a process that receives by AF_XDP, on a lab's device."""

import ctypes
import os
import socket
import struct
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from napctl.kernel import bpf, open_files, processes
from napctl.kernel.epoll_instances import ask_sockets
from napctl.kernel.sockets import is_xdp
from napctl.kernel.xdp import exchange_program
from napctl.lab.bed import End

MAP_CREATE, PROG_LOAD = 0, 5
MAP_TYPE_XSKMAP, PROG_TYPE_XDP = 17, 6
XDP_DROP, XDP_PASS = 1, 2

RECEIVER = """
    import ctypes, mmap, os, socket, struct, time
    SOL_XDP, FRAMES, SIZE, FILL = 283, 64, 4096, 0x100000000
    here = socket.socket(44, socket.SOCK_RAW, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    def check(result):
        if result:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    area = mmap.mmap(-1, FRAMES * SIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    registration = struct.pack("=QQIIII", address, FRAMES * SIZE, SIZE, 0, 0, 0)
    check(libc.setsockopt(here.fileno(), SOL_XDP, 4, registration, len(registration)))
    for ring in (5, 6, 2):  # XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING, XDP_RX_RING
        here.setsockopt(SOL_XDP, ring, FRAMES)
    # Of rx, tx, fill, completion: producer, consumer, descriptors, flags.
    offsets = struct.unpack("=16Q", here.getsockopt(SOL_XDP, 1, 128))
    producer, _, entries, _ = offsets[8:12]
    receives = mmap.mmap(here.fileno(), offsets[2] + 16 * FRAMES)
    fill = mmap.mmap(here.fileno(), entries + 8 * FRAMES, offset=FILL)
    for frame in range(FRAMES):
        struct.pack_into("=Q", fill, entries + 8 * frame, frame * SIZE)
    struct.pack_into("=I", fill, producer, FRAMES)
    here.setsockopt(socket.SOL_SOCKET, 69, PREFERS)  # SO_PREFER_BUSY_POLL
    # struct sockaddr_xdp: family, flags (XDP_COPY), ifindex, queue, shared descriptor
    bound = struct.pack("=HHIII", 44, 2, socket.if_nametoindex("DEVICE"), 0, 0)
    check(libc.bind(here.fileno(), bound, len(bound)))
    print("ready", flush=True)
    taken = 0
    while True:  # whatever has come into the ring is free again
        (there,) = struct.unpack_from("=I", receives, offsets[0])
        while taken < there:
            (frame,) = struct.unpack_from("=Q", receives, offsets[2] + 16 * (taken % FRAMES))
            struct.pack_into("=Q", fill, entries + 8 * (taken % FRAMES), frame - frame % SIZE)
            taken += 1
        struct.pack_into("=I", receives, offsets[1], taken)
        struct.pack_into("=I", fill, producer, FRAMES + taken)
        time.sleep(0.001)
"""


def instruction(code: int, destination: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("=BBhi", code, destination | source << 4, offset, value)


def verdict(value: int) -> bytes:
    """A program that says the same of each packet."""
    return instruction(0xB7, 0, value=value) + instruction(0x95)  # r0 = value; exit


def to_socket(map_fd: int) -> bytes:
    """A program that gives a packet to the socket of its queue, and to the stack if there is none."""
    return b"".join((
        instruction(0x61, 2, 1, 16),  # r2 = ctx->rx_queue_index
        instruction(0x18, 1, 1, value=map_fd), instruction(0),  # r1 = the map
        instruction(0xB7, 3, value=XDP_PASS),
        instruction(0x85, value=51),  # bpf_redirect_map(r1, r2, r3)
        instruction(0x95),
    ))  # fmt: skip


def loaded(code: bytes) -> int:
    """A descriptor of that XDP program, called "census"."""
    held, licence = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"GPL")
    addresses = ctypes.addressof(held), ctypes.addressof(licence)
    attribute = struct.pack("=IIQQIIQII16s", PROG_TYPE_XDP, len(code) // 8, *addresses, 0, 0, 0, 0, 0, b"census")
    return system_call(PROG_LOAD, attribute)


def socket_map() -> int:
    """A descriptor of a map of one AF_XDP socket."""
    return system_call(MAP_CREATE, struct.pack("=IIIII", MAP_TYPE_XSKMAP, 4, 4, 1, 0))


def system_call(command: int, attribute: bytes) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.syscall(bpf.SYS_BPF[os.uname().machine], command, attribute, len(attribute))
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return fd


@contextmanager
def attached(end: End, code: bytes, *, generic: bool) -> Iterator[int]:
    """That program on an end's device; its descriptor."""
    fd = loaded(code)
    with end.namespace.entered():
        ifindex = socket.if_nametoindex(end.device)
    try:
        exchange_program(end.namespace, ifindex, fd, None, generic=generic)
        yield fd
        exchange_program(end.namespace, ifindex, None, fd, generic=generic)
    finally:
        os.close(fd)


def receiver_code(device: str, *, prefers: bool = False) -> str:
    """Of a Python program that says "ready" once it has one."""
    return textwrap.dedent(RECEIVER).replace("PREFERS", str(int(prefers))).replace("DEVICE", device)


@contextmanager
def receiver(end: End, *, prefers: bool = False) -> Iterator[int]:
    """A process with an AF_XDP socket on the first queue of an end's device; its pid."""
    code = receiver_code(end.device, prefers=prefers)
    process = end.start([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            _, why = process.communicate()
            pytest.skip(f"this kernel does not allow it: {why.decode().splitlines()[-1:]}")
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def give_socket(pid: int, map_fd: int) -> None:
    """Put that process's AF_XDP socket into a map."""
    fds = sorted(open_files.open_files(pid).sockets)
    with processes.Handle(pid) as handle:
        (fd, *_) = [fd for fd, yes in ask_sockets(handle, fds, is_xdp) if yes]
        with handle.copy_of(fd) as copy:
            bpf.update(map_fd, struct.pack("=I", 0), struct.pack("=I", copy))
