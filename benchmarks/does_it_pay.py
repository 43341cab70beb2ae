"""Does it pay to search the weights of the distillation? Four ways to go on from one released student, on photographs.

    python -m benchmarks.does_it_pay PHOTOS START TEACHER [--out FOLDER] [--set KEY=VALUE ...]

PHOTOS is a folder with `train_label.txt` and `val_label.txt` (ICDAR2015), START the released student (`.onnx`), TEACHER
a detector that is better on them. All four train a student for the same steps, with the same seeds:

1. the student alone, on the labels;
2. CML under the frozen teacher, with the config's own weights;
3. CML with the weights that a sweep found;
4. CML with those, and the learning rate that a second sweep found.

The sweeps are judged by a part of the training photographs that nobody trains on. `val_label.txt` is looked at when all
is over. What has ended is taken as it is, so the same command goes on after a kill. Its result: `docs/experiment.md`.
"""

import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from benchmarks.command import run_command
from ocr_ray.config import CMLConfig, RecipeConfig, StudentConfig, override
from ocr_ray.data.labels import read_labels
from ocr_ray.engine.evaluate import evaluate
from ocr_ray.engine.per_image import aligned, read_per_image, write_per_image
from ocr_ray.errors import UserError
from ocr_ray.evidence import Counts, compare, hmean_of, spread_of
from ocr_ray.files import write_text
from ocr_ray.model_card import load_detector, save_detector
from ocr_ray.spaces import SearchSpace, space_from_plain
from ocr_ray.sweep_result import SweepResult, finished_sweep
from ocr_ray.train import train
from ocr_ray.tune import sweep
from ocr_ray.typed import with_values

EVERY = 10
"""Of the training photographs, one in so many judges the sweeps."""
AT_ONCE = 8
"""Files that are evaluated side by side on a GPU."""
EPOCHS = 4
RATE = 5e-4
FIRST_SEED = 1
NEW_PART = "head.thresh"
"""Of the released student it is not public; it is trained once, alone, before everything else."""
WEIGHTS = {"loss.distill.weight": {"loguniform": [0.1, 10.0]}, "loss.dml.weight": {"loguniform": [0.1, 10.0]}}
RATES = {"optim.lr": {"loguniform": [1.25e-4, 2e-3]}}


@dataclass(frozen=True)
class Arm:
    """A way to train, and what came of it."""

    name: str
    values: str
    """What it differs by, for people."""
    files: tuple[Path, ...]
    """The weights of each seed."""


def main(
    photos: Annotated[Path, typer.Argument(exists=True, file_okay=False)],
    start: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    teacher: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Option(help="Everything goes there.")] = Path("runs/does_it_pay"),
    steps: Annotated[int, typer.Option(help="Of each run, a multiple of 4.", min=4)] = 200,
    crop: Annotated[int, typer.Option(help="Side of a training crop, pixels.")] = 480,
    batch: Annotated[int, typer.Option(help="Crops a step.")] = 4,
    seeds: Annotated[int, typer.Option(help="Runs of each way.", min=3)] = 4,
    trials: Annotated[int, typer.Option(help="Of the sweep over weights; that over rates has half.", min=4)] = 10,
    judged_by: Annotated[int, typer.Option(help="Photographs that judge a trial.")] = 60,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value for every run, e.g. of `ray`.")] = None,
) -> None:
    """Trains, searches, evaluates, and writes the table to `result.md` in the folder, anew after each way."""
    torch.set_num_threads(1)
    out = out.resolve()
    labels = split(photos, out)
    common = [
        *(f"data.train=[{labels[0]}]", f"data.val=[{labels[1]}]", f"data.root={photos.resolve()}"),
        *(f"data.val_size={judged_by}", f"data.batch_size={batch}", f"data.epoch_size={steps // EPOCHS * batch}"),
        *(f"data.augment.crop_width={crop}", f"data.augment.crop_height={crop}", "data.num_workers=0"),
        *("data.augment.copy_paste.enabled=false", f"optim.lr={RATE}", f"optim.epochs={EPOCHS}"),
        *("optim.warmup_epochs=0.2", "optim.weight_decay=6.25e-6", "optim.eps=1.25e-9", f"eval.every_epochs={EPOCHS}"),
        *("run.threads=1", "run.evaluate_start=false", "ray.cpus_per_worker=0.9", f"ray.storage={out}/runs"),
        *("tracking.pictures=0", "sweep.searcher=grid", "sweep.default_first=false", "sweep.scheduler=none"),
        *(set_ or []),
    ]
    begun = with_new_part(override(StudentConfig(), common), start, out)
    common += [f"student.weights={begun}", f"sweep.trials={seeds}"]
    alone = override(StudentConfig(), common)
    taught = override(CMLConfig(), [*common, f"teacher.weights={teacher.resolve()}"])
    searching = [
        *("sweep.searcher=tpe", "sweep.default_first=true", "sweep.scheduler=auto", f"eval.every_epochs={EPOCHS // 2}"),
    ]
    arms: list[Arm] = []

    def trained(name: str, values: str, cfg: RecipeConfig, runs: str) -> None:
        arms.append(Arm(name, values, _of_seeds(cfg, runs, seeds)))
        text = report(arms, begun, photos, out)
        write_text(out / "result.md", text)
        print(f"{text}\n{out / 'result.md'}", flush=True)

    trained("student alone", f"optim.lr={RATE:g}", alone, "alone")
    trained("CML, default weights", "distill 1, dml 1", taught, "cml")
    found = _searched(override(taught, [*searching, f"sweep.trials={trials}"]), WEIGHTS, "search-weights")
    weighed = with_values(taught, found.best_trial.values, "found")
    trained("CML, searched weights", _told(found), weighed, "cml-weights")
    rates = _searched(override(weighed, [*searching, f"sweep.trials={trials // 2}"]), RATES, "search-rate")
    best = with_values(weighed, rates.best_trial.values, "found")
    trained("CML, searched weights and rate", _told(rates), best, "cml-weights-rate")


