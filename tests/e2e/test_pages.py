"""The pages of `ocr-ray report` and `ocr-ray compare` in a real browser: every chart is drawn, and fits the screen."""

import shutil
from pathlib import Path

import pytest

from ocr_ray.report.compare import write_comparison
from ocr_ray.report.page import write_report
from tests.browser import Browser, Theme

RECORDED = Path(__file__).resolve().parents[1] / "data" / "sweep"
ALL_DRAWN = "[...document.querySelectorAll('.plot')].every(p => p.querySelector('.main-svg'))"
OVERFLOW = "document.documentElement.scrollWidth - window.innerWidth"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of each kind, of a sweep that was recorded."""
    folder = tmp_path_factory.mktemp("pages")
    other = folder / "other"
    shutil.copytree(RECORDED, other)
    return {
        "report": write_report(RECORDED, folder / "report.html"),
        "compare": write_comparison([RECORDED, other], folder / "compare.html"),
    }


@pytest.mark.parametrize("kind", ["report", "compare"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_page_draws_every_chart_and_fits_the_screen(
    browser: Browser, pages: dict[str, Path], kind: str, width: int, theme: Theme
) -> None:
    browser.open(pages[kind].as_uri(), width, theme)
    browser.wait_for(ALL_DRAWN)
    browser.screenshot(f"{kind}-{width}-{theme}")
    assert browser.ask("document.querySelectorAll('.plot').length") >= 2
    assert browser.ask(OVERFLOW) <= 0
    assert browser.complaints() == []
    ground = browser.ask("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(246, 247, 249)") == (theme == "light")


def test_a_click_on_a_column_sorts_by_it(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["report"].as_uri())
    hmeans = "[...document.querySelectorAll('#trials-table tbody tr')].map(r => r.cells[1].dataset.sort ?? null)"
    click = "document.querySelectorAll('#trials-table th button')[1].click()"
    browser.ask(click)
    rising = [float(value) for value in browser.ask(hmeans) if value is not None]
    browser.ask(click)
    falling = [float(value) for value in browser.ask(hmeans) if value is not None]
    assert rising == sorted(rising)
    assert falling == sorted(rising, reverse=True)
    assert len(set(rising)) > 2


def test_on_paper_it_is_black_on_white(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["report"].as_uri(), theme="dark")
    browser.wait_for(ALL_DRAWN)
    browser.on_paper()
    assert browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.ask("getComputedStyle(document.querySelector('.plot text')).fill") == "rgb(0, 0, 0)"
