"""A program of this package as people call it."""

import sys
from collections.abc import Callable

import typer

from ocr_ray.errors import UserError


def run_command(main: Callable[..., None]) -> None:
    """`typer.run`, where a mistake of the user is one line on standard error and exit code 2, as with `ocr-ray`."""
    try:
        typer.run(main)
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)
