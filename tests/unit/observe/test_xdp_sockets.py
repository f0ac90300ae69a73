"""Promises about who has an AF_XDP socket where the kernel does not tell of sockets."""

import pytest

from napctl.kernel.processes import Process
from napctl.observe import xdp_sockets

ONE, OTHER = Process(7, "one", 1), Process(8, "other", 1)


@pytest.mark.parametrize(
    ("answers", "alike"),
    [
        ([], None),
        ([True], True),
        ([False, False], False),
        ([True, True], True),
        ([False, True], None),
    ],
)
def test_nobody_is_blamed_for_what_another_prefers(answers: list[bool], alike: bool | None) -> None:
    """Nor is one told to be of zero copy that may be another one's."""
    holders = list(zip((ONE, OTHER), answers, answers, strict=False))
    found = xdp_sockets._of("eth0", 3, None, holders)
    assert (found.prefers_busy_poll, found.zero_copy) == (alike, alike)
    assert found.holders == tuple((process.pid, process.name) for process, *_ in holders)
    assert xdp_sockets._of("eth0", 3, not alike, holders).zero_copy is (not alike)
