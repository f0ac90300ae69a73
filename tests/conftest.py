"""For all tests."""

import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from secrets import randbelow
from typing import Any, TypeVar

import pytest

from tests.lab.helpers import Napctl
from tests.watchdog import Watchdog

# A shell starts what runs in the background with these ignored, and so would be what a test starts, although it may be
# interrupted. What is caught here has its default effect there.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # nohup
    signal.signal(signal.SIGHUP, lambda *_: None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="tests marked `trials` make all their trials, `long` ones run")
    parser.addoption(
        "--sample", type=int, metavar="SEED", help="which of their trials they make else (default: a new one)"
    )


def pytest_report_header(config: pytest.Config) -> str:
    return "all trials" if config.getoption("--long") else f"sample of trials: --sample {config.getoption('--sample')}"


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses by mark
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker("trials")
    families = [family for family in families_of(items) if len(family) > FEW_VARIANTS]
    for item in chain(*families):
        item.add_marker("trials")
    if not config.getoption("--long"):
        left_out = {item for item in items if item.get_closest_marker("long")}
        for family in families:
            chance = random.Random(f"{config.getoption('--sample')} {family[0].nodeid}")
            left_out |= set(chance.sample(family, len(family) - FEW_VARIANTS))
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]


FEW_VARIANTS = 2
"""Of a test of the lab or the virtual machine that is made for many parameters, so many are tried in `make test`: by
chance, but the same in each process of pytest-xdist. Unit tests cost too little for that."""
UNIT = Path(__file__).with_name("unit")


def families_of(items: Sequence[pytest.Item]) -> list[list[pytest.Item]]:
    """Tests that differ in their parameters alone, always in the same order."""
    families: dict[tuple[Path, object, str], list[pytest.Item]] = {}
    for item in items:
        if isinstance(item, pytest.Function) and UNIT not in item.path.parents:
            families.setdefault((item.path, item.cls, item.originalname), []).append(item)
    return [sorted(family, key=lambda item: item.nodeid) for family in families.values()]


def choose_examples(count: int) -> None:
    """By chance, new ones in each run: few at a time come to many soon."""
    from hypothesis import HealthCheck, settings

    # How long one example takes, to make and to try, is the machine's business, not a promise of napctl.
    slow = (HealthCheck.too_slow,)
    settings.register_profile("napctl", deadline=None, max_examples=count, suppress_health_check=slow)
    settings.load_profile("napctl")


def pytest_configure(config: pytest.Config) -> None:
    if "NAPCTL_VM" not in os.environ:  # it would take an emulated CPU seconds, and no test there has examples
        choose_examples(100 if config.option.long else 25)
    config.stash[WATCHDOG] = Watchdog()
    if config.option.sample is None:
        config.option.sample = getattr(config, "workerinput", {}).get("sample", randbelow(10**6))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """All processes of pytest-xdist have the same sample."""
    node.workerinput["sample"] = node.config.option.sample


WATCHDOG = pytest.StashKey[Watchdog]()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    watchdog = item.config.stash[WATCHDOG]
    watchdog.begin(item.nodeid, limit_of(item))
    try:
        return (yield)
    finally:
        watchdog.end()


def limit_of(item: pytest.Item) -> float:
    """As pytest-timeout has it, s."""
    marker = item.get_closest_marker("timeout")
    told = marker.args[0] if marker else item.config.getoption("timeout") or item.config.getini("timeout")
    return float(told) or float("inf")


@pytest.fixture
def trials(request: pytest.FixtureRequest) -> Callable[[int, int], int]:
    """trials(short, long): how many trials to make, in `make test` and in `make test-long`."""

    def count(short: int, long: int) -> int:
        return long if request.config.getoption("--long") else short

    return count


T = TypeVar("T")


@pytest.fixture
def sampled(request: pytest.FixtureRequest) -> Callable[[Sequence[T], int], list[T]]:
    """sampled(all, few): which to try, in their order: all in `make test-long`, so many by chance in `make test`."""
    chance = random.Random(f"{request.config.getoption('--sample')} {request.node.nodeid}")

    def pick(every: Sequence[T], few: int) -> list[T]:
        if request.config.getoption("--long"):
            return list(every)
        return [every[place] for place in sorted(chance.sample(range(len(every)), min(few, len(every))))]

    return pick


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def napctl(state: Path) -> Napctl:
    return Napctl(state)
