"""Commands about label files and pictures. Heavy imports wait inside."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ocr_ray.commands.options import Labels, Overrides, Root


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
