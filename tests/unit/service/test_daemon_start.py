"""What the service tells its manager, and when: with a lock, a socket, a guard and a journal, and no targets."""

from pathlib import Path

import pytest

from napctl.kernel.namespaces import NetworkNamespace
from napctl.service import daemon as module
from napctl.service.daemon import Service
from napctl.service.wake import Wake


class Unread:
    """A log with which nobody has to catch up; its descriptor is one that can be waited for."""

    def __init__(self, wake: Wake) -> None:
        self.fileno = wake.fileno

    def catch_up(self) -> None:
        pass


def test_it_is_ready_before_its_first_pass_however_long_that_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd ends a service that is not ready in time; a deep look at each of many targets takes its own."""
    policy = tmp_path / "policy.toml"
    policy.write_text("version = 1\n")
    policy.chmod(0o644)
    wake, told = Wake(), list[str]()

    def turn(_: Service, wake: Wake) -> None:
        told.append("a pass")
        wake.stop = True
        wake.up()

    monkeypatch.setattr(module, "notify", lambda *assignments: told.append(assignments[0]))
    monkeypatch.setattr(Service, "_turn", turn)
    with NetworkNamespace.current() as netns:
        Service(policy, tmp_path / "state", netns, lambda _: None).run(wake, Unread(wake))
    assert told == ["READY=1", "a pass", "STOPPING=1"]
