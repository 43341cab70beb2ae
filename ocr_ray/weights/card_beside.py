"""What our metadata say of a `.pdparams`, which has no place for them: in `FILE.pdparams.json` beside it."""

import json
from collections.abc import Mapping
from pathlib import Path

from ocr_ray.errors import WeightsError, in_one_line
from ocr_ray.files import file_digest, write_text

SUFFIX = ".json"
DIGEST = "file_digest"
"""Key of the card: SHA-256 of the file that it was written for."""


def write_card(path: Path, metadata: Mapping[str, str]) -> None:
    """Writes them beside the file of weights `path`; without any, a card of an earlier file of that name goes."""
    card = path.with_name(path.name + SUFFIX)
    if not metadata:
        card.unlink(missing_ok=True)
        return
    plain = {DIGEST: file_digest(path), **{key: _plain(text) for key, text in metadata.items()}}
    write_text(card, json.dumps(plain, indent=2))


def read_card(path: Path) -> dict[str, str]:
    """The metadata that lie beside `path`; none without a card, or where another program has written its file anew.

    Raises: WeightsError for a file that is no card.
    """
    card = path.with_name(path.name + SUFFIX)
    try:
        plain = json.loads(card.read_text(encoding="utf-8"))
        digest = plain.pop(DIGEST, None)
        found = {str(key): value if isinstance(value, str) else json.dumps(value) for key, value in plain.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError, AttributeError, TypeError) as e:
        raise WeightsError(f"{card}: no card of a detector: {in_one_line(e)}") from e
    return found if digest == file_digest(path) else {}


def _plain(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # a file's metadata may be any text
        return text
