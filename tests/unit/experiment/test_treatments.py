"""Treatments by their names."""

import pytest

from napctl.experiment.follower import Adapt
from napctl.experiment.treatments import parse_treatment
from napctl.model.errors import BadInput


@pytest.mark.parametrize(
    ("name", "adapt"),
    [
        ("adapt:150us", Adapt(budget_ns=150_000, prefer="cpu")),
        ("adapt:1ms:latency", Adapt(budget_ns=1_000_000, prefer="latency")),
        ("adapt:150us#2", Adapt(budget_ns=150_000, prefer="cpu")),
        ("suspend:20us", None),
        ("base", None),
    ],
)
def test_what_adapts_is_named_by_its_budget_and_what_it_prefers(name: str, adapt: Adapt | None) -> None:
    found = parse_treatment(name, {}, {})

    assert (found.name, found.adapt) == (name, adapt)
    assert found.needs_target == (name != "base")


@pytest.mark.parametrize(
    "name",
    ["adapt", "adapt:", "adapt:0", "adapt:soon", "adapt:150us:cheap", "suspend:20us:latency", "suspend:20ms", "fast"],
)
def test_what_is_no_treatment_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(BadInput, match=name):
        parse_treatment(name, {}, {})
