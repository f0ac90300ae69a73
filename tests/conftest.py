"""For all tests."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from tests.lab.helpers import Napctl

# How long one example takes is the machine's business, not a promise of napctl.
settings.register_profile("napctl", deadline=None)
settings.load_profile("napctl")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="tests marked `trials` make all their trials")


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