def split(photos: Path, out: Path) -> tuple[Path, Path]:
    """Label files of the photographs that are trained on, and of those that judge the sweeps."""
    lines = (photos / "train_label.txt").read_text(encoding="utf-8").splitlines()
    judging = lines[::EVERY]
    train_on = [line for i, line in enumerate(lines) if i % EVERY]
    for name, some in (("train.txt", train_on), ("judging.txt", judging)):
        write_text(out / name, "\n".join(some) + "\n")
    return out / "train.txt", out / "judging.txt"


def with_new_part(cfg: RecipeConfig, start: Path, out: Path) -> Path:
    """The start's weights, with the part that they lack: of a short run that trained it alone; all else is as given."""
    path = out / "start.safetensors"
    if path.exists():
        return path
    weights = [f"student.weights={start.resolve()}", f"student.may_be_new=[{NEW_PART}]"]
    one_step = ["optim.epochs=1", f"data.epoch_size={cfg.data.batch_size}", "data.val_size=1"]
    name = "new-part"
    result = train(override(cfg, [*weights, *one_step]), name, resume=(out / "runs" / name).exists())
    detector, card, _ = load_detector(result.best)
    given, _, _ = load_detector(start)
    own = {key: value for key, value in given.state_dict().items() if not key.startswith(NEW_PART)}
    detector.load_state_dict({**detector.state_dict(), **own})
    save_detector(path, detector, card)
    return path


def _of_seeds(cfg: RecipeConfig, name: str, seeds: int) -> tuple[Path, ...]:
    """Weights of the same config with each seed, the seeds in order."""
    space = {"run.seed": {"choice": list(range(FIRST_SEED, FIRST_SEED + seeds))}}
    trials = _searched(cfg, space, name).trials
    failed = [trial for trial in trials if not trial.best]
    if failed:
        raise UserError(f"{name}: {failed[0].reason}")
    return tuple(Path(t.best) for t in sorted(trials, key=lambda t: str(t.values["run.seed"]).zfill(9)))


def _searched(cfg: RecipeConfig, plain: Mapping[str, object], name: str) -> SweepResult:
    folder = Path(cfg.ray.storage) / name
    space: SearchSpace = space_from_plain(dict(plain), cfg, name)
    return finished_sweep(folder) or sweep(cfg, space, name=name, resume=folder.exists())


def _told(found: SweepResult) -> str:
    values = ", ".join(f"{key.split('.')[1]} {value:.3g}" for key, value in found.best_trial.values.items())
    return f"{values} (trial {found.best_trial.number} of {len(found.trials)})"


def report(arms: Sequence[Arm], start: Path, photos: Path, out: Path) -> str:
    """Evaluates everything on `val_label.txt`, and sets the arms against each other, in Markdown."""
    files = [start, *(file for arm in arms for file in arm.files)]
    folder = out / "held-out"
    folder.mkdir(exist_ok=True)
    records = [folder / f"{i}.json" for i in range(len(files))]
    workers = AT_ONCE if torch.cuda.is_available() else None
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_evaluate, files, records, [photos] * len(files)))
    counts = aligned([read_per_image(record) for record in records])
    untouched: Counts = counts[0][None]
    seeds = len(arms[0].files)
    of = [np.stack(counts[1 + i * seeds : 1 + (i + 1) * seeds]) for i in range(len(arms))]
    lines = [
        "| way | values | hmean on val, by seed | mean | spread | over the start |",
        "| --- | --- | --- | --- | --- | --- |",
        f"| untouched start | | {hmean_of(untouched)[0]:.4f} | {hmean_of(untouched)[0]:.4f} | | |",
    ]
    for arm, its in zip(arms, of, strict=True):
        by_seed = hmean_of(its)
        lines.append(
            f"| {arm.name} | {arm.values} | {' '.join(f'{h:.4f}' for h in by_seed)} | {by_seed.mean():.4f} | "
            f"{spread_of(by_seed):.4f} | {compare(its, untouched).text()} |"
        )
    lines += ["", "| difference, paired by seed and picture | mean (95% interval) | p |", "| --- | --- | --- |"]
    for one, other in ((1, 0), (2, 1), (3, 1), (3, 2), (3, 0)):
        if one >= len(arms):
            continue
        found = compare(of[one], of[other])
        lines.append(f"| {arms[one].name} over {arms[other].name} | {found.text()} | {found.p:.3f} |")
    return "\n".join(lines) + "\n"


def _evaluate(file: Path, record: Path, photos: Path) -> None:
    """Counts of one file on each picture; those that lie there are of an earlier call."""
    if record.exists() and str(file) in record.read_text(encoding="utf-8"):
        return
    torch.set_num_threads(1)
    detector, card, _ = load_detector(file)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    detector.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    cfg = CMLConfig().eval
    found = evaluate(detector, read_labels(photos / "val_label.txt"), card.normalize, cfg, device)
    write_per_image(record, found.per_image, {"weights": str(file)})


if __name__ == "__main__":
    run_command(main)
