"""A load that steps 5,000 → 60,000 → 100,000 → 5,000 requests/s: who keeps a budget, and at what price?

    python -m bench.steps [--passes N] [--step SECONDS] [--times X]

memcached in the lab, one key for each request. First each fixed way has one pass; then the adapting one learns in a
pass that is not counted, and has N more. The budget is X times the least p99 that a fixed way had at the heaviest step.
A second is kept if the p99 at the server is within the budget and what the server needs by itself: the median p99 of
plain interrupts at the lightest step. The first second of each step is not judged. "Best by step" is made of the steps
at which the fixed way was in force that kept most seconds there: what is out of reach of that, the machine's noise ate.
"""

import argparse
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from napctl.change.guard import watched
from napctl.experiment.environment import Environment, lab_environment
from napctl.experiment.treatments import applied, parse_treatment
from napctl.observe.server_latency import LatencyMeter

FIXED = ("base", "suspend:20us", "suspend:50us", "suspend:200us", "defer:200us")
RATES = (5_000.0, 60_000.0, 100_000.0, 5_000.0)
LIGHTEST, HEAVIEST = 0, 2


@dataclass(frozen=True)
class Step:
    """p99 at the server in each second but the first, µs; the share of the server's CPU that was busy; requests/s."""

    p99_us: tuple[float, ...]
    cpu_share: float
    answered: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--step", type=float, default=20.0)
    parser.add_argument("--times", type=float, default=1.3)
    options = parser.parse_args()
    with ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="napctl-steps-")))
        guard = stack.enter_context(watched(None, state))
        bed = stack.enter_context(lab_environment(state, guard, warmup_seconds=0.05, keys_per_get=1))
        fixed = {name: passed(bed, name, options.step, 1) for name in FIXED}
        own_us = median(fixed["base"][LIGHTEST].p99_us)
        least_us, best = min((median(steps[HEAVIEST].p99_us), name) for name, steps in fixed.items())
        budget_us = options.times * least_us
        print(
            f"least p99 at {RATES[HEAVIEST]:,.0f}/s: {least_us:.0f} µs ({best}); interrupts at 5,000/s: {own_us:.0f} µs"
        )
        print(f"budget {budget_us:.0f} µs: a second is kept below {budget_us + own_us:.0f} µs")
        print(f"{'way':<16}{'kept':>8}{'CPU':>8}   p99 and CPU by step")
        for name, steps in fixed.items():
            show(name, steps, budget_us + own_us)
        show("best by step", best_by_step(list(fixed.values()), budget_us + own_us), budget_us + own_us)
        adapting = f"adapt:{budget_us:.0f}us"
        show(adapting, passed(bed, adapting, options.step, 1 + options.passes)[len(RATES) :], budget_us + own_us)


def passed(bed: Environment, name: str, seconds: float, passes: int) -> list[Step]:
    """That many passes under a way of taking packets, one after the other."""
    with applied(parse_treatment(name, {}, {}), bed.place):
        return [step(bed, rate, seconds) for rate in RATES * passes]


def step(bed: Environment, rate: float, seconds: float) -> Step:
    """One, and what each second of it was like."""
    assert bed.place.server is not None
    pids = [process.pid for process in bed.place.server.found.processes]
    p99_us = []
    with LatencyMeter(pids) as latency, ThreadPoolExecutor(max_workers=1) as aside:
        load = aside.submit(bed.load.measured, rate, seconds, 1, Path("/dev/null"), bed.meter)
        time.sleep(1.0)
        latency.restart()
        for _ in range(int(seconds) - 1):
            time.sleep(1.0)
            found = latency.window().together
            p99_us.append((found.until_read.percentile_ns(0.99) or 0.0) / 1000 if found else float("inf"))
        told = load.result()
    return Step(tuple(p99_us), told.figures.metrics["cpu_share"], told.metrics["requests_per_second"])


def best_by_step(ways: Sequence[Sequence[Step]], limit_us: float) -> list[Step]:
    """Of each step that of the way which kept most seconds, and of those the one that took the least CPU."""
    same_step = zip(*ways, strict=True)
    return [max(steps, key=lambda each: (kept_share(each, limit_us), -each.cpu_share)) for steps in same_step]


def kept_share(step: Step, limit_us: float) -> float:
    """Of its seconds."""
    return fmean(each <= limit_us for each in step.p99_us)


def show(name: str, steps: Iterable[Step], limit_us: float) -> None:
    steps = list(steps)
    kept = fmean(kept_share(one, limit_us) for one in steps)
    by_step = "  ".join(
        f"{median(each for one in steps[place :: len(RATES)] for each in one.p99_us):,.0f} µs "
        f"{100 * fmean(one.cpu_share for one in steps[place :: len(RATES)]):.0f} %"
        for place in range(len(RATES))
    )
    print(
        f"{name:<16}{100 * kept:>6.1f} %{100 * fmean(one.cpu_share for one in steps):>6.1f} %   {by_step}", flush=True
    )


if __name__ == "__main__":
    main()
