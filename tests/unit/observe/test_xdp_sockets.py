"""Promises about who has an AF_XDP socket where the kernel does not tell of sockets."""

import pytest

from napctl.kernel.processes import Process
from napctl.observe import xdp_sockets

ONE, OTHER = Process(7, "one", 1), Process(8, "other", 1)


@pytest.mark.parametrize(
    ("holders", "prefers"),
    [
        ([], None),
        ([(ONE, True)], True),
        ([(ONE, False), (OTHER, False)], False),
        ([(ONE, True), (OTHER, True)], True),
        ([(ONE, False), (OTHER, True)], None),
    ],
)
def test_nobody_is_blamed_for_what_another_prefers(holders: list[tuple[Process, bool]], prefers: bool | None) -> None:
    found = xdp_sockets._of("eth0", 3, None, holders)
    assert found.prefers_busy_poll == prefers
    assert found.holders == tuple((process.pid, process.name) for process, _ in holders)
