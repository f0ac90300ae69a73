"""An experiment on nginx with a queue for each of its workers: they are steered, whatever the treatment before did."""

import os
from pathlib import Path

import pytest

from napctl.change.guard import watched
from napctl.change.journal import Journal
from napctl.experiment.environment import Environment, web_environment
from napctl.experiment.treatments import applied, parse_treatment
from napctl.observe.machine import take_machine
from tests.lab.following import queues_of

pytestmark = [pytest.mark.lab, pytest.mark.alone]

WORKERS = 2


def queues(environment: Environment) -> list[int]:
    """How many each worker has that has any, while there is a little load."""
    assert environment.place.server is not None
    with environment.load.primed():
        return [
            len(ids) for ids in queues_of(*(each.pid for each in environment.place.server.found.processes)).values()
        ]


@pytest.mark.long
def test_workers_have_a_queue_each_also_after_a_treatment_that_adapts(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with watched(None, state) as guard, web_environment(state, guard, workers=WORKERS, warmup_seconds=2.0) as it:
        before = take_machine(it.place.netns)
        assert it.place.server is not None
        assert len(it.place.server.choice.instances) == len(it.place.server.choice.napis) == WORKERS
        for name in ("suspend:50us", "adapt:150us", "suspend:50us"):
            with applied(parse_treatment(name, {}, {}), it.place):
                told = it.load.measured(2_000, 0.5, 1, Path(os.devnull), it.meter)
            assert told.metrics["requests_per_second"] > 1_000, name
            assert set(queues(it)) == {1}, name
        assert take_machine(it.place.netns) == before
        with Journal(state) as journal:
            assert journal.live() == []
