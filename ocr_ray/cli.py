"""Arguments in, one call, one line out. Heavy imports wait inside the commands, so that --help is quick."""

import json
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from ocr_ray.errors import UserError

if TYPE_CHECKING:
    from ocr_ray.export.write import Exported

STOPPED = 130
"""Exit code after Ctrl-C or SIGTERM, as shells have it."""

app = typer.Typer(
    help="Text detectors that are tiny and accurate on your pictures: PP-OCRv3's distillation, searched on Ray.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Label files: check them, convert them, or render a set.", no_args_is_help=True)
weights_app = typer.Typer()
space_app = typer.Typer(help="Search spaces: look at what one draws.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(weights_app, name="weights")
app.add_typer(space_app, name="space")

Overrides = Annotated[list[str] | None, typer.Argument(help="key=value, e.g. optim.lr=0.0005", metavar="KEY=VALUE...")]
Config = Annotated[Path, typer.Argument(help="a recipe, e.g. configs/ppocrv3_det_cml.yaml")]
Name = Annotated[str | None, typer.Option(help="of the run and its folder in the storage; absent: recipe and time")]
Weights = Annotated[Path, typer.Argument(help=".safetensors, .pdparams, .onnx, .npz or a checkpoint folder")]
Model = Annotated[str | None, typer.Option(help="sub-model of the file: Student, Student2 or Teacher")]
Sweep = Annotated[Path, typer.Argument(help="folder of a sweep, or its name in runs/")]
Labels = Annotated[Path, typer.Argument(help="a label file, one picture a line: path, tab, JSON")]
Storage = Annotated[Path, typer.Option(help="the folder that sweeps and runs lie in, ray.storage")]
Tracking = Annotated[str | None, typer.Option(help="database or server of the registry; absent: that of `runs`")]
Root = Annotated[Path | None, typer.Option(help="folder of the label file's paths; absent: its own folder")]


@app.command("demo")
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


@app.command("train")
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


@app.command("rerun")
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


@app.command("tune")
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
    # Beside a terminal nobody's window is too narrow for it.
    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 200)
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
    typer.echo(f"all runs: {result.ui_line}")
    typer.echo(f"hmean {result.hmean:.4f}  {result.best}")


@app.command("pipeline")
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
    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 200)
    console.print(result.table())
    console.print()
    console.print(result.sweep.table())
    if result.sweep.taught is not None:
        typer.echo(result.sweep.taught.one_line())
    if result.exported is not None:
        console.print()
        _show_export(console, result.exported)
    typer.echo(f"all runs: {result.sweep.ui_line}")
    typer.echo(f"hmean {result.evaluation.score.hmean:.4f}  {result.student}")
    if result.exported is not None and not result.exported.passed:
        raise typer.Exit(1)


@app.command("status")
def status_command(
    name: Annotated[str | None, typer.Argument(help="of a sweep or run; absent: all there are")] = None,
    storage: Storage = Path("runs"),
) -> None:
    """What a sweep or run has reached and whether it still runs, from its files: while it runs, or after.

    Example: `ocr-ray status sweep`
    """
    from ocr_ray.status import details, find, overview, standing

    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 200, highlight=False)
    console.print(overview(storage) if name is None else details(standing(find(name, storage))))


@app.command("stop")
def stop_command(
    sweep: Annotated[str, typer.Argument(help="name of the sweep")],
    trial: Annotated[int | None, typer.Option(help="only this one; absent: the whole sweep")] = None,
    storage: Storage = Path("runs"),
) -> None:
    """Stops a sweep, or one of its trials, at the next report, from any terminal that sees its folder.

    Example: `ocr-ray stop sweep --trial 3`
    """
    from ocr_ray.status import find, standing, stop

    typer.echo(stop(standing(find(sweep, storage)), trial))


@app.command("report")
def report_command(
    sweep: Sweep,
    out: Annotated[Path | None, typer.Option(help="file to write; absent: report.html in the sweep's folder")] = None,
) -> None:
    """One HTML page about a sweep: what won and whether to believe it, curves, knobs, cost, pictures.

    Example: `ocr-ray report sweep --out sweep.html`
    """
    from ocr_ray.report.page import write_report
    from ocr_ray.report.read import sweep_folder

    typer.echo(write_report(sweep_folder(sweep), out))


@app.command("compare")
def compare_command(
    sweeps: Annotated[list[Path], typer.Argument(help="folders of sweeps, or their names in runs/")],
    out: Annotated[Path, typer.Option(help="file to write")] = Path("comparison.html"),
) -> None:
    """One HTML page that sets sweeps against each other: the best so far by what was spent, spaces, configs.

    Example: `ocr-ray compare first second --out comparison.html`
    """
    from ocr_ray.report.compare import write_comparison
    from ocr_ray.report.read import sweep_folder

    typer.echo(write_comparison([sweep_folder(sweep) for sweep in sweeps], out))


