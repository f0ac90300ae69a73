"""A program that takes packets by AF_XDP itself is known by its socket, and by its rings whether it keeps up."""

import os
import signal
from pathlib import Path

import pytest

from napctl.lab.bed import Lab
from tests.lab.census.test_take_census import datagrams
from tests.lab.census.testpmd import looked
from tests.lab.census.xdp import attached, give_socket, receiver, socket_map, to_socket
from tests.lab.helpers import until

pytestmark = pytest.mark.lab


def test_a_receiver_of_af_xdp_is_named_with_its_device_and_queue(lab: Lab, state: Path) -> None:
    with receiver(lab.server) as pid:
        found = looked(state, pid, 0.1)
    assert (found.kind, found.devices, found.threads) == ("AF_XDP", (lab.server.device,), ())
    (evidence,) = found.evidence  # by sock_diag, or where this kernel lacks xsk_diag by the queue
    assert evidence.startswith(f"an AF_XDP socket on queue 0 of {lab.server.device} [")
    assert found.trouble is None


def test_one_that_leaves_its_rings_full_is_told_that_it_does_not_keep_up(lab: Lab, state: Path) -> None:
    def lost() -> int:
        really = looked(state, pid, 0.1).really
        assert really is not None
        return really.lost or 0

    sockets = socket_map()
    try:
        with attached(lab.server, to_socket(sockets), generic=True), receiver(lab.server) as pid:
            assert lost() == 0
            give_socket(pid, sockets)
            os.kill(pid, signal.SIGSTOP)
            with datagrams(lab):
                until(lost, "packets for which it has no place")
    finally:
        os.close(sockets)
