"""What is written of `napctl.suspension`, and what it costs to import."""

import ast
import re
import subprocess
import sys
from pathlib import Path

from napctl.suspension import (
    CAN_BE_ACTIVE,
    CANNOT_TELL,
    ENDED,
    MISSING,
    NO_NAPI,
    NOT_SET,
    NOT_SUPPORTED,
    SEVERAL,
)

ROOT = Path(__file__).parents[2]


def test_importing_it_imports_neither_the_command_line_nor_an_event_loop() -> None:
    heavy = {"click", "rich", "asyncio", "uvloop", "selectors", "ctypes", "socket", "napctl.kernel.netdev"}
    code = "import sys, napctl.suspension; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not heavy & set(loaded)


def test_the_documented_server_is_the_one_in_examples() -> None:
    page = (ROOT / "docs" / "python.md").read_text()
    example = (ROOT / "examples" / "asyncio_server.py").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    assert example in blocks
    assert example.count("\n") <= 50


def test_the_documentation_names_every_verdict_and_its_examples_are_python() -> None:
    page = (ROOT / "docs" / "python.md").read_text()
    for verdict in (CAN_BE_ACTIVE, SEVERAL, MISSING, NO_NAPI, NOT_SET, NOT_SUPPORTED, CANNOT_TELL, ENDED):
        assert f"`{verdict}`" in page, verdict
    for block in re.findall(r"^```python\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE):
        ast.parse(block)