@app.command("eval")
def eval_command(
    weights: Weights,
    labels: Labels,
    root: Root = None,
    model: Model = None,
    limit_side_len: Annotated[int | None, typer.Option(help="side in pixels, with --limit-type")] = None,
    limit_type: Annotated[str | None, typer.Option(help="min: shortest side at least; max: longest at most")] = None,
    json_out: Annotated[bool, typer.Option("--json", help="the figures as JSON, alone on standard output")] = False,
) -> None:
    """Precision, recall and hmean of weights on labelled pictures.

    Example: `ocr-ray eval runs/cml/best/student.safetensors val_label.txt --json`
    """
    from ocr_ray.predict import evaluate_file

    evaluation = evaluate_file(weights, labels, root, model, limit_side_len, limit_type, progress=not json_out)
    typer.echo(json.dumps(evaluation.as_dict()) if json_out else evaluation.one_line())


@app.command("predict")
def predict_command(
    weights: Weights,
    images: Annotated[list[Path], typer.Argument(help="pictures")],
    out: Annotated[Path, typer.Option(help="folder for the overlays and predictions.txt")],
    model: Model = None,
) -> None:
    """Finds text in pictures: overlays to look at, and a label file that PaddleOCR reads.

    Example: `ocr-ray predict student.safetensors photo.jpg --out found`
    """
    from ocr_ray.predict import predict

    typer.echo(predict(weights, images, out, model))


@app.command("inspect")
def inspect_command(
    weights: Weights,
    labels: Labels,
    out: Annotated[Path, typer.Option(help="folder for inspect.html")],
    root: Root = None,
    model: Model = None,
    worst: Annotated[int, typer.Option(min=0, help="pictures shown, the worst first")] = 12,
    write: Annotated[
        Path | None,
        typer.Option(help="a copy of the weights, .safetensors, with the best settings; only where these are better"),
    ] = None,
) -> None:
    """One HTML page about the errors of weights: the worst pictures, kinds, sizes, and whether other thresholds help.

    Thresholds are picked on one half of the pictures and reported on the other; a copy by --write is used with them.

    Example: `ocr-ray inspect student.safetensors val_label.txt --out inspection --write better.safetensors`
    """
    from ocr_ray.inspection.look import check_copy, settings_sentence, write_better
    from ocr_ray.inspection.page import write_inspection

    if write is not None:
        check_copy(weights, write)
    page, seen = write_inspection(weights, labels, out, root, model, worst)
    typer.echo(seen.evaluation.one_line())
    typer.echo(write_better(seen, write) if write is not None else settings_sentence(seen.found))
    typer.echo(page)


@app.command("extract")
def extract_command(
    checkpoint: Weights,
    out: Annotated[Path, typer.Option(help=".safetensors or .pdparams")],
    model: Annotated[str, typer.Option(help="Student, Student2 or Teacher")] = "Student",
) -> None:
    """Takes one net out of a file or checkpoint that holds several.

    Example: `ocr-ray extract best_accuracy.pdparams --model Student --out student.safetensors`
    """
    from ocr_ray.weights.extract import extract

    typer.echo(extract(checkpoint, model, out))


@app.command("convert")
def convert_command(
    source: Weights,
    out: Annotated[Path, typer.Argument(help=".safetensors or .pdparams")],
) -> None:
    """From one format of weights to another, by suffix.

    Example: `ocr-ray convert student.safetensors student.pdparams`
    """
    from ocr_ray.weights.extract import convert

    typer.echo(convert(source, out))


