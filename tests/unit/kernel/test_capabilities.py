"""Promises about processes that cannot be looked into: the reason given is the true one."""

import pytest

from napctl.kernel import capabilities
from napctl.kernel.capabilities import CAPABILITIES, why_refused

ALL = frozenset(CAPABILITIES)


@pytest.mark.parametrize(
    ("held", "everywhere", "why"),
    [
        (ALL - {"CAP_SYS_PTRACE"}, True, "CAP_SYS_PTRACE is missing"),
        (frozenset(), True, "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH are missing"),
        ({"CAP_SYS_PTRACE"}, True, "CAP_DAC_READ_SEARCH is missing"),
        (ALL, False, "CAP_SYS_PTRACE is held in our user namespace only, or a security module refuses"),
        (ALL, True, "a security module refuses access"),
        ({"CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"}, True, "a security module refuses access"),
    ],
)
def test_no_capability_is_called_missing_that_is_held(held: frozenset[str], everywhere: bool, why: str) -> None:
    assert why_refused(frozenset(held), everywhere=everywhere) == why


def test_what_we_hold_is_read_from_the_kernel() -> None:
    assert capabilities.held() <= ALL
