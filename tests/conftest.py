"""For all tests."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.lab.helpers import Napctl
from tests.watchdog import Watchdog

# A shell starts what runs in the background with these ignored, and so would be what a test starts, although it may be
# interrupted. What is caught here has its default effect there.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # nohup
    signal.signal(signal.SIGHUP, lambda *_: None)

# How long one example takes is the machine's business, not a promise of napctl.
settings.register_profile("napctl", deadline=None)
settings.load_profile("napctl")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="tests marked `trials` make all their trials")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[WATCHDOG] = Watchdog()


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


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def napctl(state: Path) -> Napctl:
    return Napctl(state)
