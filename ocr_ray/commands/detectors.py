"""Commands about files of weights: what they find, what they are, their other forms. Heavy imports wait inside."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from ocr_ray.commands.options import Labels, Model, Root, Storage, Weights, wide_console

if TYPE_CHECKING:
    from ocr_ray.export.write import Exported


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


def convert_command(
    source: Weights,
    out: Annotated[Path, typer.Argument(help=".safetensors or .pdparams")],
) -> None:
    """From one format of weights to another, by suffix.

    Example: `ocr-ray convert student.safetensors student.pdparams`
    """
    from ocr_ray.weights.extract import convert

    typer.echo(convert(source, out))


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
    from ocr_ray.whence import known_origin

    if int8 != (calibrate is not None):
        raise ConfigError("export: --int8 and --calibrate LABELS go together")
    wish = Int8(tuple(read_labels(calibrate, root)), most_lost) if calibrate is not None else None
    console = wide_console()
    try:
        judged = read_labels(gate, root) if gate else ()
        origin = known_origin(weights) if model is None else None
        exported = export(weights, out, model, normalize, reader, judged, wish, origin)
    except Refused as e:
        console.print(e.quantised.table())
        typer.echo(e)
        raise typer.Exit(1) from e
    show_export(console, exported)
    if not exported.passed:
        raise typer.Exit(1)


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

    console = wide_console(highlight=False)
    console.print(whence(file, tracking, storage).table())


def show_export(console: Console, exported: "Exported") -> None:
    """What an export cost and what its readers found, with the file on the last line."""
    if exported.quantised is not None:
        console.print(exported.quantised.table())
    if exported.gate is not None:
        console.print(exported.gate.table())
    for note in (*exported.notes, *(exported.gate.absent if exported.gate is not None else ())):
        typer.echo(note)
    typer.echo(exported)
