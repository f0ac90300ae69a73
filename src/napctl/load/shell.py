"""A shell command, and all that it starts: also what made a session of its own, or whose parent has ended.

The command's shell runs below another one, which adopts whatever loses its parent there (PR_SET_CHILD_SUBREAPER in
prctl(2)) and lives until the command is let go of. So all of it stands below that one, and can be found and ended.
"""

import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import IO, Self

from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.process_tree import descendants
from napctl.kernel.syscalls import adopt_orphans

__all__ = ["ShellCommand"]


SUPERVISE = 'exec 3>&2 2>/dev/null; (exec /bin/sh -c "$0" </dev/null 2>&3 3>&-); echo $? >&0; read -r _'
"""Tells the status of the command, then waits for the end of its standard input. It adds no word of its own."""
KILL_SECONDS = 5
"""For how long to kill what goes on starting others, or belongs to somebody else by now."""


class ShellCommand:
    """Runs it, in a session of its own: Ctrl-C at the terminal is napctl's alone. To be used as a context manager.

    At the end of the context what it left in the background goes on, unless end() was called.
    """

    def __init__(
        self,
        command: str,
        output: IO[bytes],
        errors: IO[bytes],
        *,
        env: Mapping[str, str] | None = None,
        namespace: NetworkNamespace | None = None,
    ):
        """`namespace`: the network namespace it runs in; None is the caller's."""
        self._told, theirs = socket.socketpair()

        def start() -> "subprocess.Popen[bytes]":
            return subprocess.Popen(
                ["/bin/sh", "-c", SUPERVISE, command],
                stdin=theirs.fileno(),
                stdout=output,
                stderr=errors,
                env=env,
                start_new_session=True,
                preexec_fn=adopt_orphans,  # noqa: PLW1509 - one system call, which needs no lock of another thread
            )

        with theirs:
            if namespace is None:
                self._shell = start()
            else:
                with namespace.entered():
                    self._shell = start()

    @property
    def pid(self) -> int:
        """Of the process that everything stands below; of its process group, too."""
        return self._shell.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.end()
        self._told.close()
        self._shell.wait()

    def waited(self, seconds: float) -> int | None:
        """Its exit status if it ends in that time, negative for a signal; None if it does not."""
        waiting = select.poll()
        waiting.register(self._told, select.POLLIN)
        if not waiting.poll(1000 * max(0.0, seconds)):
            return None
        said = self._told.recv(16)
        if not said:  # the outer shell was killed
            return self._shell.wait()
        status = int(said)
        return 128 - status if status - 128 in set(signal.Signals) else status  # as sh tells a death by a signal

    def end(self, patience_seconds: float = 0.0) -> None:
        """End all of it: ask for that many seconds, if any, then kill until nothing is left."""
        try:
            if patience_seconds and self._signal(signal.SIGTERM):
                deadline = time.monotonic() + patience_seconds
                while descendants([self.pid]) and time.monotonic() < deadline:
                    time.sleep(0.01)
        finally:  # also at a second Ctrl-C
            deadline = time.monotonic() + KILL_SECONDS
            while self._signal(signal.SIGKILL) and time.monotonic() < deadline:
                time.sleep(0.001)
            self._shell.kill()

    def _signal(self, number: signal.Signals) -> bool:
        """Whether there was anybody to send it to."""
        found = descendants([self.pid])
        for process in found:
            with suppress(ProcessLookupError, PermissionError):  # it has just ended; it belongs to somebody else
                os.kill(process.pid, number)
        return bool(found)
