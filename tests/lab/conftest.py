"""The real thing for every test: a lab, a memcached in it, load, and the command line."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from secrets import token_hex

import pytest

from napctl.lab.bed import Lab
from napctl.lab.load import LoadSpec, RunningLoad, started
from napctl.lab.servers import Server, memcached
from napctl.model.errors import NapctlError
from tests.forked import ForkedNapctl
from tests.lab.flooded import FloodBed, flood_bed
from tests.lab.helpers import Napctl, ask, ending, machine_of
from tests.lab.plans import two_devices, write_plan
from tests.lab.ports import free_port
from tests.lab.priority import first
from tests.lab.uring_server import SOURCE

TOOLS = (
    "bpftrace",
    "busybox",
    "caddy",
    "cc",
    "ethtool",
    "haproxy",
    "ip",
    "memcached",
    "nft",
    "nginx",
    "prometheus",
    "redis-server",
    "setpriv",
    "strace",
    "taskset",
    "unshare",
)


@cache
def obstacle() -> str | None:
    """Why the lab cannot run here; None if it can. The one place that decides."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    try:
        with Lab.build() as lab:
            (napi,) = lab.server.napis()
    except NapctlError as error:  # no root, no CAP_NET_ADMIN or CAP_SYS_ADMIN, no netdev family
        return str(error)
    return "this kernel has no irq-suspend-timeout" if napi.settings.irq_suspend_timeout_ns is None else None


@pytest.fixture(autouse=True, scope="session")
def _before_other_work() -> Iterator[None]:
    with first():
        yield


@pytest.fixture(autouse=True)
def _possible(request: pytest.FixtureRequest) -> None:
    """Without a lab a test is skipped, but never silently in CI."""
    if request.node.get_closest_marker("lab") is None:
        return
    reason = obstacle()
    if reason is not None and os.environ.get("CI") == "true":
        pytest.fail(f"the lab must run in CI: {reason}")
    if reason is not None:
        pytest.skip(reason)


AS_A_PROGRAM = {f"tests.lab.{name}" for name in (
    "attach.test_reused_pids", "attach.test_surprises", "cli.test_bad_input", "cli.test_demo", "cli.test_output",
    "service.test_executed_anew", "service.test_soak",
)}  # fmt: skip
"""Their promises are of how the program starts and ends, and what it takes; all others' of what a command does, in
hundreds of calls."""


@pytest.fixture
def napctl(request: pytest.FixtureRequest, state: Path) -> Napctl:
    return Napctl(state) if request.module.__name__ in AS_A_PROGRAM else ForkedNapctl(state)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab.build() as lab:
        yield lab


@pytest.fixture(scope="module")
def shared_lab() -> Iterator[Lab]:
    """One for all tests of a module, which leave it as it was."""
    with Lab.build() as lab:
        yield lab


@pytest.fixture(scope="session")
def shared_flood_bed() -> Iterator[FloodBed]:
    """Finding out how much its server answers takes ten seconds. Tests leave it as it was."""
    with flood_bed() as bed:
        yield bed


@pytest.fixture
def server(lab: Lab) -> Iterator[Server]:
    """A memcached, to which `client` is connected."""
    with ending(memcached(lab)) as server:
        yield server


@pytest.fixture
def client(lab: Lab, server: Server) -> Iterator[socket.socket]:
    """A connection that has had one answer: the server has a socket with a NAPI id."""
    with ask(lab, server) as connection:
        yield connection


LoadStarter = Callable[..., RunningLoad]


@pytest.fixture
def load(request: pytest.FixtureRequest, lab: Lab, server: Server) -> Iterator[LoadStarter]:
    """Starts an open-loop load on the server, and returns when it runs at its rate; the test's end ends it.

    It takes a CPU for itself only for a test that is alone: beside others nobody looks at latencies.
    """
    sleeps = request.node.get_closest_marker("alone") is None
    with ExitStack() as running:

        def start(rate_per_second: float = 20_000, seconds: float = 60, connections: int = 16) -> RunningLoad:
            spec = LoadSpec(
                rate_per_second=rate_per_second,
                seconds=seconds,
                connections=connections,
                warmup_seconds=0.1,
                drain_seconds=30,  # all are answered, however late
                sleeps=sleeps,
            )
            load = running.enter_context(started(lab, server, spec))
            load.wait_for_warmup()
            return load

        yield start


@pytest.fixture
def unusual() -> Iterator[str]:
    """A copy of memcached with a name that no other process has."""
    with tempfile.TemporaryDirectory(prefix="napctl-test-") as directory:
        program = shutil.which("memcached")
        assert program is not None
        copy = Path(directory) / f"mc-{Path(directory).name[-8:]}"
        shutil.copy(program, copy)
        yield str(copy)


@pytest.fixture
def unchanged(lab: Lab, server: Server, client: socket.socket) -> Iterator[None]:
    """The test leaves every setting as it was."""
    before = machine_of(lab.server)
    yield
    assert machine_of(lab.server) == before


@pytest.fixture
def bed() -> Iterator[Lab]:
    """A lab whose server namespace has a tun as well."""
    with two_devices() as lab:
        yield lab


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """A plan for both devices of `bed`."""
    return write_plan(tmp_path / "plan.toml")


@pytest.fixture
def shell(tmp_path: Path) -> str:
    """A copy of the shell with a name that no other process has, of 15 characters: all that the kernel keeps."""
    found = shutil.which("dash") or shutil.which("sh")
    assert found is not None
    copy = tmp_path / f"napctl-{token_hex(4)}"
    shutil.copy(found, copy)
    return str(copy)


@pytest.fixture
def port() -> int:
    """One on which nothing listens."""
    return free_port()


@pytest.fixture(scope="session")
def uring_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """services/uring.c, compiled."""
    made = tmp_path_factory.mktemp("uring") / "uring"
    subprocess.run(["cc", "-O2", "-Wall", "-Werror", "-o", made, SOURCE], check=True)
    made.chmod(0o755)
    if subprocess.run([made, "check", "127.0.0.1", "0"], check=False).returncode == 3:
        assert os.environ.get("CI") != "true", "io_uring is not allowed here"
        pytest.skip("io_uring is not allowed here")
    return made
