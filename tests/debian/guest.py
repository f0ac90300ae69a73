"""A Debian 13 with systemd, booted from a disk in the virtual machine of scripts/run-in-vm, and driven from here."""

import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

ROOT = Path(__file__).parents[2]
SERVE = """
while IFS= read -r line; do
    eval "line=$line"
    sh -c "$line" >/run/vm/output 2>/run/vm/errors </dev/null
    echo "$? $(stat -c %s /run/vm/output) $(stat -c %s /run/vm/errors)"
    cat /run/vm/output /run/vm/errors
done
"""
"""The guest's half: a command on each line, quoted; back come its exit status, what it wrote, and how long that is."""
BOOT_SECONDS = 300
"""Emulated, it takes 60 s."""


@dataclass(frozen=True)
class Done:
    """A command that has ended in the guest."""

    status: int
    stdout: str
    stderr: str


class Guest:
    """One boot of a disk; leaving it shuts the system down, and what it wrote is there at the next boot."""

    def __init__(self, disk: Path, *, limit_seconds: float = 1800) -> None:
        command: list[str | Path] = [
            *(ROOT / "scripts/run-in-vm", "--timeout", str(limit_seconds), "--disk", disk, "--stdin"),
            *("bash", "-c", SERVE),
        ]
        self._machine = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """As `systemctl poweroff` does it; after an error the machine is ended as it is."""
        with self._machine:  # its pipes are closed in the end
            if kind is not None:
                self.cut_power()
                return
            self._input.close()
            assert self._machine.wait(BOOT_SECONDS) == 0

    @property
    def _input(self) -> IO[bytes]:
        assert self._machine.stdin is not None
        return self._machine.stdin

    def cut_power(self) -> None:
        """End it at once; what it has not written to its disk by then is lost."""
        self._machine.terminate()
        self._machine.wait()

    def try_to(self, script: str) -> Done:
        """Run a script of sh as root, below a service of its own, and wait for its end."""
        self._input.write(shlex.quote(script).replace("\n", "'$'\\n''").encode() + b"\n")
        self._input.flush()
        output = self._machine.stdout
        assert output is not None
        answer = output.readline()
        assert answer, "the machine has ended"
        status, *sizes = map(int, answer.split())
        stdout, stderr = (output.read(size).decode(errors="replace") for size in sizes)
        return Done(status, stdout, stderr)

    def run(self, script: str) -> str:
        """The same for one that must not fail; what it wrote."""
        done = self.try_to(script)
        assert done.status == 0, f"{script}: {done}"
        return done.stdout
