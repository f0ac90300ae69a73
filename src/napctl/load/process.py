"""Runs a load command once: fills in its template, keeps what it printed, reads the figures, leaves nothing running."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from msgspec.structs import replace

from napctl.kernel.namespaces import NetworkNamespace
from napctl.load.generator import GeneratorWatch
from napctl.load.shell import ShellCommand
from napctl.load.tools import Adapter, Reading, adapter_for, adapter_named
from napctl.load.tools.numbers import COLOUR, plain
from napctl.model.errors import BadInput, NapctlError

__all__ = ["LoadCommand", "load_name", "parse_rates", "run_load"]


MAX = 0.0
"""The rate that stands for as many requests as possible."""
ASK_SECONDS = 0.1
PATIENCE_SECONDS = 0.5
"""Between SIGTERM and SIGKILL."""
WORDS = 200
"""How much is quoted of what a command said last, characters."""
STDERR = "--- standard error ---"


def parse_rates(text: str) -> tuple[float, ...]:
    """ "5k,20k,max" as (5000.0, 20000.0, 0.0): requests per second, MAX for as many as possible. Raises BadInput."""
    rates = []
    for word in (part.strip() for part in text.split(",")):
        try:
            rate = MAX if word == "max" else plain(word)
        except ValueError:
            raise BadInput(f"'{word}' is no rate such as 500, 20k, 1.5M or max") from None
        if word != "max" and not rate:
            raise BadInput("a rate of 0 requests/s is no load; as many as possible is called max")
        if rate in rates:
            raise BadInput(f"the rate {word} is given twice")
        rates.append(rate)
    return tuple(rates)


def load_name(rate: float) -> str:
    """What a load is called: "20,000/s", "max"."""
    return f"{_written(rate, ',')}/s" if rate else "max"


@dataclass(frozen=True)
class LoadCommand:
    """A command that makes load, and how its output is read."""

    template: str
    """For /bin/sh, with {rate} (requests/s), {seconds} and {seed} to be filled in. All other braces are the shell's."""
    adapter: Adapter
    max_template: str = ""
    """For as many requests as possible; empty: `template` with a {rate} of 0."""

    def check(self, rates: Iterable[float]) -> None:
        """Raises BadInput if rates are to be asked for, and the command does not take one."""
        wanted = [rate for rate in rates if rate != MAX]
        if wanted and "{rate}" not in self.template:
            raise BadInput(f"the load command has no {{rate}} to fill {load_name(wanted[0])} in: {self.template}")

    @property
    def is_told_seconds(self) -> bool:
        """Whether the command is told for how long to make requests."""
        return "{seconds}" in self.template

    @classmethod
    def of(cls, template: str, *, adapter: str = "", max_template: str = "") -> Self:
        """With the adapter of that name (as adapter_named() takes it), or by default of the program's own.

        Raises BadInput if there is none.
        """
        found = adapter_named(adapter) if adapter else adapter_for(template)
        if found is None:
            raise BadInput(f"no load tool that napctl can read is called in: {template}")
        return cls(template, found, max_template)

    def filled_in(self, *, rate: float, seconds: float, seed: int) -> str:
        """The command for one run; a rate of MAX takes the template for it."""
        values = {"rate": _written(rate), "seconds": _written(seconds), "seed": str(seed)}
        template = self.max_template if rate == MAX and self.max_template else self.template
        return re.sub(r"\{(rate|seconds|seed)\}", lambda found: values[found[1]], template)


