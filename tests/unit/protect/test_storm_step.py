"""When limits are judged anew: addresses and rules are doubles."""

from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.change import Transaction
from napctl.protect import storm_step
from napctl.protect.storm_step import StormStep
from tests.unit.protect.test_protection import CONTROL, LIMITS

IN_FORCE = Transaction(state="applied", boot_id="", made_unix_ns=1, name="eth0", changes=(CONTROL, LIMITS))


@pytest.fixture
def around(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    around: dict[str, Any] = {"rules": 1, "addresses": frozenset({"192.0.2.1"})}
    monkeypatch.setattr(storm_step, "nft_generation", lambda _netns: around["rules"])
    monkeypatch.setattr(storm_step, "own_addresses", lambda _netns: around["addresses"])
    return around


@pytest.fixture
def step() -> Iterator[StormStep]:
    with NetworkNamespace.current() as netns:
        yield StormStep(netns, 100)


@pytest.mark.parametrize("what", [{"rules": 2}, {"addresses": frozenset({"192.0.2.1", "192.0.2.9"})}])
def test_other_rules_or_addresses_are_a_reason_to_judge_anew_while_something_is_limited(
    what: dict[str, Any], around: dict[str, Any], step: StormStep
) -> None:
    step.refresh(None, IN_FORCE)  # type: ignore[arg-type] # nothing is attached: nothing to write
    assert not step.is_out_of_date(IN_FORCE.changes)
    around.update(what)
    assert step.is_out_of_date(IN_FORCE.changes)
    assert not step.is_out_of_date(replace(IN_FORCE, changes=(CONTROL,)).changes)
    step.refresh(None, IN_FORCE)  # type: ignore[arg-type]
    assert not step.is_out_of_date(IN_FORCE.changes)
