"""For the tests of experiments."""

from pathlib import Path

import pytest


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Where one is to be."""
    return tmp_path / "run"
