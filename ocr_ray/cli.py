"""`ocr-ray`: its commands by name, and what a mistake or Ctrl-C ends it with."""

import logging
import os
import sys
import warnings

import typer

from ocr_ray.commands import data, detectors, published, registry, sweeps, training
from ocr_ray.errors import UserError

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

app.command("demo")(training.demo_command)
app.command("train")(training.train_command)
app.command("rerun")(training.rerun_command)
app.command("tune")(training.tune_command)
app.command("pipeline")(training.pipeline_command)
app.command("status")(sweeps.status_command)
app.command("stop")(sweeps.stop_command)
app.command("report")(sweeps.report_command)
app.command("compare")(sweeps.compare_command)
app.command("eval")(detectors.eval_command)
app.command("predict")(detectors.predict_command)
app.command("inspect")(detectors.inspect_command)
app.command("extract")(detectors.extract_command)
app.command("convert")(detectors.convert_command)
app.command("export")(detectors.export_command)
app.command("whence")(detectors.whence_command)
app.command("register")(registry.register_command)
app.command("promote")(registry.promote_command)
weights_app.callback(invoke_without_command=True)(published.weights_command)
weights_app.command("fetch")(published.fetch_command)
data_app.command("check")(data.check_command)
data_app.command("icdar2015")(data.icdar2015_command)
data_app.command("synth")(data.synth_command)
data_app.command("show")(data.show_data_command)
space_app.command("show")(sweeps.show_command)


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
