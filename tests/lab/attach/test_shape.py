"""What attaching is for: the shape of the published results, on this machine's lab.

Figures are compared within one run only. The bounds are the promises of the README; each is judged by the median of
interleaved rounds, since other work may disturb any one of them.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import pytest

from napctl.change.guard import watched
from napctl.change.journal import Journal
from napctl.experiment.environment import Environment, lab_environment
from napctl.experiment.run_directory import RunDirectory
from napctl.experiment.schedule import run
from napctl.experiment.treatments import parse_treatment
from napctl.load.base import REST
from napctl.model.experiment import RunConfig
from napctl.observe.machine import take_machine

pytestmark = [pytest.mark.lab, pytest.mark.alone, pytest.mark.long]
ROUNDS = 3


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Environment]:
    state = tmp_path / "state"
    with ExitStack() as stack:
        guard = stack.enter_context(watched(None, state))
        environment = stack.enter_context(lab_environment(state, guard))
        before = take_machine(environment.place.netns)
        yield environment
        assert take_machine(environment.place.netns) == before
        with Journal(state) as journal:
            assert journal.live() == []


def saturating(environment: Environment, tmp_path: Path) -> float:
    """Requests/s that the server answers with interrupts when each connection always has some outstanding."""
    return environment.load.measured(0, 0.5, 1, tmp_path / "raw", environment.meter).metrics["requests_per_second"]


def medians(
    environment: Environment, tmp_path: Path, names: tuple[str, ...], rate: float, metric: str
) -> dict[str, float]:
    """Of that metric, by treatment."""
    config = RunConfig(
        napctl="", name="", made_unix_ns=0, treatments=names, source="lab", rates=(rate,), rounds=ROUNDS, seconds=0.5,
        warmup_seconds=0, settle_seconds=0, seed=1, target="memcached",
    )  # fmt: skip
    directory = RunDirectory(tmp_path / f"run-{metric}")
    directory.create(config, environment.machine)
    treatments = [parse_treatment(name, {}, {}) for name in names]
    run(config, treatments, directory, environment.place, environment.load, environment.meter, lambda *_: None)
    found: dict[str, list[float]] = {name: [] for name in names}
    for cell in directory.cells():
        assert not cell.failed
        found[cell.treatment].append(cell.metrics[metric])
    return {name: median(figures) for name, figures in found.items()}


@pytest.mark.long
def test_at_a_load_that_nearly_saturates_it_with_interrupts_it_makes_nine_of_ten_polls_itself(
    environment: Environment, tmp_path: Path
) -> None:
    rate = 0.9 * saturating(environment, tmp_path)

    assert any(
        medians(environment, tmp_path / str(attempt), ("suspend:200us",), rate, "server_poll_share")["suspend:200us"]
        >= 0.9
        for attempt in range(2)
    )


@pytest.mark.long
def test_its_p50_lies_below_that_of_plain_deferral_with_the_same_timer(
    environment: Environment, tmp_path: Path
) -> None:
    rate = 0.5 * saturating(environment, tmp_path)

    found = medians(environment, tmp_path, ("suspend:200us", "defer:200us"), rate, "latency_p50_us")

    assert found["suspend:200us"] < found["defer:200us"]


def test_only_a_suspended_server_polls(environment: Environment, tmp_path: Path) -> None:
    found = medians(environment, tmp_path, ("suspend:200us", "defer:200us", "base"), 20_000, "server_poll_share")

    assert found["suspend:200us"] > 0.2
    assert found["defer:200us"] == found["base"] == 0


@pytest.mark.long
def test_at_rest_it_costs_at_most_two_points_of_a_cpu_where_busy_polling_takes_all_that_it_gets(
    environment: Environment, tmp_path: Path
) -> None:
    found = medians(environment, tmp_path, ("base", "suspend:200us", "fullbusy"), REST, "server_cpu_share")

    assert found["suspend:200us"] - found["base"] <= 0.02
    assert found["fullbusy"] > 0.3, "all that other work leaves of it, which gets half where it wants all"
