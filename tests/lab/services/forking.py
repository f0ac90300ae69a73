"""Runs a service in this process, or in workers that it forks; with its own listening socket each (SO_REUSEPORT)."""

import os
from collections.abc import Callable


def run(service: Callable[[], None], workers: int) -> None:
    """0 workers: here. The master waits for its workers and has no socket."""
    if not workers:
        service()
        return
    for _ in range(workers):
        if os.fork() == 0:
            service()
            os._exit(0)
    for _ in range(workers):
        os.wait()