def run_load(
    load: LoadCommand,
    *,
    rate: float,
    seconds: float,
    seed: int,
    limit_seconds: float,
    raw_path: Path,
    namespace: NetworkNamespace | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Reading:
    """Run a load command once by /bin/sh, wait for its end, and read what it told.

    `rate`: requests per second, or MAX. `namespace`: the network namespace it runs in; None is the caller's. `raw_path`
    gets its standard output, and its standard error after that. It speaks the language C: numbers have a point.

    All that it started and that still runs is ended when the command has ended, when `limit_seconds` are over, when
    `is_stopped` says so, which is asked every 0.1 s, and at any exception, as Ctrl-C may be one: first it is asked to,
    for PATIENCE_SECONDS at most.

    Raises NapctlError, with its last words, if it failed, took too long, or told no figures; KeyboardInterrupt if it
    was stopped.
    """
    command = load.filled_in(rate=rate, seconds=seconds, seed=seed)
    errors_path = raw_path.with_name(f"{raw_path.name}.stderr")
    try:
        status, watch = _run(command, (raw_path, errors_path), limit_seconds, namespace, is_stopped)
    finally:
        output, errors = _merged(raw_path, errors_path)
    if status is None:
        raise NapctlError(f"the load did not end within {limit_seconds:g} s and was ended{_last_words(output, errors)}")
    if status:
        how = f"with status {status}" if status > 0 else f"by {_signal_name(-status)}"
        raise NapctlError(f"the load ended {how}{_last_words(output, errors)}")
    try:
        reading = load.adapter.read(output + ("" if output.endswith("\n") or not errors else "\n") + errors)
    except ValueError as error:
        raise NapctlError(f"{error}{_last_words(output, errors)}") from None
    saturated = watch.saturated if reading.saturated is None else reading.saturated
    return replace(reading, saturated=saturated, generator_seconds=watch.ran_seconds)


def _written(value: float, separator: str = "") -> str:
    return f"{int(value):{separator}}" if float(value).is_integer() else repr(float(value))


def _run(
    command: str,
    paths: tuple[Path, Path],
    limit_seconds: float,
    namespace: NetworkNamespace | None,
    is_stopped: Callable[[], bool],
) -> tuple[int | None, GeneratorWatch]:
    """Its exit status, negative for a signal, None if it took too long; and what was seen of it meanwhile.

    Nothing of it runs afterwards.
    """
    with (
        paths[0].open("wb") as output,
        paths[1].open("wb") as errors,
        ShellCommand(command, output, errors, env=os.environ | {"LC_ALL": "C"}, namespace=namespace) as load,
        _ended_with_us(load.pid),
    ):
        watch = GeneratorWatch(load.pid)
        try:
            return _status(load, limit_seconds, is_stopped, watch), watch
        finally:
            load.end(PATIENCE_SECONDS)


@contextmanager
def _ended_with_us(group: int) -> Iterator[None]:
    """If this process is killed meanwhile, the group is, too: a load that went on would be in the next measurement.

    A child waits for the end of a pipe whose other end only this process has.
    """
    read, write = os.pipe()
    try:
        waiting = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r _; kill -KILL "-$0"', str(group)], stdin=read, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            yield
        finally:
            waiting.kill()
            waiting.wait()
    finally:
        os.close(read)
        os.close(write)


def _status(load: ShellCommand, seconds: float, is_stopped: Callable[[], bool], watch: GeneratorWatch) -> int | None:
    """The exit status of a load if it ends in that time."""
    deadline = time.monotonic() + seconds
    while (status := load.waited(min(ASK_SECONDS, deadline - time.monotonic()))) is None:
        watch.look()
        if is_stopped():
            raise KeyboardInterrupt
        if time.monotonic() >= deadline:
            break
    return status


def _merged(raw_path: Path, errors_path: Path) -> tuple[str, str]:
    """Standard output and standard error; both are in `raw_path` afterwards."""
    if not errors_path.exists():
        return "", ""  # not even started
    output, errors = (path.read_bytes() for path in (raw_path, errors_path))
    if errors:
        with raw_path.open("ab") as raw:
            raw.write(b"\n" if output and not output.endswith(b"\n") else b"")
            raw.write(f"{STDERR}\n".encode() + errors)
    errors_path.unlink()
    return output.decode(errors="replace"), errors.decode(errors="replace")


def _last_words(output: str, errors: str) -> str:
    """What the command said last, to standard error if it said anything there; for the end of a sentence."""
    for text in (errors, output):
        lines = [line.strip() for line in re.split(r"[\r\n]", COLOUR.sub("", text)) if line.strip()]
        if lines:
            return f"; its last words: {lines[-1][:WORDS]}"
    return "; it said nothing"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
