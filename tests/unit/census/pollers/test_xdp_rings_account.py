"""Promises about packets that the rings of AF_XDP tell: all of them, or none."""

import pytest

from napctl.census.pollers import xdp_socket
from napctl.census.pollers.suspects import Suspect
from napctl.census.pollers.xdp_socket import XdpRings, rings_of, together
from napctl.kernel.processes import Process, process
from napctl.kernel.xdp_diag import BoundSocket
from napctl.kernel.xdp_rings import RingCounts, RingLosses

US = Process(2**22 + 1, "server", 1)


def suspect(*fds: int) -> Suspect:
    """Of two such sockets, with descriptors of some."""
    bound = tuple(BoundSocket(inode, 2, queue, zero_copy=None) for queue, inode in enumerate((11, 12)))
    links = {fd: f"socket:[{10 + fd}]" for fd in fds}
    return Suspect(process=US, mapped=frozenset({"socket:[11]", "socket:[12]"}), links=links, xdp=bound)


def test_where_one_has_no_descriptor_any_more_the_others_are_not_the_sum() -> None:
    assert rings_of(suspect()) is None
    assert rings_of(suspect(1)) is None
    both = rings_of(suspect(1, 2))
    assert both is not None
    assert both.sockets == {11: 1, 12: 2}


def test_counts_that_may_have_wrapped_tell_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter((2**32 - 10, 10, 30))
    monkeypatch.setattr(xdp_socket, "ring_counts", lambda *_: RingCounts(next(counts), None))
    ours = process(1)
    assert ours is not None
    rings = XdpRings(ours, {11: 1})
    assert rings.read().received == 0
    assert rings.read().received == 20
    assert rings._read_at is not None
    rings._read_at -= xdp_socket.SURE_SECONDS
    late = rings.read()
    assert (late.received, late.troubles) == (
        None, ("packets of its AF_XDP rings: their counts may wrap in 60 s",)
    )  # fmt: skip


def test_an_empty_fill_ring_says_something_only_where_the_nic_itself_would_drop() -> None:
    copies, zero_copy = RingLosses(1, 2, zero_copy=False), RingLosses(4, 8, zero_copy=True)
    not_told = RingLosses(16, 32, zero_copy=None)
    assert together([copies]) == RingLosses(1, 0, zero_copy=False)
    assert together([copies, zero_copy, not_told]) == RingLosses(21, 40, zero_copy=True)
