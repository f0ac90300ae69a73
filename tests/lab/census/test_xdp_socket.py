"""A program that takes packets by AF_XDP itself is known by its socket."""

from pathlib import Path

import pytest

from napctl.lab.bed import Lab
from tests.lab.census.testpmd import looked
from tests.lab.census.xdp import receiver

pytestmark = pytest.mark.lab


def test_a_receiver_of_af_xdp_is_named_with_its_device_and_queue(lab: Lab, state: Path) -> None:
    with receiver(lab.server) as pid:
        found = looked(state, pid, 0.1)
    assert (found.kind, found.devices, found.threads) == ("AF_XDP", (lab.server.device,), ())
    (evidence,) = found.evidence  # by sock_diag, or where this kernel lacks xsk_diag by the queue
    assert evidence.startswith(f"an AF_XDP socket on queue 0 of {lab.server.device} [")
    assert found.trouble is None
