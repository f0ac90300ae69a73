"""A lab that stands until it is taken down: the same bed, its namespaces named as `ip netns` names them."""

import subprocess
import threading
from contextlib import ExitStack

from napctl.kernel.namespaces import NAMED
from napctl.lab.bed import End, Lab
from napctl.lab.children import require
from napctl.model.errors import BadInput, NapctlError

__all__ = ["down", "standing", "up"]


PREFIX = "napctl-"
NAMES = (f"{PREFIX}server", f"{PREFIX}client")


def up(queues: int) -> None:
    """Build a lab and name it. Raises BadInput if one stands already, and what Lab.build() raises."""
    if standing():
        raise BadInput("a lab stands already; `napctl lab down` takes it down")
    with Lab.build(queues=queues) as lab, ExitStack() as undo:
        for end in (lab.server, lab.client):
            _name(end)
            undo.callback(_ip, ["delete", PREFIX + end.name])
        undo.pop_all()


def down() -> list[str]:
    """Take it down; returns the names that were there. Servers started in it keep it alive, unnamed, until they end."""
    require("ip")
    found = standing()
    for name in found:
        _ip(["delete", name])
    return found


def standing() -> list[str]:
    """Names of the standing lab's namespaces; empty if there is none, one if a taking down was interrupted."""
    return [name for name in NAMES if (NAMED / name).exists()]


def _name(end: End) -> None:
    """`ip netns attach` takes the namespace of a task: this thread, for as long as that takes."""
    with end.namespace.entered():
        _ip(["attach", PREFIX + end.name, str(threading.get_native_id())])


def _ip(command: list[str]) -> None:
    done = subprocess.run(["ip", "netns", *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NapctlError(f"ip netns {' '.join(command)}: {done.stderr.strip()}")
