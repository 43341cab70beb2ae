"""Label maps against `c_label_maps.npz`."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ocr_ray.data.targets import TargetConfig, clipped, draw_targets


class Case:
    def __init__(self, name: str, arrays: dict[str, NDArray[Any]]) -> None:
        self.name = name
        self.arrays = arrays
        self.polygons: list[NDArray[np.floating]] = list(arrays["polys"])
        self.ignore = arrays["ignore_in"]
        self.height, self.width = (int(side) for side in arrays["hw"])
        self.cfg = TargetConfig(shrink_ratio=float(arrays["shrink_ratio"]), min_text_size=int(arrays["min_text_size"]))

    @property
    def raises(self) -> str:
        return str(self.arrays["raises"])


@pytest.fixture(scope="module")
def cases(golden: Path) -> list[Case]:
    with np.load(golden / "c_label_maps.npz") as vectors:
        arrays: dict[str, dict[str, NDArray[Any]]] = defaultdict(dict)
        for key in vectors.files:
            name, _, field = key.rpartition("/")
            arrays[name][field] = vectors[key]
    return [Case(name, fields) for name, fields in arrays.items()]


def test_maps_equal_the_reference(cases: list[Case]) -> None:
    drawable = [case for case in cases if not case.raises]
    assert len(drawable) >= 10
    for case in drawable:
        drawn = draw_targets(case.polygons, case.ignore, case.height, case.width, case.cfg)
        for exact in ("shrink_map", "shrink_mask", "threshold_mask"):
            np.testing.assert_array_equal(getattr(drawn, exact), case.arrays[exact], err_msg=f"{case.name} {exact}")
        np.testing.assert_allclose(
            drawn.threshold_map, case.arrays["threshold_map"], rtol=0, atol=1e-5, err_msg=case.name
        )
        np.testing.assert_array_equal(drawn.ignore, case.arrays["ignore_out"], err_msg=case.name)


def test_clipping_equals_the_reference(cases: list[Case]) -> None:
    for case in cases:
        if case.raises:
            continue
        for polygon, expected in zip(case.polygons, case.arrays["polys_out"], strict=True):
            ours = clipped(polygon, case.height, case.width)
            # The reference also turns clockwise polygons round, which no later step depends on.
            same = np.array_equal(ours, expected) or np.array_equal(ours[::-1], expected)
            assert same, case.name


def test_where_the_reference_raises_the_polygon_is_as_if_absent(cases: list[Case]) -> None:
    raising = [case for case in cases if case.raises]
    assert raising
    for case in raising:
        height, width = case.height, case.width
        inside = [(p >= 0).all() and (p <= (width - 1, height - 1)).all() for p in case.polygons]
        assert any(inside)
        assert not all(inside)
        drawn = draw_targets(case.polygons, case.ignore, height, width, case.cfg)
        alone = draw_targets(
            [p for p, keep in zip(case.polygons, inside, strict=True) if keep],
            case.ignore[inside],
            height,
            width,
            case.cfg,
        )
        for name in ("shrink_map", "shrink_mask", "threshold_map", "threshold_mask"):
            np.testing.assert_array_equal(getattr(drawn, name), getattr(alone, name), err_msg=name)
        assert alone.shrink_map.any()
