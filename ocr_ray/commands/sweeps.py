"""Commands about sweeps and spaces: to look at, to stop, to report, to compare. Heavy imports wait inside."""

from pathlib import Path
from typing import Annotated

import typer

from ocr_ray.commands.options import Overrides, Storage, Sweep, wide_console


def status_command(
    name: Annotated[str | None, typer.Argument(help="of a sweep or run; absent: all there are")] = None,
    storage: Storage = Path("runs"),
) -> None:
    """What a sweep or run has reached and whether it still runs, from its files: while it runs, or after.

    Example: `ocr-ray status sweep`
    """
    from ocr_ray.status import details, find, overview, standing

    console = wide_console(highlight=False)
    console.print(overview(storage) if name is None else details(standing(find(name, storage))))


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


def report_command(
    sweep: Sweep,
    out: Annotated[Path | None, typer.Option(help="file to write; absent: report.html in the sweep's folder")] = None,
    storage: Storage = Path("runs"),
) -> None:
    """One HTML page about a sweep: what won and whether to believe it, curves, knobs, cost, pictures.

    Example: `ocr-ray report sweep --out sweep.html`
    """
    from ocr_ray.report.page import write_report
    from ocr_ray.report.read import sweep_folder

    typer.echo(write_report(sweep_folder(sweep, storage), out))


def compare_command(
    sweeps: Annotated[list[Path], typer.Argument(help="folders of sweeps, or their names in the storage")],
    out: Annotated[Path, typer.Option(help="file to write")] = Path("comparison.html"),
    storage: Storage = Path("runs"),
) -> None:
    """One HTML page that sets sweeps against each other: the best so far by what was spent, spaces, configs.

    Example: `ocr-ray compare first second --out comparison.html`
    """
    from ocr_ray.report.compare import write_comparison
    from ocr_ray.report.read import sweep_folder

    typer.echo(write_comparison([sweep_folder(sweep, storage) for sweep in sweeps], out))


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
    console = wide_console()
    console.print(f"{space}: for {shown.fits}", highlight=False, markup=False)
    console.print()
    console.print(shown.keys())
    console.print()
    console.print(shown.draws(number, seed))
