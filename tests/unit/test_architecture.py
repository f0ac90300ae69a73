"""The rooms of the design, and the one direction in which they may import."""

import ast
from pathlib import Path

import pytest

import napctl

PACKAGE = Path(napctl.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
ABOVE = {"measure", "verify", "attach", "change", "advise", "observe", "lab"}
MAY_IMPORT = {
    "model": {"model"},
    "kernel": {"kernel", "model"},
    "probe": {"probe", "kernel", "model"},
    "observe": {"observe", "kernel", "probe", "model"},
    "advise": {"advise", "model"},
    "change": {"change", "advise", "observe", "kernel", "model"},
    "attach": {"attach", "change", "observe", "kernel", "probe", "model"},
    "lab": {"lab", "kernel", "model"},
    "verify": {"verify", "change", "advise", "observe", "kernel", "probe", "model"},
    "measure": ABOVE | {"kernel", "probe", "model"},
    "cli": ABOVE | {"cli", "kernel", "probe", "model"},
}
"""Room: rooms that its modules may import. docs/architecture.md draws it."""
AT_THE_TOP = {"__main__.py": MAY_IMPORT["cli"], "suspension.py": {"kernel", "model"}}
"""The same for modules that stand in no room: the entry point, and what other programs import."""
INPUT_AND_OUTPUT = {
    "os",
    "pathlib",
    "socket",
    "subprocess",
    "sqlite3",
    "fcntl",
    "mmap",
    "ctypes",
    "time",
    "rich",
    "click",
}


def imports(module: Path) -> set[str]:
    """Dotted names of everything that a module imports, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(name: str) -> str | None:
    """The room that a dotted name leads to; None for napctl itself and for others' packages."""
    parts = name.split(".")
    return parts[1] if parts[0] == "napctl" and len(parts) > 1 and (PACKAGE / parts[1]).is_dir() else None


def test_every_module_stands_in_a_room_of_the_design() -> None:
    rooms = {module.relative_to(PACKAGE).parts[0] for module in MODULES if module.parent != PACKAGE}
    assert rooms == set(MAY_IMPORT)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_imports_run_one_way(module: Path) -> None:
    here = module.relative_to(PACKAGE).parts[0]
    led_to = {found for name in imports(module) if (found := room(name))}
    may = (MAY_IMPORT | AT_THE_TOP).get(here, set())
    assert led_to <= may, f"{here} must not import {led_to - may}"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_the_model_does_no_input_or_output(module: Path) -> None:
    if module.relative_to(PACKAGE).parts[0] == "model":
        assert not {name.split(".")[0] for name in imports(module)} & INPUT_AND_OUTPUT


def test_importing_a_command_does_not_import_what_only_printing_needs() -> None:
    for module in MODULES:
        for node in ast.parse(module.read_text()).body:
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.split(".")[0] == "rich" for name in names), f"{module} imports rich at its top"


DOOR = PACKAGE / "cli" / "terminal.py"
WRITERS = {
    "click.echo", "click.secho", "click.echo_via_pager", "print", "Console", "Live",
    "sys.stdout.write", "sys.stdout.buffer.write", "sys.stderr.write", "sys.stderr.buffer.write",
}  # fmt: skip


def test_nothing_is_written_to_the_terminal_but_through_the_one_door() -> None:
    """It makes names printable: a command that writes past it writes whatever a process or a device is called."""
    found = {
        f"{module.relative_to(PACKAGE)}:{node.lineno}: {ast.unparse(node.func)}"
        for module in MODULES
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in WRITERS and module != DOOR
    }
    assert {each.partition(":")[0] for each in found} <= {"cli/loading.py"}, found  # whose table goes nowhere
