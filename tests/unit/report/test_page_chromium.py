"""Promises of a report's page in headless Chromium: by keyboard, on a phone, dark, and in print."""

import os
import shutil
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from re import DOTALL, findall

import pytest
from msgspec.structs import replace
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from napctl.report.page.page import page_of
from tests.unit import runs

CHROMIUM = shutil.which("chromium") or ""
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
DESKTOP, PHONE = 1280, 360
LONG = "a-treatment-whose-name-is-" + "very-" * 20 + "long"

IN_CI = os.environ.get("CI") == "true"  # where what cannot run is a failure
pytestmark = [
    pytest.mark.skipif(not CHROMIUM and not IN_CI, reason="chromium is not installed"),
    pytest.mark.heavy,
    pytest.mark.xdist_group("chromium"),  # one browser for all of them
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def one(directory: Path) -> Path:
    return written(directory / "one.html", page_of([runs.run()]))


@pytest.fixture(scope="module")
def two(directory: Path) -> Path:
    return written(directory / "two.html", page_of([runs.run(), runs.run("today", slower=1.2)]))


@pytest.fixture(scope="module")
def odd(directory: Path) -> Path:
    """Names longer than any screen is wide."""
    run = runs.run()
    names = {"suspend:20us": LONG, "max": LONG.upper()}
    cells = tuple(
        replace(each, treatment=names.get(each.treatment, each.treatment), load=names.get(each.load, each.load))
        for each in run.cells
    )
    asked = replace(run.config, name=LONG, treatments=tuple(names.get(name, name) for name in run.config.treatments))
    return written(directory / "odd.html", page_of([replace(run, config=asked, cells=cells,
                                                            summary=runs.summary(asked, cells))]))  # fmt: skip


def written(path: Path, html: str) -> Path:
    path.write_text(html)
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as play:
        found = play.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield found
        found.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    found = browser.new_context()
    yield found
    found.close()


def opened(context: BrowserContext, path: Path, width: int = DESKTOP) -> Page:
    """The page, which must ask for nothing but itself and complain of nothing."""
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": 800})
    heard: list[str] = []
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("request", lambda request: heard.append(request.url))
    page.goto(path.as_uri())
    assert [each for each in heard if each not in (path.as_uri(), "data:,")] == []
    return page


def headless(profile: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [CHROMIUM, "--headless", *FLAGS, "--enable-logging=stderr", f"--user-data-dir={profile}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)


def test_chromium_alone_renders_it_without_a_word_on_its_console(one: Path, tmp_path: Path) -> None:
    picture = tmp_path / "page.png"
    shown = headless(tmp_path / "profile", "--dump-dom", one.as_uri())
    assert "CONSOLE" not in shown.stderr
    assert shown.stdout.count('class="point') > 100
    headless(tmp_path / "profile", f"--screenshot={picture}", "--window-size=1280,900", one.as_uri())
    data = picture.read_bytes()
    assert data.startswith(b"\x89PNG")
    pixels = zlib.decompress(b"".join(chunks(data, b"IDAT")))
    assert len({pixels[at] for at in range(0, len(pixels), 997)}) > 5  # not one blank sheet


def chunks(png: bytes, kind: bytes) -> Iterator[bytes]:
    """Of a PNG (RFC 2083): length, kind, data, checksum."""
    at = 8
    while at < len(png):
        size = int.from_bytes(png[at : at + 4])
        if png[at + 4 : at + 8] == kind:
            yield png[at + 8 : at + 8 + size]
        at += size + 12


def test_the_data_points_lie_within_their_charts(context: BrowserContext, one: Path) -> None:
    page = opened(context, one)
    outside = page.evaluate(
        """() => [...document.querySelectorAll('.chart')].flatMap(chart => {
             const all = chart.getBoundingClientRect();
             return [...chart.querySelectorAll('.point .mark, .point .bar, .point .error')].filter(mark => {
               const own = mark.getBoundingClientRect();
               return own.left < all.left - 1 || own.right > all.right + 1
                   || own.top < all.top - 1 || own.bottom > all.bottom + 1;
             }).map(mark => mark.outerHTML)})"""
    )
    assert outside == []
    assert page.locator("#p99 .point .mark").count() == 12


def test_every_data_point_is_reached_by_tab_and_tells_itself(context: BrowserContext, one: Path) -> None:
    page = opened(context, one)
    page.locator("#p99 .skip").focus()
    for number in range(12):
        page.keyboard.press("Tab")
        label, shown = page.evaluate(
            """() => { const point = document.activeElement;
                 return [point.getAttribute('aria-label'), getComputedStyle(point.querySelector('.tip')).opacity] }"""
        )
        assert (" µs (" in label, shown) == (True, "1"), number
    assert label.startswith("suspend:200us, max: ")


def test_a_keyboard_can_pass_by_a_chart(context: BrowserContext, one: Path) -> None:
    page = opened(context, one)
    page.locator("#p99 .skip").focus()
    assert page.locator("#p99 .skip").bounding_box()["x"] >= 0  # type: ignore[index]  # it is on the page
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "The same as a table"


@pytest.mark.parametrize("name", ["one", "two", "odd"])
def test_nothing_is_wider_than_the_screen(context: BrowserContext, request: pytest.FixtureRequest, name: str) -> None:
    page = opened(context, request.getfixturevalue(name))
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    for width in (PHONE, 768, DESKTOP):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_letters_are_large_enough_on_a_phone(context: BrowserContext, one: Path) -> None:
    page = opened(context, one, PHONE)
    scale = page.evaluate("(() => { const c = document.querySelector('#p99 .chart');"
                          " return c.getBoundingClientRect().width / c.viewBox.baseVal.width })()")  # fmt: skip
    assert scale * 12 >= 10
    assert page.evaluate("parseFloat(getComputedStyle(document.body).fontSize)") >= 16


def test_it_is_dark_where_that_is_preferred(context: BrowserContext, one: Path) -> None:
    page = opened(context, one)
    grounds = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(255, 255, 255)", "rgb(20, 23, 26)"]
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


@pytest.mark.parametrize("name", ["one", "two"])
def test_in_print_all_tables_are_there_and_nothing_is_cut_off(
    context: BrowserContext, request: pytest.FixtureRequest, name: str
) -> None:
    page = opened(context, request.getfixturevalue(name))
    pages = findall(rb"/Type\s*/Page\b", page.pdf(format="A4"), DOTALL)
    assert 5 <= len(pages) <= 60
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 688, "height": 1000})  # A4 less its margins, at 96 dots an inch
    assert page.evaluate("document.documentElement.scrollWidth") <= 688
    assert page.locator("#tables ~ details table").first.is_visible()
