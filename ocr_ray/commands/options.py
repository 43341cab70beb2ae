"""Arguments that several commands have, and the console that their tables go to."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

Overrides = Annotated[list[str] | None, typer.Argument(help="key=value, e.g. optim.lr=0.0005", metavar="KEY=VALUE...")]
Config = Annotated[Path, typer.Argument(help="a recipe, e.g. configs/ppocrv3_det_cml.yaml")]
Name = Annotated[str | None, typer.Option(help="of the run and its folder in the storage; absent: recipe and time")]
Weights = Annotated[Path, typer.Argument(help=".safetensors, .pdparams, .onnx, .npz or a checkpoint folder")]
Model = Annotated[str | None, typer.Option(help="sub-model of the file: Student, Student2 or Teacher")]
Sweep = Annotated[Path, typer.Argument(help="folder of a sweep, or its name in the storage")]
Labels = Annotated[Path, typer.Argument(help="a label file, one picture a line: path, tab, JSON")]
Storage = Annotated[Path, typer.Option(help="the folder that sweeps and runs lie in, ray.storage")]
Tracking = Annotated[str | None, typer.Option(help="database or server of the registry; absent: that of `runs`")]
Root = Annotated[Path | None, typer.Option(help="folder of the label file's paths; absent: its own folder")]


def wide_console(highlight: bool = True) -> Console:
    """Standard output. Beside a terminal nobody's window is too narrow for a table."""
    return Console(soft_wrap=True, width=None if sys.stdout.isatty() else 200, highlight=highlight)
