import json
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ocr_ray.data.labels import Sample, format_line, parse_line
from ocr_ray.errors import DataError

coordinates = st.integers(-50, 4000) | st.integers(-5000, 400_000).map(lambda v: v / 100)
polygons = st.lists(st.tuples(coordinates, coordinates), min_size=4, max_size=14)
boxes = st.lists(st.tuples(polygons, st.text()), max_size=5)
names = st.text(st.characters(codec="utf-8", exclude_characters="\t\n\r\0/\\"), min_size=1).filter(
    lambda name: name.strip() and name not in (".", "..") and not name.startswith("[")
)


@given(name=names, given_boxes=boxes)
def test_what_is_written_is_read(name: str, given_boxes: list[tuple[list[tuple[float, float]], str]]) -> None:
    line = format_line(name, [p for p, _ in given_boxes], [t for _, t in given_boxes])
    assert "\n" not in line
    sample = parse_line(line.encode(), Path("/data"), "a.txt:1")
    assert sample.name == name
    assert sample.texts == tuple(t for _, t in given_boxes)
    for polygon, (points, _) in zip(sample.polygons, given_boxes, strict=True):
        np.testing.assert_array_equal(polygon, np.array(points, np.float32))
    assert sample.ignore.tolist() == [t in ("###", "*") for t in sample.texts]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["transcription", "points", "x"]), inner)
    ),
    max_leaves=20,
)


def parsed(line: bytes) -> Sample | str:
    """The sample, or the one line that says what is wrong."""
    try:
        return parse_line(line, Path("/data"), "a.txt:7")
    except DataError as e:
        return str(e)


@given(value=st.lists(json_values, max_size=3) | json_values)
def test_any_json_is_a_sample_or_one_line(value: object) -> None:
    sample = parsed(f"a.jpg\t{json.dumps(value)}".encode())
    if isinstance(sample, str):
        assert sample.startswith("a.txt:7: ")
        assert "\n" not in sample
    else:
        assert all(np.isfinite(p).all() and p.shape[1] == 2 and len(p) >= 4 for p in sample.polygons)


@given(line=st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_bytes_are_a_sample_or_one_line(line: bytes) -> None:
    sample = parsed(line)
    assert not isinstance(sample, str) or (sample.startswith("a.txt:7: ") and "\n" not in sample)
