"""services/uring.c in the lab: a server that waits in io_uring alone."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from napctl.kernel import io_uring, open_files
from napctl.lab.bed import Lab
from napctl.lab.servers import Server, accepts, serve
from napctl.model.settings import RingPolling
from tests.lab.helpers import ending
from tests.lab.other_servers import bound

SOURCE = Path(__file__).parent / "services/uring.c"
PORT = 8087
OFF = RingPolling(tracking="inactive", busy_poll_usecs=0, prefer_busy_poll=False)
ON = RingPolling(tracking="dynamic", busy_poll_usecs=50, prefer_busy_poll=True)


@contextmanager
def uring(
    lab: Lab, program: Path, kind: str, *options: str, cpus: Collection[int] = (), port: int = PORT
) -> Iterator[Server]:
    """Ended at the end of the block."""

    def ready(lab: Lab, server: Server) -> bool:
        return bound(server, "udp") == 1 if kind == "udp" else accepts(lab, server)

    command = [str(program), kind, lab.server.address, str(port), *options]
    with ending(serve(lab, command, port, cpus=cpus, ready=ready)) as server:
        yield server


def rings_of(pid: int) -> dict[int, RingPolling | None]:
    """How the rings of a process poll, by descriptor."""
    return {fd: io_uring.facts(fd, pid).polling for fd in open_files.open_files(pid).rings}