@app.command("export")
def export_command(
    weights: Weights,
    out: Annotated[Path, typer.Argument(help="file to write, ends in .onnx", metavar="OUT.onnx")],
    model: Model = None,
    normalize: Annotated[
        Literal["outside", "inside"],
        typer.Option(help="inside: the file takes pictures as RapidOCR feeds them by default"),
    ] = "outside",
    reader: Annotated[
        Literal["rapidocr", "opencv"],
        typer.Option("--for", help="opencv: the answer is a bare map, for TextDetectionModel_DB"),
    ] = "rapidocr",
    gate: Annotated[
        Path | None, typer.Option(help="labels: exit 1 unless readers of the file find there what PyTorch finds")
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="8-bit integers, ranges from the pictures of --calibrate")
    ] = False,
    calibrate: Annotated[
        Path | None, typer.Option(help="labels, for --int8: some 30 typical pictures are enough")
    ] = None,
    most_lost: Annotated[float, typer.Option(help="hmean that --int8 may lose; beyond it nothing is written")] = 0.01,
    root: Root = None,
) -> None:
    """An ONNX file that RapidOCR, OpenCV and onnxruntime run unchanged, and the settings by which they find the same.

    Example: `ocr-ray export student.safetensors student.onnx --gate val_label.txt`
    """
    from ocr_ray.data.labels import read_labels
    from ocr_ray.errors import ConfigError
    from ocr_ray.export.write import Int8, Refused, export

    if int8 != (calibrate is not None):
        raise ConfigError("export: --int8 and --calibrate LABELS go together")
    wish = Int8(tuple(read_labels(calibrate, root)), most_lost) if calibrate is not None else None
    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 200)
    try:
        exported = export(weights, out, model, normalize, reader, read_labels(gate, root) if gate else (), wish)
    except Refused as e:
        console.print(e.quantised.table())
        typer.echo(e)
        raise typer.Exit(1) from e
    _show_export(console, exported)
    if not exported.passed:
        raise typer.Exit(1)


@app.command("whence")
def whence_command(
    file: Annotated[
        Path, typer.Argument(help=".safetensors or .onnx, or a .pdparams with its FILE.pdparams.json beside it")
    ],
    tracking: Annotated[str | None, typer.Option(help="database or server that may know its run")] = None,
    storage: Storage = Path("runs"),
) -> None:
    """Where a file of weights comes from: its run, config, data, hmean and settings, and the run in MLflow.

    Example: `ocr-ray whence student.onnx`
    """
    from ocr_ray.whence import whence

    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 200, highlight=False)
    console.print(whence(file, tracking, storage).table())


@app.command("register")
def register_command(
    weights: Weights,
    name: Annotated[str, typer.Option(help="of the registered model")] = "text-detector",
    tracking: Tracking = None,
    run: Annotated[str | None, typer.Option(help="MLflow's id of the run they come from; absent: a new run")] = None,
    model: Model = None,
) -> None:
    """Logs weights to MLflow as a model that can be served, and registers them as a new version.

    Weights that are not exported yet are. Then `mlflow models serve -m models:/text-detector/1` answers pictures.

    Example: `ocr-ray register student.onnx --name text-detector --tracking sqlite:///runs/mlflow.db`
    """
    from ocr_ray.mlflow_store import store_uri
    from ocr_ray.registry.log import register_weights
    from ocr_ray.settings import ClusterConfig

    typer.echo(register_weights(weights, store_uri(tracking, Path(ClusterConfig().storage)), name, run, model))


@app.command("promote")
def promote_command(
    name: Annotated[str, typer.Argument(help="of the registered model")],
    val: Annotated[Path, typer.Option(help="label file on which it and the champion are held against each other")],
    version: Annotated[int | None, typer.Argument(help="absent: the latest")] = None,
    root: Root = None,
    tracking: Tracking = None,
    most_ms: Annotated[
        float | None, typer.Option(help="a picture, median, one thread; absent: 1.25 times the champion's")
    ] = None,
    most_lost: Annotated[float, typer.Option(help="of hmean on a slice, to the champion's")] = 0.02,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="judge, and write nothing")] = False,
) -> None:
    """Makes a version the `champion` if it is better beyond noise, fast enough and on no kind of text much worse.

    Kinds: small, rotated, dense and dark. The verdict stays on the version; exit code 1 when it is refused.

    Example: `ocr-ray promote text-detector 2 --val val_label.txt --most-ms 80`
    """
    from ocr_ray.mlflow_store import store_uri
    from ocr_ray.registry.promote import promote
    from ocr_ray.registry.verdict import Limits
    from ocr_ray.settings import ClusterConfig

    limits = Limits(most_ms=most_ms, most_lost=most_lost)
    uri = store_uri(tracking, Path(ClusterConfig().storage))
    promotion = promote(uri, name, val, version, root, limits, dry_run)
    Console(soft_wrap=True, width=None if sys.stdout.isatty() else 200, highlight=False).print(promotion.table())
    typer.echo(promotion)
    raise typer.Exit(0 if promotion.verdict.promoted else 1)


@weights_app.callback(invoke_without_command=True)
def weights_command(context: typer.Context) -> None:
    """Lists the recipe's published starting points, or fetches one.

    Example: `ocr-ray weights`
    """
    if context.invoked_subcommand is None:
        from ocr_ray.weights.published import table

        Console().print(table())


@weights_app.command("fetch")
def fetch_command(name: Annotated[str, typer.Argument(help="as `ocr-ray weights` lists it")]) -> None:
    """Brings one into the cache and says where it lies.

    Example: `ocr-ray weights fetch resnet50_vd_ssld`
    """
    from ocr_ray.weights.published import fetch

    typer.echo(fetch(name))


