"""The command line in a fork of the tests: each start of the program imports it anew, an emulated CPU takes seconds."""

import gc
import importlib
import os
import select
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import IO, NoReturn, TextIO

from napctl.__main__ import main
from napctl.cli.main import COMMANDS
from tests.lab.helpers import Napctl, Ran

PRINTING = ("rich.console", "rich.progress", "rich.table")
"""What commands import only when they print."""
FILES = 1 << 16


@dataclass(frozen=True)
class ForkedNapctl(Napctl):
    """As Napctl, unless it is run `under` another program or only started."""

    def __call__(self, *arguments: object, under: Sequence[str] = (), timeout_s: float = 30, **environment: str) -> Ran:
        if under:
            return super().__call__(*arguments, under=under, timeout_s=timeout_s, **environment)
        words = [str(each) for each in arguments]
        for module in (*PRINTING, *(f"napctl.cli.{word}" for word in words[:1] if word in COMMANDS)):
            importlib.import_module(module)
        with TemporaryFile() as output, TemporaryFile() as errors:
            pid = os.fork()
            if pid == 0:
                become(["napctl", *words], self.environment | environment, output, errors)
            status = waited_for(pid, timeout_s)
            return Ran(os.waitstatus_to_exitcode(status), text_of(output), text_of(errors))


def become(words: list[str], environment: dict[str, str], output: IO[bytes], errors: IO[bytes]) -> NoReturn:
    """Of this fork: run that command line and end, as a new process would."""
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output.fileno(), 1)
        os.dup2(errors.fileno(), 2)
        gc.freeze()  # what the tests hold open is closed here, and no object of theirs closes those numbers once more
        os.closerange(3, FILES)
        sys.stdin, sys.stdout, sys.stderr = (stream(number) for number in range(3))
        os.environ.update(environment)
        sys.argv = words
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        warnings.simplefilter("ignore")
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        for each in (sys.stdout, sys.stderr):
            each.flush()
        os._exit(status)


def stream(number: int) -> TextIO:
    """As the interpreter makes it: whoever replaces it does not close the descriptor."""
    return open(number, "w" if number else "r", buffering=1 if number == 2 else -1, closefd=False)


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
