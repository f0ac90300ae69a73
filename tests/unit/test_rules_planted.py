"""Every rule has been shown a real fault: planted in the lab or in the virtual machine, unless neither can have it."""

import ast
from pathlib import Path

import pytest

from napctl.advise.rules import RULES

TESTS = Path(__file__).parents[1]
LAB, VM = "lab/test_doctor.py", "vm/test_doctor.py"
PLANTED = {
    "ring-drops": "emulated NICs keep packets waiting instead of dropping them, and veth has no ring",
    "backlog-drops": LAB,
    "time-squeezes": LAB,
    "epoll-over-several-queues": LAB,
    "busy-polling-while-idle": LAB,
    "napi-thread-polling-while-idle": VM,
    "device-wide-deferral": LAB,
    "settings-lost-at-reset": LAB,
    "tx-completions-too-late": VM,
    "tx-only-interrupts": "e1000e frees sent buffers in an interrupt of its own, virtio in instances without an id, "
    "so neither has polls that are TX-only; the published histogram stands for a NIC that has",
    "single-packet-interrupts": VM,
    "udp-held-by-tx-delay": VM,
    "adaptive-coalescing-stuck": "no emulated NIC has DIM",
    "several-queues-on-one-cpu": LAB,
    "interrupt-on-application-cpu": LAB,
    "more-busy-queues-than-cpus": LAB,
    "irqbalance-moves-interrupts": VM,
}
"""Rule: the file in which a test of its name plants its fault, or why only tests/unit/test_rules_*.py have it."""


def functions(file: Path) -> dict[str, str]:
    source = file.read_text()
    return {
        node.name: ast.get_source_segment(source, node) or ""
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef)
    }


def test_every_rule_is_in_the_list() -> None:
    assert set(PLANTED) == {rule.name for rule in RULES}


@pytest.mark.parametrize(("rule", "where"), PLANTED.items())
def test_every_rule_has_a_test_that_plants_its_fault_and_names_it(rule: str, where: str) -> None:
    if where in (LAB, VM):
        planted = functions(TESTS / where)[f"test_{rule.replace('-', '_')}"]
        assert f'"{rule}"' in planted


@pytest.mark.parametrize("rule", PLANTED)
def test_every_rule_has_its_threshold_tested(rule: str) -> None:
    files = set((TESTS / "unit").glob("test_rules*.py")) - {Path(__file__)}
    assert any(f'"{rule}"' in file.read_text() for file in files)