@data_app.command("check")
def check_command(
    train: Annotated[list[Path], typer.Argument(help="label files")],
    val: Annotated[list[Path] | None, typer.Option(help="label files of the validation set")] = None,
    root: Root = None,
) -> None:
    """Reads every label and every picture before a run wastes a night; exit code 1 when something would be dropped.

    Example: `ocr-ray data check train_label.txt --val val_label.txt`
    """
    from ocr_ray.data.check import check_labels

    report = check_labels(train, val or [], root)
    Console(soft_wrap=True).print(report.text())
    raise typer.Exit(1 if report.would_drop else 0)


@data_app.command("icdar2015")
def icdar2015_command(
    images: Annotated[Path, typer.Argument(help="folder of img_N.jpg")],
    gt: Annotated[Path, typer.Argument(help="folder of gt_img_N.txt")],
    out: Annotated[Path, typer.Option(help="label file to write")],
) -> None:
    """Official ICDAR2015 folders to a label file.

    Example: `ocr-ray data icdar2015 ch4_training_images ch4_training_localization_transcription_gt
    --out train_label.txt`
    """
    from ocr_ray.data.icdar2015 import convert_icdar2015

    typer.echo(convert_icdar2015(images, gt, out))


@data_app.command("synth")
def synth_command(
    out: Annotated[Path, typer.Argument(help="folder to make")],
    train: Annotated[int, typer.Option(help="training pictures")] = 200,
    val: Annotated[int, typer.Option(help="validation pictures")] = 24,
    seed: int = 0,
) -> None:
    """Renders scene text with exact polygons, straight and curved.

    Example: `ocr-ray data synth synth --train 200 --val 24`
    """
    from ocr_ray.data.synth import SynthConfig, render_set
    from ocr_ray.errors import DataError

    if (out / "train_label.txt").exists():
        raise DataError(f"{out}: holds a set already, choose another folder or remove it")
    render_set(out, SynthConfig(train=train, val=val), seed)
    typer.echo(f"{out}/train_label.txt  {out}/val_label.txt")


@data_app.command("show")
def show_data_command(
    labels: Labels,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="a picture, .jpg or .png, or a page, .html")] = Path("samples.jpg"),
    number: Annotated[int, typer.Option("-n", "--number", min=1, help="samples")] = 12,
    config: Annotated[Path | None, typer.Option(help="the recipe they are for; absent: cml's own values")] = None,
    root: Root = None,
) -> None:
    """Draws training samples as a net gets them: augmented, with their shrink and threshold maps.

    They are those with which a run of that recipe begins, CopyPaste and all.

    Example: `ocr-ray data show train_label.txt --out samples.html -n 6 data.augment.rotate_degrees=30`
    """
    from ocr_ray.inspection.samples import show_samples

    typer.echo(show_samples(labels, out, number, config, root, overrides or []))


@space_app.command("show")
def show_command(
    space: Annotated[Path, typer.Argument(help="a search space, e.g. search_spaces/cml_full.yaml")],
    overrides: Overrides = None,
    config: Annotated[
        Path | None, typer.Option(help="the recipe it is for; absent: one whose defaults it fits")
    ] = None,
    number: Annotated[int, typer.Option("-n", "--number", min=0, help="draws")] = 8,
    seed: int = 0,
) -> None:
    """Reads a search space as a sweep would: each key's distribution and the config's own value, and a few draws.

    Example: `ocr-ray space show search_spaces/cml_loss_weights.yaml -n 12`
    """
    from ocr_ray.show_space import read_to_show

    shown = read_to_show(space, config, overrides or [])
    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 200)
    console.print(f"{space}: for {shown.fits}", highlight=False, markup=False)
    console.print()
    console.print(shown.keys())
    console.print()
    console.print(shown.draws(number, seed))


def _show_export(console: Console, exported: "Exported") -> None:
    if exported.quantised is not None:
        console.print(exported.quantised.table())
    if exported.gate is not None:
        console.print(exported.gate.table())
    for note in (*exported.notes, *(exported.gate.absent if exported.gate is not None else ())):
        typer.echo(note)
    typer.echo(exported)


def main() -> None:
    """The command `ocr-ray`: a mistake of the user is one line on standard error and exit code 2; Ctrl-C is 130."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        app()
    except UserError as e:
        print(f"ocr-ray: {e}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as e:
        if e.code == STOPPED:  # typer's answer to Ctrl-C, which says nothing
            print("ocr-ray: stopped", file=sys.stderr)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(STOPPED)  # all is saved and closed; Ray would look for its cluster for seconds
        raise
