"""A server beside a storm: what it still answers, with storm control and without."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from napctl.change.journal import Journal
from napctl.lab.bed import Lab
from napctl.lab.flood import FloodSpec, flood, peak_per_second, started_flood, udp_server
from napctl.model.storm import Reason, limits_of
from tests.lab.flooded import let_packets_take_the_cpu
from tests.lab.protect.conftest import armed

pytestmark = [pytest.mark.lab, pytest.mark.alone, pytest.mark.long]

SECONDS = 2.0
TRIALS = 3
RULES = 12_000
"""So many that a generator on one CPU can make four times the peak, also of broadcasts, which it gets back itself."""
STORMS: dict[Reason, tuple[str, int]] = {"broadcast": ("10.199.0.255", 9), "no listener": ("", 9)}


@dataclass(frozen=True)
class Bed:
    """One in which packets are dear, and what its server answers at most."""

    lab: Lab
    peak: float

    def goodput(self, storm: Reason | None = None) -> float:
        """Answers per second at half the peak, as a part of what was asked; beside a storm of four times the peak."""
        asked = FloodSpec(rate_per_second=self.peak / 2, seconds=SECONDS)
        if storm is None:
            return self._share(asked)
        host, port = STORMS[storm]
        against = FloodSpec(rate_per_second=4 * self.peak, seconds=SECONDS + 5, host=host, port=port)
        with started_flood(self.lab, against) as running:
            running.wait_until_sending()
            share = self._share(asked)
            sent = running.stop().sent_per_second
        assert sent > 3 * self.peak, f"the generator made {sent / self.peak:.1f} times the peak only"
        return share

    def _share(self, asked: FloodSpec) -> float:
        found = flood(self.lab, asked)
        return found.answered_per_second(0.5) / asked.rate_per_second


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    with Lab.build(server_cpu=1, client_cpu=0) as lab, udp_server(lab):
        let_packets_take_the_cpu(lab.server, rules=RULES)
        yield Bed(lab, peak_per_second(lab))


@pytest.mark.parametrize("storm", STORMS)
def test_a_server_keeps_its_goodput_in_a_storm(storm: Reason, bed: Bed, journal: Journal) -> None:
    quiet, without = bed.goodput(), bed.goodput(storm)
    here = armed(journal, bed.lab)
    limited = here.control.limit(journal, here.transaction, limits_of(200))
    # Generator, ring and receiver share two CPUs with all else that runs: noise makes less of it, never more.
    kept = max(bed.goodput(storm) for _ in range(TRIALS))
    counts = here.control.counts()
    here.control.disarm(journal, limited.transaction)

    said = (
        f"peak {bed.peak:,.0f}/s; at half of it: {quiet:.3f}, in the storm {without:.3f}, with storm control {kept:.3f}"
    )
    print(said)
    assert kept >= 0.95 * quiet, said
    assert without < kept, said
    assert counts.by_reason[storm].dropped_packets > bed.peak, counts
