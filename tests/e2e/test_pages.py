"""The pages of `report`, `compare`, `inspect` and `data show` in a real browser: all is drawn, and fits the screen."""

import shutil
from pathlib import Path

import pytest
import torch

from ocr_ray.data.resize import ResizeConfig
from ocr_ray.inspection.page import write_inspection
from ocr_ray.inspection.samples import show_samples
from ocr_ray.model_card import ModelCard, save_detector
from ocr_ray.models.detector import Detector
from ocr_ray.postprocess import PostprocessConfig
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


@pytest.fixture(scope="module")
def looked_at(small_set: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page about weights that know nothing, and that about training samples."""
    folder = tmp_path_factory.mktemp("looked-at")
    torch.manual_seed(0)
    card = ModelCard(resize=ResizeConfig(128, "max"), postprocess=PostprocessConfig(thresh=0.5, box_thresh=0.4))
    save_detector(folder / "student.safetensors", Detector(card.detector), card)
    page, _ = write_inspection(folder / "student.safetensors", small_set / "val_label.txt", folder)
    show_samples(small_set / "train_label.txt", folder / "samples.html", 2)
    return {"inspect": page, "samples": folder / "samples.html"}


@pytest.mark.parametrize(
    ("kind", "width", "theme"), [("inspect", 1280, "light"), ("inspect", 390, "dark"), ("samples", 390, "light")]
)
def test_what_was_looked_at_shows_its_pictures_and_fits_the_screen(
    browser: Browser, looked_at: dict[str, Path], kind: str, width: int, theme: Theme
) -> None:
    browser.open(looked_at[kind].as_uri(), width, theme)
    browser.wait_for(ALL_DRAWN)
    browser.screenshot(f"{kind}-{width}-{theme}")
    assert browser.ask("document.querySelectorAll('.plot').length") == (7 if kind == "inspect" else 0)
    assert browser.ask("document.images.length") >= (4 if kind == "inspect" else 6)
    assert browser.ask("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert browser.ask(OVERFLOW) <= 0
    assert browser.complaints() == []


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
