"""Promises of ethtool's netlink family without a driver: profiles in bytes, and their number of levels."""

from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from napctl.kernel.ethtool import Ethtool
from napctl.kernel.netlink import NetlinkSocket
from napctl.model.errors import BadInput
from napctl.model.machine import Coalescing, DimProfile

LEVELS = tuple(DimProfile(usecs=usecs, pkts=64) for usecs in (5, 8, 14, 24, 40))

# Recorded from Linux 7.3.4 (x86-64) with virtio_net, whose device had VIRTIO_NET_F_VQ_NOTF_COAL, at ifindex 8:
# the message behind struct nlmsghdr, that is behind its length, type, flags and so on.
SET_PROFILE = bytes.fromhex(
    "140100000c0001800800010008000000"
    "68001d80"
    "14000180080001000500000008000200400000001400018008000100080000000800020040000000"
    "14000180080001000e00000008000200400000001400018008000100180000000800020040000000"
    "14000180080001002800000008000200 40000000"
)
"""A request that the kernel took."""
REPLY = bytes.fromhex(
    "14010000180001800800010008000000090002006574683000000000"
    "0800020000000000080003000000000008000600000000000800070001000000"
    "05000b0000000000"
    "68001d80"
    "14000180080001000500000008000200400000001400018008000100080000000800020040000000"
    "14000180080001000e00000008000200400000001400018008000100180000000800020040000000"
    "14000180080001002800000008000200 40000000"
)
"""What it answered afterwards when it was asked."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Ethtool, list[bytes]]]:
    """The family, to whose requests REPLY is the answer, and the requests."""
    requests: list[bytes] = []

    def answer(self: NetlinkSocket, kind: int, payload: bytes, **_: object) -> Iterator[memoryview]:
        requests.append(payload)
        yield memoryview(REPLY)

    with Ethtool() as ethtool:
        monkeypatch.setattr(NetlinkSocket, "ask", answer)
        yield ethtool, requests


def test_a_real_reply_with_levels_is_read(asked: tuple[Ethtool, list[bytes]]) -> None:
    ethtool, _ = asked
    assert ethtool.coalescing(8) == Coalescing(
        rx_usecs=0, rx_max_frames=0, tx_usecs=0, tx_max_frames=1, use_adaptive_rx=False, rx_profile=LEVELS
    )


def test_levels_are_asked_for_in_the_bytes_that_a_kernel_took(asked: tuple[Ethtool, list[bytes]]) -> None:
    ethtool, requests = asked
    ethtool.set_coalescing(8, Coalescing(rx_profile=LEVELS))
    assert requests == [SET_PROFILE]


@pytest.mark.parametrize("name", ["rx_profile", "tx_profile"])
@pytest.mark.parametrize("number", [0, 4, 6])
def test_no_other_number_of_levels_reaches_the_kernel(
    name: str, number: int, asked: tuple[Ethtool, list[bytes]]
) -> None:
    """Which wrote a sixth behind the end of its array (ethnl_update_profile(), until commit 7281b096b072)."""
    ethtool, requests = asked
    wanted = replace(Coalescing(), **{name: (LEVELS * 2)[:number]})
    with pytest.raises(BadInput, match=f"it has {number} levels, and the kernel takes 5"):
        ethtool.set_coalescing(8, wanted)
    assert not requests
