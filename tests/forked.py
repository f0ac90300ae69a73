"""The command line in a fork of the tests: each start of the program imports it anew, an emulated CPU takes seconds."""

import faulthandler
import gc
import importlib
import mmap
import os
import select
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, NoReturn, TextIO

from napctl.__main__ import main
from napctl.change.journal import STATE_VARIABLE
from napctl.cli.main import COMMANDS
from tests.lab.helpers import PROGRAM, Napctl, Ran
from tests.watchdog import MARK

PRINTING = ("rich.console", "rich.progress", "rich.table")
"""What commands import only when they print."""
FILES = 1 << 16
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
HELD: list[object] = []
"""Until this process ends."""


@dataclass(frozen=True)
class ForkedNapctl(Napctl):
    """As Napctl, unless it is run `under` another program."""

    def __call__(self, *arguments: object, under: Sequence[str] = (), timeout_s: float = 60, **environment: str) -> Ran:
        if under:
            return super().__call__(*arguments, under=under, timeout_s=timeout_s, **environment)
        words = [str(each) for each in arguments]
        import_command(words)
        with TemporaryFile() as output, TemporaryFile() as errors:
            streams = (os.devnull, output, errors)
            with forking():
                pid = os.fork()
                if pid == 0:
                    become(main, ["napctl", *words], started_as(words), self.environment | environment, streams)
            status = waited_for(pid, timeout_s)
            return Ran(os.waitstatus_to_exitcode(status), text_of(output), text_of(errors))


def started_as(words: Sequence[str]) -> list[str]:
    return [sys.executable, str(PROGRAM), *words]


def forked(
    run: Callable[[], object], words: Sequence[str], command: Sequence[str], environment: Mapping[str, str]
) -> subprocess.Popen[str]:
    """A process that runs this with these words as its command line, as if it had been executed by that command. The
    caller ends it."""
    with forking():
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            restore_signals=False,  # they are as the interpreter makes them
            preexec_fn=lambda: become(run, words, command, environment),  # noqa: PLW1509 - does not return: no exec
        )


def import_command(words: Sequence[str]) -> None:
    """What a command runs with, once for all forks."""
    for module in (*PRINTING, *(f"napctl.cli.{word}" for word in words[:1] if word in COMMANDS)):
        importlib.import_module(module)


@contextmanager
def forking() -> Iterator[None]:
    """A signal that comes too early is for the program, not for what it is a fork of."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of the threads, which read what others tell
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def become(
    run: Callable[[], object], words: Sequence[str], command: Sequence[str], environment: Mapping[str, str],
    streams: Sequence[str | IO[bytes]] = (),
) -> NoReturn:  # fmt: skip
    """Of this fork: run that, and end, as a new process would. `streams`: unless they are in place."""
    status = 0
    try:
        for number, stream in enumerate(streams):
            os.dup2(os.open(stream, os.O_RDONLY) if isinstance(stream, str) else stream.fileno(), number)
        gc.freeze()  # what the tests hold open is closed here, and no object of theirs closes those numbers once more
        os.closerange(3, FILES)
        sys.stdin, sys.stdout, sys.stderr = (opened(number) for number in range(3))
        sys.argv, sys.orig_argv = [*words], [*command]
        warnings.simplefilter("ignore")
        faulthandler.disable()
        show(environment)
        as_if_executed()
        run()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        status = 1
        traceback.print_exc()
    finally:
        for each in (sys.stdout, sys.stderr):
            with suppress(OSError):  # who would read it has gone
                each.flush()
        os._exit(status)


def opened(number: int) -> TextIO:
    """As the interpreter makes it: whoever replaces it does not close the descriptor."""
    return open(number, "w" if number else "r", buffering=1 if number == 2 else -1, closefd=False)


def show(environment: Mapping[str, str]) -> None:
    """Have that environment, and be called napctl. /proc/PID/environ goes on to show that of the tests: names in
    /proc/PID/maps tell the rest, also of what this forks, as watchdog.shows() knows."""
    os.environ.update(environment)
    for name in (MARK, STATE_VARIABLE):
        if name in os.environ:
            shown = os.memfd_create(f"{name}={os.environ[name]}")
            os.truncate(shown, mmap.PAGESIZE)
            HELD.append(mmap.mmap(shown, mmap.PAGESIZE))
            os.close(shown)
    with suppress(OSError):
        Path("/proc/self/comm").write_text("napctl")


def as_if_executed() -> None:
    """What the tests catch has its default effect, but for Ctrl-C: the interpreter catches that as well."""
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)) and number != signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
    caught = signal.getsignal(signal.SIGINT)
    if callable(caught):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)  # whatever has come by now ends this process
    if callable(caught):
        signal.signal(signal.SIGINT, signal.default_int_handler)


def waited_for(pid: int, seconds: float) -> int:
    """Its status as wait(2) tells it; killed if it takes longer."""
    process = os.pidfd_open(pid)
    try:
        if not select.select([process], [], [], seconds)[0]:
            os.kill(pid, signal.SIGKILL)
    finally:
        os.close(process)
    return os.waitpid(pid, 0)[1]


def text_of(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()
