"""A load generator of the lab that runs: what it says when it begins, and what it prints at its end."""

import subprocess
from typing import Generic, TypeVar

from napctl.model.errors import NapctlError
from napctl.model.value import Value, from_json

__all__ = ["RunningGenerator"]


R = TypeVar("R", bound=Value)
BESIDE_SECONDS = 10
"""What it may take beside its load."""


class RunningGenerator(Generic[R]):
    """`name`: for messages. It ends by itself, after so many seconds and what it takes besides."""

    def __init__(self, process: subprocess.Popen[bytes], name: str, seconds: float, result: type[R]):
        self.process = process
        self._name, self._limit_seconds, self._result = name, BESIDE_SECONDS + seconds, result

    def wait_until(self, said: str) -> None:
        """Return when it has said that. Raises NapctlError if it failed before."""
        assert self.process.stderr is not None
        line = self.process.stderr.readline().decode().strip()
        if line != said:
            raise NapctlError(line or f"{self._name} ended before it was {said}")

    def result(self) -> R:
        """Wait for its end. Raises NapctlError if it failed."""
        try:
            output, errors = self.process.communicate(timeout=self._limit_seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise NapctlError(f"{self._name} did not end within {self._limit_seconds:.0f} s") from None
        if self.process.returncode:
            words = errors.decode(errors="replace").strip().splitlines()
            raise NapctlError(words[-1] if words else f"{self._name} ended with {self.process.returncode}")
        return from_json(output, self._result)

    def stop(self) -> R:
        """End it now; what it tells until now."""
        self.process.terminate()
        return self.result()
