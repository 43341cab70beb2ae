"""Weights files on sets that took no part in making them: the untouched start on val, and the winner on `data.test`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from ocr_ray.config import RecipeConfig, config_digest, recipe_from_plain
from ocr_ray.data.labels import data_digest
from ocr_ray.engine.best import BEST_FOLDER, keep_best
from ocr_ray.engine.evaluate import Evaluation, evaluate
from ocr_ray.engine.per_image import ImageCounts, aligned, read_per_image, write_per_image
from ocr_ray.evidence import Comparison, compare, hmean_of
from ocr_ray.files import file_digest
from ocr_ray.model_card import ModelCard, Origin, load_detector
from ocr_ray.progress import LiveFeed
from ocr_ray.recipes import build_model, read_test, read_val
from ocr_ray.session import on_a_gpu
from ocr_ray.start import START_COUNTS
from ocr_ray.typed import to_plain
from ocr_ray.weights.coverage import is_under

START_FOLDER = "start"
TEST_FOLDER = "test"
Held = Literal["winner", "default", "start"]
"""Whose weights: those that are handed out, and the two controls."""


@dataclass(frozen=True)
class TestScores:
    """What files reach on `data.test`. The winner may itself be a control, which then is not named again."""

    __test__ = False  # pytest takes it for one of its own
    names: Mapping[Held, str]
    """As people see them."""
    hmeans: Mapping[Held, float]
    over: Mapping[Held, Comparison]
    """Of the winner over each control, one run each: its intervals know of other pictures, not of other seeds."""

    def metrics(self) -> dict[str, float]:
        """Names under which a run records them."""
        named = {f"test.hmean.{held}" if held != "winner" else "test.hmean": h for held, h in self.hmeans.items()}
        for held, found in self.over.items():
            named |= {f"test.over_{held}.{what}": getattr(found, what) for what in ("difference", "low", "high")}
        return named

    def one_line(self) -> str:
        """For a person."""
        parts = [f"{self.names['winner']} hmean {self.hmeans['winner']:.4f}"]
        parts += [
            f"{self.names[held]} {self.hmeans[held]:.4f} (the first differs by {found.text()})"
            for held, found in self.over.items()
        ]
        return f"test: {'; '.join(parts)}"


def untouched_start(cfg: RecipeConfig, folder: Path, live: LiveFeed) -> tuple[Path, tuple[ImageCounts, ...]] | None:
    """The weights that a run or sweep in `folder` starts from, as a file of ours with its card, and what they give on
    val; None where they are random. What was written and evaluated before is not made again."""
    if not cfg.student.weights:
        return None
    path, counts = folder / START_FOLDER / BEST_FOLDER / "student.safetensors", folder / START_COUNTS
    if not counts.exists():  # run.evaluate_start=false
        live.say("start: evaluating the given weights on val")
        write_per_image(counts, on_a_gpu(_evaluate_start, to_plain(cfg)).per_image, {"epoch": 0})
    found = read_per_image(counts)
    if not path.exists():
        built = build_model(cfg, with_teacher=False)
        new = {name.partition(".")[2] for name in built.new_parts}
        card = ModelCard(
            detector=cfg.student.detector,
            normalize=cfg.data.normalize,
            resize=cfg.eval.resize,
            postprocess=cfg.eval.postprocess,
            origin=Origin(
                hmean=float(hmean_of(aligned([found])[0])),
                which="Student",
                recipe=cfg.recipe,
                run=f"{folder.name}, before any training",
                epoch=0,
                config_digest=config_digest(cfg),
                data_digest=data_digest(read_val(cfg)),
                source=cfg.student.weights,
                new_parts=tuple(p for p in cfg.student.may_be_new if any(is_under(name, (p,)) for name in new)),
            ),
        )
        keep_best(folder / START_FOLDER, built.model.Student, card, to_plain(cfg))
    return path, found


def evaluate_on_test(
    cfg: RecipeConfig, folder: Path, files: Mapping[Held, tuple[str, Path]], live: LiveFeed
) -> TestScores:
    """Evaluates weights on `data.test` and writes each result down in `folder`, from where it is read the next time.

    Args: files are names for people and paths, that of the winner among them.
    Raises: DataError, WeightsError as their readers.
    """
    live.say(f"test: evaluating {', '.join(name for name, _ in files.values())} on data.test, once")
    data = data_digest(read_test(cfg))
    counts: dict[Held, tuple[ImageCounts, ...]] = {}
    for held, (name, path) in files.items():
        # A resume reads what was found; other weights or other labels are another question.
        record = folder / TEST_FOLDER / f"{file_digest(path)[:16]}-{data[:16]}.json"
        if not record.exists():
            evaluation = on_a_gpu(_evaluate_file, to_plain(cfg), str(path))
            live.say(f"test: {name}: {evaluation.one_line()}")
            write_per_image(record, evaluation.per_image, {"of": name, "weights": str(path), "data_digest": data})
        counts[held] = read_per_image(record)
    arrays = {held: array[None] for held, array in zip(counts, aligned(list(counts.values())), strict=True)}
    return TestScores(
        {held: name for held, (name, _) in files.items()},
        {held: float(hmean_of(array)[0]) for held, array in arrays.items()},
        {held: compare(arrays["winner"], array) for held, array in arrays.items() if held != "winner"},
    )


def _evaluate_start(plain: dict[str, Any]) -> Evaluation:
    cfg = recipe_from_plain(plain, "config")
    device = _device()
    student = build_model(cfg, with_teacher=False).model.to(device).Student
    return evaluate(student, read_val(cfg), cfg.data.normalize, cfg.eval, device)


def _evaluate_file(plain: dict[str, Any], path: str) -> Evaluation:
    """By what travels in the file, as whoever gets it will use it."""
    cfg = recipe_from_plain(plain, "config")
    detector, card, _ = load_detector(Path(path))
    eval_cfg = replace(cfg.eval, resize=card.resize, postprocess=card.postprocess)
    device = _device()
    return evaluate(detector.to(device), read_test(cfg), card.normalize, eval_cfg, device)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
