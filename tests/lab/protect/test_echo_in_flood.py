"""A TCP echo in a flood, as ssh would be: beside it on the same CPU, and amid it in the same queue."""

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import pytest

from napctl.lab.bed import End, Lab
from napctl.lab.flood import FloodSpec, peak_per_second, started_flood, udp_server
from tests.lab.flooded import let_packets_take_the_cpu
from tests.lab.helpers import Napctl
from tests.lab.protect.echoes import QUICK_MS, Typing, echoing, protecting, second_device, typing

pytestmark = [pytest.mark.lab, pytest.mark.alone, pytest.mark.long]

SECONDS = 12.0


@dataclass(frozen=True)
class Bed:
    """Two devices whose packets come to CPU 1, where their server and an echo run; the first will be flooded."""

    lab: Lab
    near: End
    far: End
    peak: float


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    with (
        Lab.build(server_cpu=1, client_cpu=0) as lab,
        second_device(lab) as (near, far),
        udp_server(lab),
        echoing(lab),
    ):
        let_packets_take_the_cpu(lab.server, near)
        yield Bed(lab, near, far, peak_per_second(lab, past_stack=True))


def in_a_flood(bed: Bed, end: End, address: str) -> Typing:
    """Of four times the peak. Whoever types has begun before it."""
    spec = FloodSpec(rate_per_second=4 * bed.peak, seconds=SECONDS, past_stack=True)
    with typing(end, address) as letters:
        time.sleep(0.3)
        with started_flood(bed.lab, spec) as running:
            sent = running.result().sent_per_second
    assert sent > 3.5 * bed.peak, f"the generator made {sent / bed.peak:.1f} times the peak only"
    return letters


@pytest.mark.parametrize("protected", [False, True])
def test_beside_the_flooded_device_letters_come_back_at_once(protected: bool, bed: Bed, napctl: Napctl) -> None:
    with protecting(bed.lab, napctl) if protected else nullcontext():
        letters = in_a_flood(bed, bed.far, bed.near.address)
    print(f"beside it, {'protected' if protected else 'unprotected'}: {letters}")
    assert letters.failed == ""
    if protected:
        assert letters.percentile_ms(0.99) < QUICK_MS


@pytest.mark.parametrize("protected", [False, True])
def test_amid_the_flood_the_connection_stays(protected: bool, bed: Bed, napctl: Napctl) -> None:
    with protecting(bed.lab, napctl) if protected else nullcontext():
        letters = in_a_flood(bed, bed.lab.client, bed.lab.server.address)
    print(f"amid it, {'protected' if protected else 'unprotected'}: {letters}")
    assert letters.failed == ""
