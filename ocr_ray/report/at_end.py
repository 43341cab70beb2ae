"""The page at the end of a sweep, which nothing that goes wrong with it may fail."""

import shlex
from collections.abc import Callable
from pathlib import Path

from ocr_ray.errors import in_one_line


def report_at_end(folder: Path, say: Callable[[str], None]) -> Path | None:
    """Writes `report.html` into the sweep's folder and says so, or says why not. Returns: the file, or None."""
    try:
        from ocr_ray.report.page import write_report  # plotly and jinja, of which a sweep's start knows nothing

        out = write_report(folder)
    except Exception as e:
        say(f"report: not written: {in_one_line(e)}; `ocr-ray report {shlex.quote(str(folder))}` tries again")
        return None
    say(f"report: {out}")
    return out
