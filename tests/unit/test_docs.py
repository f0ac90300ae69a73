"""Promises of README and docs: what they point to is there, times that several name agree, and they are short."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src/napctl"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
ROOMS = "|".join(sorted(each.name for each in PACKAGE.iterdir() if each.is_dir() and each.name != "__pycache__"))
FILES = re.compile(rf"`((?:{ROOMS}|src|tests|scripts|docs)/[\w/.-]+\.\w+)`")
LINKS = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")
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
