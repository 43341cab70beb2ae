"""Commands about published weights. Heavy imports wait inside."""

from typing import Annotated

import typer
from rich.console import Console


def weights_command(context: typer.Context) -> None:
    """Lists the recipe's published starting points, or fetches one.

    Example: `ocr-ray weights`
    """
    if context.invoked_subcommand is None:
        from ocr_ray.weights.published import table

        Console().print(table())


def fetch_command(name: Annotated[str, typer.Argument(help="as `ocr-ray weights` lists it")]) -> None:
    """Brings one into the cache and says where it lies.

    Example: `ocr-ray weights fetch resnet50_vd_ssld`
    """
    from ocr_ray.weights.published import fetch

    typer.echo(fetch(name))
