"""MLflow records that a store which was away has not taken: kept in the folder of their run or sweep until it does."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ocr_ray.files import write_text

UNSENT_FILE = "mlflow_unsent.json"
"""In the folder of a run or sweep, while there are any."""


@dataclass(frozen=True)
class Said:
    """One thing that was said of a run: the method of `TrackedRun` that said it, and its arguments, plain."""

    by: Literal["params", "metrics", "back_to", "finals", "tags", "artifact", "images", "text"]
    given: Mapping[str, Any]


@dataclass(frozen=True)
class Opening:
    """How a run was started."""

    name: str
    parent: str | None
    """Its key."""
    tags: Mapping[str, str]
    unless_ended: bool
    at_ms: int
    """Since 1970."""


@dataclass(frozen=True)
class UnsentRun:
    """A run with what of it has not been written; its start is said again, which changes nothing where it was."""

    key: str
    opening: Opening
    said: tuple[Said, ...]
    status: Literal["FINISHED", "FAILED", "KILLED"] | None
    ended_ms: int | None


def write_unsent(path: Path, uri: str, runs: Sequence[UnsentRun]) -> None:
    """Keeps them in `path`, in the place of what was kept there. Raises: UserError when it cannot be written."""
    write_text(path, json.dumps({"uri": uri, "runs": [asdict(run) for run in runs]}, indent=1))


def read_unsent(path: Path, uri: str) -> tuple[UnsentRun, ...]:
    """What is kept in `path` for the store `uri`, in the order in which the runs were started."""
    if not path.exists():
        return ()
    plain = json.loads(path.read_text(encoding="utf-8"))
    if plain["uri"] != uri:
        return ()
    return tuple(
        UnsentRun(
            run["key"],
            Opening(**run["opening"]),
            tuple(Said(**said) for said in run["said"]),
            run["status"],
            run["ended_ms"],
        )
        for run in plain["runs"]
    )
