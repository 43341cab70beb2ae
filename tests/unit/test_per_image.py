"""Counts by picture on disk, and brought into one order for runs that could not read the same pictures."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from ocr_ray.engine.per_image import ImageCounts, aligned, read_per_image, write_per_image
from ocr_ray.errors import RunError

RUN = (ImageCounts(0, "a.jpg", 1, 2, 3), ImageCounts(2, "a.jpg", 0, 5, 0), ImageCounts(3, "c.jpg", 2, 2, 2))


def test_the_file_gives_back_what_was_written(tmp_path: Path) -> None:
    write_per_image(tmp_path / "best" / "per_image.json", RUN, {"epoch": 3})
    assert read_per_image(tmp_path / "best" / "per_image.json") == RUN
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["per_image.json"]
    write_per_image(tmp_path / "none.json", (), {})
    assert read_per_image(tmp_path / "none.json") == ()


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"index": [1], "name": []}', "not JSON"])
def test_a_file_that_is_none_of_these_is_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "per_image.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(RunError, match=r"per_image\.json: no counts by picture can be read"):
        read_per_image(path)


def test_pictures_that_one_run_could_not_read_are_left_out_of_all() -> None:
    one, other = aligned([RUN, RUN[1:]])
    np.testing.assert_array_equal(one, [[0, 5, 0], [2, 2, 2]])
    np.testing.assert_array_equal(other, one)
    assert [counts.shape for counts in aligned([RUN, ()])] == [(0, 3), (0, 3)]
    assert aligned([]) == []


@pytest.mark.parametrize("change", [{"name": "b.jpg"}, {"ground_truth": 3}])
def test_counts_of_another_set_are_refused(change: dict[str, str | int]) -> None:
    odd = (dataclasses.replace(RUN[0], **change), *RUN[1:])  # type: ignore[arg-type]
    with pytest.raises(RunError, match=r"evaluated on other sets: picture 0 is a\.jpg with 2 regions in one"):
        aligned([RUN, odd])
