"""What the tests of NAPI threads begin with."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from napctl.lab.bed import Lab
from tests.lab.change.threads import softirq_and_thread, write_threads


@pytest.fixture
def threads() -> Iterator[Lab]:
    with softirq_and_thread() as lab:
        yield lab


@pytest.fixture
def threads_plan(tmp_path: Path) -> Path:
    return write_threads(tmp_path / "plan.toml")
