"""The HTML report in a real browser: no complaints, no requests, whole on a phone, few sheets."""

import asyncio
from pathlib import Path

import pytest

from loadbench import runlog
from loadbench.model import End, Record
from loadbench.report.html import report, write
from tests.browser import CHROMIUM, Page, browser, sheets
from tests.records import start, window
from tests.storyline import Story, records
from tests.test_durable import searched
from tests.test_report_page import told

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")
# elements that reach beyond the page, without those that scroll inside their own box
_BEYOND = """[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll,pre,svg')
  && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"""
_OVERLAPPING = """[...document.querySelectorAll('svg.chart')].flatMap(chart => {
  const ticks = [...chart.querySelectorAll('text.x')].map(t => t.getBoundingClientRect())
    .filter(box => box.width);
  return ticks.slice(1).filter((box, at) => box.left < ticks[at].right).map(box => chart.ariaLabel);
})"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a run with everything, with names that would like to be elements."""
    folder = tmp_path_factory.mktemp("browser")
    bad = "<img src=x onerror=document.title='owned'>" * 4
    story = Story(seconds=60, spike=(30, 40), names=(bad, "a-name-without-any-space-" * 8))
    made = told(folder, list(records(story)), title=bad, scenario="steady", command=[bad])
    file = folder / "report.html"
    write(file, report([made]))
    return file


def visit(folder: Path, file: Path) -> None:
    async def look() -> None:
        async with browser(folder) as tab:
            for width, dark in ((1280, False), (1280, True), (390, False), (390, True)):
                await tab.open(file, width, dark)
                await whole(tab, dark)
            await fits_on_paper(tab)
            assert tab.complaints == []
            assert set(tab.asked) == {file.absolute().as_uri()}

    asyncio.run(look())


async def whole(tab: Page, dark: bool) -> None:
    """Nothing sticks out, nothing lies on each other, the ground is that of the theme."""
    assert await tab.read("document.documentElement.scrollWidth <= innerWidth")
    assert await tab.read(_BEYOND) == []
    assert await tab.read(_OVERLAPPING) == []
    assert "owned" not in await tab.read("document.title")
    ground = await tab.read("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(15, 18, 22)" if dark else "rgb(255, 255, 255)")
    assert (await tab.picture()).startswith(b"\x89PNG")


async def fits_on_paper(tab: Page) -> None:
    assert 2 <= sheets(await tab.printed()) <= 5


def test_a_report_in_both_themes_on_a_screen_on_a_phone_and_on_paper(
    page: Path, tmp_path: Path
) -> None:
    visit(tmp_path, page)


def test_a_find_in_both_themes_on_a_screen_on_a_phone_and_on_paper(tmp_path: Path) -> None:
    folder = searched(tmp_path / "results")
    windows = [window(at, [20.0] * 50, rate=100.0 * (at + 1)) for at in range(30)]
    told(tmp_path / "made", [start(), *windows, End(29, "done")]).rename(folder / "1")
    snapshot = runlog.read_snapshot(folder)
    snapshot["text"] = "a reason that is much longer than a sheet is wide " * 4
    runlog.write_snapshot(folder, snapshot)
    file = tmp_path / "report.html"
    write(file, report([folder]))
    visit(tmp_path / "browser", file)
    asyncio.run(_nothing_is_cut_off(tmp_path / "paper", file))


async def _nothing_is_cut_off(folder: Path, file: Path) -> None:
    async with browser(folder) as tab:
        await tab.open(file, 718)  # A4 without its margins
        await tab.call("Emulation.setEmulatedMedia", media="print")
        wide = "[...document.querySelectorAll('pre')].filter(e => e.scrollWidth > e.clientWidth)"
        assert await tab.read(f"{wide}.length") == 0


def test_runs_beside_each_other(tmp_path: Path) -> None:
    folders = []
    for ms in (5.0, 50.0):
        given: list[Record] = [start(), *(window(at, [ms, 2 * ms] * 50) for at in range(30))]
        folders.append(told(tmp_path / "results", [*given, End(29, "done")], scenario="steady"))
    assert runlog.runs(tmp_path / "results") == folders
    file = tmp_path / "report.html"
    write(file, report(folders))
    visit(tmp_path / "browser", file)
