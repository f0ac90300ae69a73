"""The lab's own programs in C, compiled at first use."""

import hashlib
import os
import subprocess
import tempfile
from importlib.resources import files
from pathlib import Path

from napctl.kernel.trusted_paths import refuse_foreign_directory, refuse_foreign_file
from napctl.lab.children import require
from napctl.model.errors import NapctlError

__all__ = ["compiled"]


def compiled(name: str) -> Path:
    """The program made of `name`.c. Raises Unsupported without a C compiler, BadInput if somebody else may have put
    there what would be run."""
    source = files("napctl.lab").joinpath(f"{name}.c").read_bytes()
    directory = Path(os.environ.get("NAPCTL_CACHE_DIR") or "/var/cache/napctl")
    binary = directory / f"{name}-{hashlib.sha256(source).hexdigest()[:16]}"
    refuse_foreign_directory(directory)
    refuse_foreign_file(binary)
    if binary.exists():
        return binary
    require("cc")
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory) as build:
        made = Path(build) / name
        command = ["cc", "-O2", "-x", "c", "-", "-o", str(made), "-lm"]
        done = subprocess.run(command, input=source, capture_output=True, check=False)
        if done.returncode:
            raise NapctlError(f"compiling {name}: {done.stderr.decode().strip().splitlines()[0]}")
        made.replace(binary)  # atomic: somebody else may be making the same
    return binary
