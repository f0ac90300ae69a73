"""A running service, its policy, its guard, and what a scrape of it shows."""

import signal
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from napctl.change.guard_lock import is_on_watch
from tests.lab.following import Following, ended_by
from tests.lab.helpers import Napctl, until

START = """
import sys
from napctl.__main__ import main
sys.argv = sys.argv[1:]
main()
"""
"""Of a napctl that something was done to before."""
WITHOUT_ADOPTION = """
import napctl.service.target_keeper
napctl.service.target_keeper.is_adoptable = lambda _: False
"""
"""The feature taken out, to see what a test would see then."""
HURRIED = """
import napctl.service.exposure, napctl.service.own_guard
from napctl.change.journal import Journal
Journal.__init__.__kwdefaults__["patience_seconds"] = 1
napctl.service.exposure.SNAPSHOT_SECONDS = 1
napctl.service.own_guard.LOOK_SECONDS = 1
"""
"""It waits for another napctl, for the next snapshot, and for the next look at its guard, a second each: it is no
promise that it is ten or fifteen."""
SLEEPING = """
import time
import napctl.service.daemon
began = time.monotonic()
class Slept:
    told = False
    def slept_ns(self):
        if self.told or time.monotonic() < began + 3:
            return 0
        self.told = True
        return 8 * 3600 * 10**9
napctl.service.daemon.SleepWatch = Slept
"""
"""A machine that sleeps for eight hours three seconds after its start."""


def policy_of(directory: Path, *entries: object, service: str = "") -> Path:
    """One that attaches these: a target, a pid, or either with its timer in µs."""
    text = ""
    for each in entries:
        target, defer_us = each if isinstance(each, tuple) else (each, 200)
        name = f"pid:{target}" if isinstance(target, int) else target
        text += f'[[attach]]\ntarget = "{name}"\ndefer-us = {defer_us}\n'
    return write(directory / "policy.toml", f"{text}[service]\n{service}\n")


def write(path: Path, text: str) -> Path:
    """Nobody but root may write to a policy."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.chmod(0o644)
    return new.replace(path)


@contextmanager
def serving(
    napctl: Napctl,
    policy: Path,
    *arguments: object,
    under: Sequence[str] = (),
    before: str = "",
) -> Iterator[Following]:
    """A `napctl daemon`, which is stopped at the end if it still runs. `before`: what its process runs first."""
    if before:
        under = [*under, sys.executable, "-c", before + START]
    command = ("daemon", "--policy", policy, "--log-format", "json", *arguments)
    with ended_by(signal.SIGTERM, Following(napctl.start(*command, under=under), traced=bool(under))) as it:
        yield it


@contextmanager
def guarding(napctl: Napctl) -> Iterator[list[str]]:
    """A `napctl guard` that watches; after its end the list has the lines that it told."""
    guard, told = napctl.start("guard"), list[str]()
    try:
        until(lambda: is_on_watch(napctl.state), "the guard of the service")
        yield told
    finally:
        guard.terminate()
        output, errors = guard.communicate(timeout=60)
        told += output.splitlines()
        assert (guard.returncode, errors) == (0, "")


def guards_gone(napctl: Napctl) -> None:
    """Wait for the guards that a daemon started to go home."""
    until(lambda: not napctl.guards(), "its guard to go home")


def scraped(port: int) -> dict[str, float]:
    """Each sample of a scrape, by name and labels: `napctl_target_attached{target="nginx"}`. Raises OSError."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for each in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(each.labels.items()))
            found[f"{each.name}{{{labels}}}" if labels else each.name] = each.value
    return found


def memory_bytes(pid: int) -> int:
    """Pss of /proc/PID/smaps_rollup: what others use as well counts in part."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    (line,) = (each for each in lines if each.startswith("Pss:"))
    return int(line.split()[1]) * 1024


def open_files(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
