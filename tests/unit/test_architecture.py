"""The rooms of the design, and the one direction in which they may import."""

import ast
from functools import cache
from pathlib import Path

import pytest

import napctl

PACKAGE = Path(napctl.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
TIERS = (
    {"cli"},
    {"service", "protect"},
    {"report", "experiment", "verify", "attach", "plan", "doctor"},
    {"load", "lab", "stats", "adapt", "census"},
    {"change", "observe"},
    {"kernel", "probe"},
    {"model"},
)
"""A room may import any room of a lower tier. docs/architecture.md draws it."""
WITHIN = {
    "report": {"experiment"},
    "experiment": {"attach", "plan"},
    "verify": {"plan"},
    "load": {"lab"},
    "service": {"protect"},
    "probe": {"kernel"},
}
"""And these of its own tier."""
PURE = {"doctor", "stats", "plan", "adapt"}
"""Rooms that stand on `model` alone."""
APPLYING = "plan/apply.py"
"""The one module of `plan` that does not."""
AT_THE_TOP = {"__main__.py": {"cli"}, "suspension.py": {"kernel", "model"}}
"""The same for modules that stand in no room: the entry point, and what other programs import."""


def may_import(module: Path) -> set[str]:
    """The rooms that a module may import."""
    here = module.relative_to(PACKAGE).parts[0]
    if here in AT_THE_TOP or here == "__init__.py":
        return AT_THE_TOP.get(here, set())
    if here in PURE and str(module.relative_to(PACKAGE)) != APPLYING:
        return {here, "model"}
    tier = next(number for number, rooms in enumerate(TIERS) if here in rooms)
    return {here} | WITHIN.get(here, set()) | set().union(*TIERS[tier + 1 :])


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


@cache
def tree_of(module: Path) -> ast.Module:
    """What it says; read once for all tests."""
    return ast.parse(module.read_text())


@cache
def imports(module: Path) -> set[str]:
    """Dotted names of everything that a module imports, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(tree_of(module)):
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
    assert rooms == set().union(*TIERS)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_imports_run_one_way(module: Path) -> None:
    led_to = {found for name in imports(module) if (found := room(name))}
    assert led_to <= may_import(module), f"it must not import {led_to - may_import(module)}"


def test_a_base_name_stands_once_in_cli_once_in_model_and_once_in_one_room_besides() -> None:
    places: dict[str, dict[str, list[str]]] = {}
    for module in MODULES:
        inside = module.relative_to(PACKAGE)
        if module.stem.startswith("__") or len(inside.parts) == 1:
            continue
        kind = inside.parts[0] if inside.parts[0] in ("cli", "model") else "besides"
        places.setdefault(module.stem, {}).setdefault(kind, []).append(str(inside))
    assert [paths for kinds in places.values() for paths in kinds.values() if len(paths) > 1] == []


OF_TWO_MODULES = {"Histogram", "Known", "Meter", "Trial"}
"""Public classes of which there are two: the kernel's struct and the value read from it, and what one module of each
room alone needs to know, measures with, or tries."""


def test_the_name_of_a_public_class_stands_once() -> None:
    places: dict[str, list[str]] = {}
    for module in MODULES:
        for node in tree_of(module).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(str(module.relative_to(PACKAGE)))
    twice = {name: modules for name, modules in places.items() if len(modules) > 1}
    assert twice.keys() == OF_TWO_MODULES, twice


@pytest.mark.parametrize(
    "package", sorted({module.parent for module in MODULES} - {PACKAGE}), ids=lambda each: each.name
)
def test_each_room_says_what_it_is_for(package: Path) -> None:
    assert (ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or "").strip()


def names_of_each_module_that_others_use() -> dict[Path, set[str]]:
    """By module: the names that other modules of napctl import from it."""
    found: dict[Path, set[str]] = {}
    for module in MODULES:
        for node in ast.walk(tree_of(module)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("napctl."):
                path = PACKAGE.parent.joinpath(*(node.module or "").split(".")).with_suffix(".py")
                if path.exists() and path != module:
                    found.setdefault(path, set()).update(alias.name for alias in node.names)
    return found


USED = names_of_each_module_that_others_use()


@pytest.mark.parametrize("module", sorted(USED), ids=lambda module: str(module.relative_to(PACKAGE)))
def test_what_others_use_of_a_module_stands_in_its_all(module: Path) -> None:
    tree = tree_of(module)
    assigned = [node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]
    defined = {name.id for node in assigned for name in ast.walk(node) if isinstance(name, ast.Name)}
    defined |= {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    (public,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ] or [[]]
    assert USED[module] <= set(public), f"not in its __all__: {USED[module] - set(public)}"
    assert set(public) <= defined, f"not there: {set(public) - defined}"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_the_model_does_no_input_or_output(module: Path) -> None:
    if module.relative_to(PACKAGE).parts[0] == "model":
        assert not {name.split(".")[0] for name in imports(module)} & INPUT_AND_OUTPUT


def test_importing_a_command_does_not_import_what_only_printing_needs() -> None:
    for module in MODULES:
        for node in tree_of(module).body:
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
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in WRITERS and module != DOOR
    }
    assert {each.partition(":")[0] for each in found} <= {"cli/safe_import.py"}, found  # whose table goes nowhere
