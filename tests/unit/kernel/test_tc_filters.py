"""Which filters the NIC executes: attributes made after include/uapi/linux/pkt_cls.h, as no NIC here takes any."""

import struct

import pytest

from napctl.kernel.tc_filters import in_hardware

IN_HW, NOT_IN_HW, SKIP_SW = 1 << 2, 1 << 3, 1 << 1


def attribute(number: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), number) + payload + b"\0" * (-len(payload) % 4)


def filter_of(kind: str, number: int, flags: int) -> bytes:
    options = attribute(1, struct.pack("=I", 7)) + attribute(number, struct.pack("=I", flags))
    return attribute(1, kind.encode() + b"\0") + attribute(2, options)


@pytest.mark.parametrize(("kind", "number"), [("flower", 22), ("matchall", 3), ("u32", 11), ("bpf", 9)])
def test_only_what_has_the_flag_is_in_hardware(kind: str, number: int) -> None:
    assert in_hardware(filter_of(kind, number, IN_HW | SKIP_SW))
    assert not in_hardware(filter_of(kind, number, NOT_IN_HW))
    assert not in_hardware(filter_of("fw", number, IN_HW))
    assert not in_hardware(b"")
