"""What a run finds on a handful of val's pictures as it learns, drawn in the worker, small enough for MLflow.

MLflow's pages show a run's pictures with a slider over steps, and side by side for several runs, when their files are
named as its `log_image` names them; that one writes PNG, ten times as large, under names that no retry finds again.
"""

import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ocr_ray.data.images import read_image, write_image
from ocr_ray.data.labels import Sample
from ocr_ray.engine.evaluate import ImageResult
from ocr_ray.errors import DataError
from ocr_ray.visualize import draw_regions, within

LONGEST_SIDE_PX = 640
THUMBNAIL_PX = 256
"""Of the second, smaller file that MLflow's grids of many pictures load."""
MOST_EVALUATIONS = 10
"""Of one run that are drawn; with four pictures some 2 MB."""
FOLDER = "images"


@dataclass
class Sketches:
    """Collects an evaluation's findings on a fixed few pictures, and draws them at the first one, at a new best one and
    at the last, no more than MOST_EVALUATIONS in all.

    Args: folder is the run's, where an earlier attempt's files are found again; samples are the pictures that this
        rank evaluates; count of them are drawn, evenly spaced.
    """

    folder: Path
    samples: Sequence[Sample]
    epochs: int
    count: int
    _found: dict[str, dict[int, ImageResult]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = min(self.count, len(self.samples))
        self._chosen = {id(self.samples[i * len(self.samples) // count]): i for i in range(count)}

    def see(self, student: str, result: ImageResult) -> None:
        """Takes what `student` found on a picture; most are none of the chosen."""
        number = self._chosen.get(id(result.sample))
        if number is not None:
            self._found.setdefault(student, {})[number] = result

    def draw(self, student: str, epoch: int, best: bool) -> list[Path]:
        """The files of what `student` found in this evaluation, or none where it is not one to be drawn.

        A picture that has become unreadable since is left out.
        """
        found = self._found.pop(student, {})
        self._found.clear()
        if not found or not self._is_due(epoch, best):
            return []
        return [path for number, result in sorted(found.items()) for path in self._drawn(number, result, epoch)]

    def _is_due(self, epoch: int, best: bool) -> bool:
        drawn = [_epoch_of(path) for path in (self.folder / FOLDER).glob("*.jpg")]
        if not drawn or epoch >= self.epochs:
            return True
        apart = -(-self.epochs // (MOST_EVALUATIONS - 2))
        return best and epoch - max(drawn) >= apart

    def _drawn(self, number: int, result: ImageResult, epoch: int) -> list[Path]:
        sample = result.sample
        try:
            picture = read_image(sample.image)
        except DataError:
            return []
        image, scale = within(picture, LONGEST_SIDE_PX)
        found = [detection.polygon * scale for detection in result.detections]
        drawn = draw_regions(image, found, [polygon * scale for polygon in sample.polygons], sample.ignore)
        name = file_name(f"val/{number + 1} {sample.image.stem}", epoch, time.time())
        full, small = self.folder / FOLDER / f"{name}.jpg", self.folder / FOLDER / f"{name}+compressed.jpg"
        write_image(full, drawn)
        write_image(small, within(drawn, THUMBNAIL_PX)[0])
        return [full, small]


def file_name(key: str, step: int, now: float) -> str:
    """Without its suffix, as MLflow's pages read a picture's key, step and time off it."""
    plain = re.sub(r"[^a-zA-Z0-9_\-./ ]", "_", key).replace("/", "~")
    return f"{plain}+step+{step}+timestamp+{int(now * 1000)}+{uuid.uuid4()}"


def _epoch_of(path: Path) -> int:
    return int(path.name.split("+step+")[1].split("+")[0])
