"""Commands that train: one recipe, a sweep, the whole way. Heavy imports wait inside."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ocr_ray.commands.detectors import show_export
from ocr_ray.commands.options import Config, Name, Overrides, wide_console

if TYPE_CHECKING:
    from ocr_ray.sweep_result import SweepResult


def demo_command(
    train: Annotated[Path | None, typer.Option(help="your training labels; absent: rendered pictures")] = None,
    val: Annotated[Path | None, typer.Option(help="your validation labels; goes with --train")] = None,
    out: Annotated[Path, typer.Option(help="folder for everything the demo makes")] = Path("demo"),
) -> None:
    """The whole recipe on this machine in minutes: teacher by DML, sweep of CML trials, the best student extracted.

    On photographs of yours: `ocr-ray demo --train train_label.txt --val val_label.txt`

    Example: `ocr-ray demo`
    """
    from ocr_ray.demo import run_demo

    run_demo(out, train, val)


def train_command(
    config: Config,
    overrides: Overrides = None,
    name: Name = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the run of that --name")] = False,
) -> None:
    """Trains one recipe.

    Example: `ocr-ray train configs/ppocrv3_det_student.yaml data.train=train.txt data.val=val.txt optim.epochs=5`
    """
    from ocr_ray.config import load_config
    from ocr_ray.train import train

    result = train(load_config(config, overrides or []), name=name, resume=resume)
    typer.echo(f"hmean {result.hmean:.4f}  {result.best}")


def rerun_command(
    run_id: Annotated[str, typer.Argument(help="of a run or of a sweep's trial, as MLflow shows it", metavar="RUN_ID")],
    overrides: Overrides = None,
    tracking: Annotated[
        str | None, typer.Option(help="database or server that knows it; absent: that of `runs`")
    ] = None,
    name: Annotated[str | None, typer.Option(help="of the new run; absent: the old one's id and the time")] = None,
    other_data: Annotated[
        bool, typer.Option("--other-data", help="also where data or weights are not those of the first time")
    ] = False,
) -> None:
    """Trains a run of MLflow's again, and says what differs now and whether the losses are the same.

    Example: `ocr-ray rerun 0a1b2c3d4e5f60718293a4b5c6d7e8f9 --tracking sqlite:///runs/mlflow.db`
    """
    from ocr_ray.rerun import rerun

    result = rerun(run_id, tracking, overrides or [], name, other_data)
    typer.echo(result.verdict)
    typer.echo(f"hmean {result.trained.hmean:.4f}  {result.trained.best}")


def tune_command(
    config: Config,
    space: Annotated[Path, typer.Argument(help="a search space, e.g. search_spaces/cml_loss_weights.yaml")],
    overrides: Overrides = None,
    name: Name = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the sweep of that --name")] = False,
    confirm: Annotated[int | None, typer.Option(help="train so many of the best again: sweep.confirm")] = None,
    seeds: Annotated[int | None, typer.Option(help="so often each, with fresh seeds: sweep.seeds")] = None,
    warm_start: Annotated[
        list[str] | None,
        typer.Option(help="an earlier sweep to learn from: its name, or MLflow's id of its parent; may be repeated"),
    ] = None,
) -> None:
    """Searches a space of loss weights and rates; each trial is a training run.

    Example: `ocr-ray tune configs/ppocrv3_det_cml.yaml search_spaces/cml_loss_weights.yaml
    teacher.weights=teacher.safetensors data.train=train.txt data.val=val.txt sweep.trials=16`
    """
    from ocr_ray.config import load_config
    from ocr_ray.spaces import load_space
    from ocr_ray.tune import sweep

    options = {"sweep.confirm": confirm, "sweep.seeds": seeds}
    given = [f"{key}={value}" for key, value in options.items() if value is not None]
    cfg = load_config(config, [*(overrides or []), *given])
    result = sweep(cfg, load_space(space, cfg), name=name, resume=resume, warm_start=warm_start or [])
    show_sweep(wide_console(), result)
    typer.echo(f"all runs: {result.ui_line}")
    typer.echo(f"hmean {result.hmean:.4f}  {result.best}")


def pipeline_command(
    config: Annotated[Path, typer.Argument(help="a pipeline, e.g. configs/pipelines/ppocrv3_det.yaml")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="key=value of both recipes; dml.key=value, cml.key=value of one", metavar="KEY=VALUE..."),
    ] = None,
    out: Annotated[Path, typer.Option(help="the best student's file, its card beside it")] = Path(
        "student.safetensors"
    ),
) -> None:
    """Teacher by DML, sweep of students under it by CML, the best student's file: everything in one command.

    The same command again goes on where it was stopped, and takes what has ended as it is.

    Example: `ocr-ray pipeline configs/pipelines/ppocrv3_det.yaml data.train=train.txt data.val=val.txt`
    """
    from ocr_ray.pipeline import run_pipeline
    from ocr_ray.progress import LiveFeed
    from ocr_ray.stages import load_stages

    stages = load_stages(config, overrides or [])
    with LiveFeed() as live:
        result = run_pipeline(stages, out, live)
    console = wide_console()
    console.print(result.table())
    console.print()
    show_sweep(console, result.sweep)
    if result.exported is not None:
        console.print()
        show_export(console, result.exported)
    typer.echo(f"all runs: {result.sweep.ui_line}")
    typer.echo(f"hmean {result.evaluation.score.hmean:.4f}  {result.student}")
    if result.exported is not None and not result.exported.passed:
        raise typer.Exit(1)


def show_sweep(console: Console, result: "SweepResult") -> None:
    """Trials, what their teacher took, whether early stopping was safe, and what a confirmation and a test found."""
    console.print(result.table())
    if result.taught is not None:
        typer.echo(result.taught.one_line())
    for line in result.ranks.lines():
        typer.echo(line)
    if result.confirmation is not None:
        console.print(result.confirmation.table())
        typer.echo(result.confirmation.sentence)
    if result.tested is not None:
        typer.echo(result.tested.one_line())
