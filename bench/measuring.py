"""What measuring costs: requests/s of a saturated memcached while the meter of an experiment looks on, and without."""

from statistics import median

from napctl.experiment.meter import CellMeter
from napctl.lab.bed import Lab
from napctl.lab.load import LoadSpec, started
from napctl.lab.servers import Server, memcached
from napctl.load.lab import CLOSED_DEPTH, CONNECTIONS, KEYS_PER_GET

ROUNDS = 10
SECONDS = 1.5


def run() -> None:
    """Print the ratio of both, in rounds that take turns; and of two runs without, which is the noise."""
    ratios, noise = [], []
    with Lab.build() as lab, memcached(lab, keys=KEYS_PER_GET, value_bytes=8) as server:
        for number in range(ROUNDS):
            figures = {}
            for name in ("on", "off", "off again")[:: 1 if number % 2 else -1]:
                figures[name] = _saturated(lab, server, number, measured=name == "on")
            ratios.append(figures["on"] / figures["off"])
            noise.append(figures["off again"] / figures["off"])
    print("requests/s of a saturated memcached while an experiment measures, against without (aim: 0.99)")
    print(f"  measured / not  {median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f}), {ROUNDS} rounds")
    print(f"  not / not       {median(noise):.3f} ({min(noise):.3f}-{max(noise):.3f}): the noise")


def _saturated(lab: Lab, server: Server, seed: int, *, measured: bool) -> float:
    spec = LoadSpec(
        rate_per_second=0, seconds=SECONDS, connections=CONNECTIONS, keys_per_get=KEYS_PER_GET,
        closed_depth=CLOSED_DEPTH, seed=seed,
    )  # fmt: skip
    with started(lab, server, spec) as load:
        if not measured:
            return load.result().achieved_per_second
        with CellMeter(lab.server.namespace, [lab.server.device], [server.pid], cpus=[lab.server.cpu]) as meter:
            load.wait_for_warmup()
            meter.begin()
            result = load.result()
            meter.end()
            return result.achieved_per_second
