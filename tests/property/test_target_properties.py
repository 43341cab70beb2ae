import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ocr_ray.data.augment import AugmentConfig, draw_augmentation
from ocr_ray.data.reduced import ReducedImage, shrink
from ocr_ray.data.targets import TargetConfig, draw_targets
from ocr_ray.geometry.polygons import offset, shrink_distance

HEIGHT, WIDTH = 64, 96
points = st.tuples(st.floats(-60, 160), st.floats(-60, 130))
polygons = st.lists(points, min_size=4, max_size=8).map(lambda p: np.array(p, np.float64))
labels = st.lists(st.tuples(polygons, st.booleans()), max_size=5)


def split(given_labels: list[tuple[NDArray[np.float64], bool]]) -> tuple[list[NDArray[np.float64]], NDArray[np.bool_]]:
    return [p for p, _ in given_labels], np.array([i for _, i in given_labels], bool)


@settings(deadline=None)
@given(given_labels=labels, ratio=st.floats(0.05, 0.95), size=st.integers(1, 30))
def test_any_polygons_give_sound_maps(
    given_labels: list[tuple[NDArray[np.float64], bool]], ratio: float, size: int
) -> None:
    """Crossing, flat, tiny, far outside: maps stay in their ranges, and ignored text is only ever masked."""
    drawn_polygons, ignore = split(given_labels)
    cfg = TargetConfig(shrink_ratio=ratio, min_text_size=size)
    drawn = draw_targets(drawn_polygons, ignore, HEIGHT, WIDTH, cfg)
    for name in ("shrink_map", "shrink_mask", "threshold_mask"):
        values = getattr(drawn, name)
        assert values.shape == (HEIGHT, WIDTH)
        assert values.max() <= 1
    assert np.isfinite(drawn.threshold_map).all()
    assert 0.3 - 1e-6 <= drawn.threshold_map.min() <= drawn.threshold_map.max() <= 0.7 + 1e-6
    assert (drawn.ignore >= ignore).all()
    if drawn.ignore.all():
        assert not drawn.shrink_map.any()
    if ignore.all():
        assert not drawn.threshold_mask.any()


@settings(deadline=None)
@given(given_labels=labels)
def test_the_order_of_polygons_does_not_matter(given_labels: list[tuple[NDArray[np.float64], bool]]) -> None:
    forwards = draw_targets(*split(given_labels), HEIGHT, WIDTH, TargetConfig())
    backwards = draw_targets(*split(given_labels[::-1]), HEIGHT, WIDTH, TargetConfig())
    for name in ("shrink_map", "shrink_mask", "threshold_map", "threshold_mask"):
        np.testing.assert_array_equal(getattr(forwards, name), getattr(backwards, name))


@settings(deadline=None)
@given(x=st.integers(-20, 40), y=st.integers(-20, 30))
def test_targets_move_with_the_text(x: int, y: int) -> None:
    """Away from the borders a word that moves by whole pixels takes its maps along."""
    word = np.array([[120, 110], [190, 116], [186, 140], [117, 133]], np.float64)
    here = draw_targets([word], np.array([False]), 256, 320, TargetConfig())
    there = draw_targets([np.add(word, (x, y))], np.array([False]), 256, 320, TargetConfig())
    for name in ("shrink_map", "threshold_mask", "threshold_map"):
        moved = np.roll(getattr(here, name), (y, x), axis=(0, 1))
        np.testing.assert_allclose(getattr(there, name), moved, atol=1e-6)


@settings(deadline=None)
@given(
    given_labels=labels,
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    seed=st.integers(0, 2**32),
    degrees=st.floats(0, 180),
    least=st.floats(0.01, 1),
    tries=st.integers(0, 20),
    side_ratio=st.floats(0, 1),
)
def test_any_picture_can_be_augmented(
    given_labels: list[tuple[NDArray[np.float64], bool]],
    width: int,
    height: int,
    seed: int,
    degrees: float,
    least: float,
    tries: int,
    side_ratio: float,
) -> None:
    """From one pixel on, with any labels: the crop lies in the picture, what is kept touches it."""
    moving, ignore = split(given_labels)
    cfg = AugmentConfig(
        rotate_degrees=degrees,
        scale_min=least,
        scale_max=3 * least,
        crop_width=64,
        crop_height=32,
        max_tries=tries,
        min_crop_side_ratio=side_ratio,
    )
    drawn = draw_augmentation(moving, ignore, width, height, cfg, np.random.default_rng(seed))
    scaled_width, scaled_height = max(1, round(width * drawn.scale)), max(1, round(height * drawn.scale))
    crop = drawn.crop
    assert 0 <= crop.x < crop.x + crop.width <= scaled_width
    assert 0 <= crop.y < crop.y + crop.height <= scaled_height
    filled_width, filled_height = drawn.filled
    assert filled_width <= 64
    assert filled_height <= 32
    assert filled_width >= 63 or filled_height >= 31  # truncated, as in the reference
    kept, indices = drawn.moved(moving)
    assert indices == sorted(set(indices))
    for polygon in kept:
        assert (polygon.max(axis=0) >= 0).all()
        assert (polygon.min(axis=0) <= drawn.filled).all()
    image = np.full((height, width, 3), 200, np.uint8)
    for source in (ReducedImage(image), shrink(image, drawn.reduction)):
        picture = drawn.picture(source)
        assert picture.shape == (32, 64, 3)
        assert picture.max() <= 200


def reference_distance(polygon: NDArray[np.float64], reach: float, height: int, width: int) -> NDArray[np.float64]:
    """The reference's rule, edge by edge over the whole picture; NaN in the pixel of a vertex that is given twice."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    distances = []
    for (ax, ay), (bx, by) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        length2 = (bx - ax) ** 2 + (by - ay) ** 2
        to_a, to_b = (x - ax) ** 2 + (y - ay) ** 2, (x - bx) ** 2 + (y - by) ** 2
        with np.errstate(invalid="ignore"):
            across = ((x - ax) * (by - ay) - (y - ay) * (bx - ax)) ** 2 / np.float64(length2)
        distances.append(np.sqrt(np.where(to_a + to_b > length2, np.minimum(to_a, to_b), across)))
    return np.minimum(np.min(distances, axis=0) / reach, 1)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([4, 4, 7, 12, 20]), st.booleans(), st.booleans())
def test_the_border_follows_the_reference_s_rule(seed: int, points: int, whole: bool, twice: bool) -> None:
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, points))
    polygon = np.stack([np.cos(angles), np.sin(angles)], axis=1) * rng.uniform(5, 60, 2) + rng.uniform(-20, 120, 2)
    if whole:
        polygon = np.rint(polygon)  # pixels then lie exactly on the circle that decides which rule holds
    if twice:
        polygon[1] = polygon[0]
    reach = shrink_distance(polygon, 0.4)
    drawn = draw_targets([polygon], np.zeros(1, np.bool_), 100, 100, TargetConfig())
    (hull,) = offset(polygon, reach)[:1] or [np.zeros((1, 2), np.int64) - 1]
    x0, y0 = np.maximum(hull.min(axis=0), 0)
    x1, y1 = np.maximum(hull.max(axis=0) + 1, 0)
    expected = np.full((100, 100), 0.3)
    if reach > 0:
        raised = 0.7 - 0.4 * reference_distance(polygon, reach, 100, 100)
        expected[y0:y1, x0:x1] = np.fmax(expected, raised)[y0:y1, x0:x1]
    # float32 at the end; a pixel within rounding of that circle may go by either rule, which none of whole points does
    differ = np.abs(drawn.threshold_map - expected) > 1e-6
    assert differ.sum() <= (0 if whole else 1)
