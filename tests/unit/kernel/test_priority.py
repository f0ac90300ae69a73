"""How the scheduler treats a thread, asked of the scheduler itself."""

import os
import re
from pathlib import Path

import pytest

from napctl.kernel.priority import LOWEST, SHORT_SLICE_NS, in_background, in_short_slices

SLICE = re.compile(r"^se\.slice\s*:\s*(\d+)$", re.MULTILINE)


def now() -> tuple[int, int | None]:
    """Nice value, and the slice in ns where the kernel tells it (CONFIG_SCHED_DEBUG, Linux 6.12)."""
    path = Path("/proc/self/sched")
    found = SLICE.search(path.read_text()) if path.exists() else None
    return os.getpriority(os.PRIO_PROCESS, 0), int(found[1]) if found else None


def test_the_background_is_nice_19_and_ends(privileged: None) -> None:
    before = now()
    with in_background():
        assert now()[0] == LOWEST
    assert now() == before


def test_short_slices_last_through_a_background_and_end(privileged: None) -> None:
    before = now()
    if before[1] is None:
        pytest.skip("this kernel does not tell a thread's slice")
    with in_short_slices():
        assert now() == (before[0], SHORT_SLICE_NS)
        with in_background():
            assert now() == (LOWEST, SHORT_SLICE_NS)
        assert now() == (before[0], SHORT_SLICE_NS)
    assert now() == before


def test_an_error_ends_it_too(privileged: None) -> None:
    before = now()
    with pytest.raises(ZeroDivisionError), in_short_slices(), in_background():
        1 / 0  # noqa: B018
    assert now() == before


@pytest.fixture
def privileged() -> None:
    """Who may not come back from nice 19 is not sent there."""
    if os.geteuid() != 0:
        pytest.skip("needs CAP_SYS_NICE")
