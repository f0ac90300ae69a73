"""Promises of README and docs: what they point to is there, times that several name agree, and they are short."""

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import click
import pytest

from napctl.cli.main import cli

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src/napctl"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
ROOMS = "|".join(sorted(each.name for each in PACKAGE.iterdir() if each.is_dir() and each.name != "__pycache__"))
FILES = re.compile(rf"`((?:{ROOMS}|src|tests|scripts|docs)/[\w/.-]+\.\w+)`")
LINKS = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")
COMMAND_LINE = re.compile(r"^ {4,}(?:[$#] )?napctl ([^\[\n]*)$", re.MULTILINE)
TARGET_TIME = re.compile(r"^[^#\n]*\bmake (demo|test(?:-\w+)?)\b[^\n]*?(\d+) (minutes|hours)", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for path, anchor in LINKS.findall(page.read_text()):
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_named_is_there(page: Path) -> None:
    named = FILES.findall(page.read_text())
    assert [each for each in named if not (ROOT / each).exists() and not (PACKAGE / each).exists()] == []


def test_times_of_the_targets_are_the_same_wherever_they_are_named() -> None:
    times: dict[str, set[str]] = {}
    for page in (ROOT / "Makefile", *PAGES):
        for target, number, unit in TARGET_TIME.findall(page.read_text()):
            times.setdefault(target, set()).add(f"{number} {unit}")
    assert set(times) >= {"demo", "test", "test-vm", "test-long"}
    assert {target: found for target, found in times.items() if len(found) > 1} == {}


@pytest.mark.parametrize(("page", "most"), [("README.md", 180), ("docs/architecture.md", 120)])
def test_what_is_to_be_read_to_its_end_is_short(page: str, most: int) -> None:
    assert len((ROOT / page).read_text().splitlines()) <= most


def test_pictures_are_well_formed_and_a_page_shows_each() -> None:
    shown = {(page.parent / path).resolve() for page in PAGES for path, _ in LINKS.findall(page.read_text())}
    for picture in (ROOT / "docs").glob("*.svg"):
        assert ElementTree.fromstring(picture.read_bytes()).tag == "{http://www.w3.org/2000/svg}svg"
        assert picture in shown


def commands(group: click.Group = cli, before: str = "") -> Iterator[tuple[str, click.Command]]:
    """Each with its name, such as "policy check"."""
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{before}{name} ")
        else:
            yield before + name, command


def parse(words: Sequence[str], command: click.Command | None = cli) -> None:
    """As the command line is; nothing is run, and nothing has to be there. Raises click.UsageError."""
    assert command is not None
    if isinstance(command, click.Group):
        parse(words[1:], command.get_command(click.Context(command), words[0]))
        return
    context = click.Context(command)
    given, _, _ = command.make_parser(context).parse_args(list(words))
    for each in command.params:
        if isinstance(each.type, click.Choice) and each.name in given:
            each.type_cast_value(context, given[each.name])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_that_a_page_shows_are_such_as_napctl_takes(page: Path) -> None:
    for line in COMMAND_LINE.findall(page.read_text()):
        parse(shlex.split(line.removesuffix("\\").partition(" |")[0], comments=True))


def test_the_page_of_json_has_every_command_that_takes_it() -> None:
    table = (ROOT / "docs/json.md").read_text().partition("| command | object |")[2].partition("\n\n")[0]
    told = {name for row in table.splitlines() for name in re.findall("`([^`]*)`", row.split("|")[1:2].pop(0))}
    assert told == {name for name, each in commands() if any(param.name == "as_json" for param in each.params)}
