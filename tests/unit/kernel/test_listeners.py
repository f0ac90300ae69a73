"""Who stands for a network namespace may leave it while its tables are read."""

import pytest

from napctl.kernel import listeners as module
from napctl.kernel.listeners import ListeningSocket, listeners

OURS, THEIRS = 10, 20
NGINX = ListeningSocket(inode=7, port=8083, protocol="tcp", netns=THEIRS, address="0.0.0.0")


@pytest.mark.parametrize("returns", [True, False])
def test_a_process_that_was_only_there_for_a_moment_does_not_stand_for_a_namespace(
    returns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Process 5 enters a namespace for a moment, and in its tables is what its own one has: nothing on that port."""
    asked: list[int] = []

    def namespace_of(pid: int) -> int | None:
        asked.append(pid)
        if pid == 5:
            return THEIRS if asked.count(5) == 1 else OURS if returns else None
        return THEIRS if pid == 6 else OURS

    monkeypatch.setattr(module, "pids", lambda: [5, 6])
    monkeypatch.setattr(module, "_namespace_of", namespace_of)
    monkeypatch.setattr(module, "listeners_of", lambda netns, pid, port: [NGINX] if pid == 6 else [])

    assert listeners(8083) == [NGINX]
