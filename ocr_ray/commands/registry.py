"""Commands about detectors in use: registered, and promoted. Heavy imports wait inside."""

from pathlib import Path
from typing import Annotated

import typer

from ocr_ray.commands.options import Model, Root, Tracking, Weights, wide_console


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
    wide_console(highlight=False).print(promotion.table())
    typer.echo(promotion)
    raise typer.Exit(0 if promotion.verdict.promoted else 1)
