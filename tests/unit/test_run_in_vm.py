"""scripts/run-in-vm, as far as no machine has to be booted for it."""

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/run-in-vm"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the virtual machine is made for x86-64")
@pytest.mark.parametrize(
    ("there", "missing", "package"),
    [([], "flock", "util-linux"), (["flock"], "ip", "iproute2"), (["flock", "ip"], "modprobe", "kmod"),
     (["flock", "ip", "modprobe"], "qemu-system-x86_64", "qemu-system-x86")],
)  # fmt: skip
def test_a_tool_that_is_missing_is_one_line_that_names_its_package(
    there: list[str], missing: str, package: str, tmp_path: Path
) -> None:
    for tool in there:
        found = shutil.which(tool)
        if found is None:
            pytest.skip(f"there is no {tool} here")
        (tmp_path / tool).symlink_to(found)

    done = subprocess.run(
        [sys.executable, SCRIPT, "true"], capture_output=True, text=True, env={"PATH": str(tmp_path)}, check=False
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"run-in-vm: there is no {missing} here: install {package}\n"
