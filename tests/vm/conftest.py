"""What the tests in the guest share: a wire between two NICs, and settings that are put back.

Nobody else uses this machine: tests may change it as they like. Emulated, it takes 5 to 20 times as long as a real one.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.forked import ForkedNapctl
from tests.lab.helpers import Napctl
from tests.vm.vduse_nic import UNSIGNED_MODULE
from tests.vm.wire import Wire, run

# `pytest` alone is meant for the host, where these have nothing to run on; `make test-vm` runs them.
if "NAPCTL_VM" not in os.environ:
    collect_ignore_glob = ["*"]


@pytest.fixture(scope="session")
def wire() -> Iterator[Wire]:
    """e1000e0 in the guest's own network namespace, virtio0 at the other end of its cable in a second one."""
    with Wire().laid() as wire:
        yield wire


@pytest.fixture
def napctl(state: Path) -> Napctl:
    return ForkedNapctl(state)


@pytest.fixture(autouse=True)
def _settings_put_back(wire: Wire) -> Iterator[None]:
    """Coalescing and deferral of e1000e0 are for every test as they were for the first."""
    before = wire.settings()
    yield
    wire.put_back(before)


@pytest.fixture(autouse=True, scope="session")
def _kernel_unharmed() -> Iterator[None]:
    """No test made the kernel warn or worse."""
    yield
    assert int(Path("/proc/sys/kernel/tainted").read_text()) & ~UNSIGNED_MODULE == 0, run("dmesg")
