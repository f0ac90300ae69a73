"""What sock_diag tells of AF_XDP sockets: answers made after include/uapi/linux/xdp_diag.h."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from napctl.kernel.xdp_diag import BoundSocket, bound

ZERO_COPY = 1


def attribute(number: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), number) + payload + b"\0" * (-len(payload) % 4)


def answer(inode: int, ifindex: int, queue: int, flags: int | None = None) -> memoryview:
    """struct xdp_diag_msg, XDP_DIAG_INFO, and XDP_DIAG_UMEM where it has memory of its own."""
    data = struct.pack("=BBHIII", 44, 3, 0, inode, 1, 2) + attribute(1, struct.pack("=II", ifindex, queue))
    if flags is not None:
        data += attribute(5, struct.pack("=QIIIIIIII", 1 << 20, 7, 256, 4096, 0, ifindex, queue, flags, 1))
    return memoryview(data)


def test_a_socket_tells_its_queue_and_whether_it_is_zero_copy() -> None:
    told = list(bound([answer(900, 4, 3, ZERO_COPY), answer(901, 4, 2, 0), answer(902, 4, 1)]))
    assert told == [BoundSocket(900, 4, 3, True), BoundSocket(901, 4, 2, False), BoundSocket(902, 4, 1, None)]


def test_one_that_is_bound_to_nothing_is_none() -> None:
    assert list(bound([answer(900, 0, 0)])) == []


@given(st.integers(1, 2**32 - 1), st.integers(1, 2**31 - 1), st.integers(0, 2**32 - 1), st.none() | st.integers(0, 3))
def test_every_number_comes_through(inode: int, ifindex: int, queue: int, flags: int | None) -> None:
    (told,) = bound([answer(inode, ifindex, queue, flags)])
    assert (told.inode, told.ifindex, told.queue) == (inode, ifindex, queue)
    assert told.zero_copy == (None if flags is None else bool(flags & ZERO_COPY))
