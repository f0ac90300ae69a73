"""What attach leaves alone of real and unmodified servers, and why; the long form tries all."""

from pathlib import Path

import pytest

from tests.lab.attach.test_real_servers import CASES, bench_of, check_verdict
from tests.lab.helpers import Napctl

pytestmark = pytest.mark.lab


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.outcome == "left alone"])
def test_what_does_not_fit_is_left_alone_and_told_why(name: str, tmp_path: Path, napctl: Napctl) -> None:
    with bench_of(CASES[name], tmp_path) as bench:
        assert check_verdict(CASES[name], bench, napctl)
