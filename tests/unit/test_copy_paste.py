from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from ocr_ray.data.copy_paste import CopyPasteConfig, Donors, Words, cut_words, paste_words, turned
from ocr_ray.data.labels import Sample
from ocr_ray.errors import ConfigError, DataError

CFG = CopyPasteConfig(enabled=True, ratio=1.0)


def quad(x0: float, y0: float, x1: float, y1: float) -> NDArray[np.float32]:
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float32)


def sample(path: Path, polygons: list[NDArray[np.float32]], ignore: list[bool] | None = None) -> Sample:
    ignored = np.array(ignore or [False] * len(polygons), bool)
    return Sample(path, tuple(polygons), ignored, tuple("###" if i else "a" for i in ignored))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """200x100, a colour for each of its 20x20 fields."""
    fields = np.random.default_rng(0).integers(0, 256, (5, 10, 3)).astype(np.uint8)
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), fields.repeat(20, axis=0).repeat(20, axis=1))
    return path


def test_words_are_cut_out_upright(picture: Path) -> None:
    image = cv2.imread(str(picture))
    lying, standing = quad(20, 20, 80, 40), quad(100, 0, 120, 60)
    words = cut_words(sample(picture, [lying, standing, quad(0, 60, 40, 80)], [False, False, True]))
    assert words.num_boxes == 3
    assert [w.shape for w in words.pixels] == [(20, 60, 3), (20, 60, 3)]
    # Cubic, and by corners of pixels: only at a field's border may a value differ.
    np.testing.assert_array_equal(words.pixels[0][5:-5, 5:15], image[25:35, 25:35])
    np.testing.assert_array_equal(words.pixels[1], np.rot90(cut_words(sample(picture, [standing])).pixels[0], 0))
    np.testing.assert_array_equal(words.pixels[1][5:-5, 5:15], image[5:15, 105:115])  # turned to the left


def test_a_slanted_word_is_straightened(tmp_path: Path) -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    slanted = np.array([[40, 20], [140, 50], [134, 70], [34, 40]], np.float32)
    cv2.fillPoly(image, [slanted.astype(np.int32)], (0, 200, 0))
    cv2.imwrite(str(tmp_path / "a.png"), image)
    (word,) = cut_words(sample(tmp_path / "a.png", [slanted])).pixels
    assert word.shape == (20, 104, 3)
    assert (word[2:-2, 2:-2] == (0, 200, 0)).all()


@pytest.mark.parametrize(
    "polygon",
    [quad(5, 5, 5, 5), quad(5, 5, 50, 5), quad(0, 0, 1e6, 1e6), quad(300, 300, 340, 320), quad(-90, -90, -10, -10)],
)
def test_words_that_cannot_be_cut_are_left_out(picture: Path, polygon: NDArray[np.float32]) -> None:
    assert cut_words(sample(picture, [polygon])).pixels == ()


def test_a_word_turned_by_nothing_is_itself() -> None:
    word = np.random.default_rng(0).integers(0, 256, (20, 60, 3)).astype(np.uint8)
    pixels, alpha, corners = turned(word, 0)
    np.testing.assert_array_equal(pixels, word)
    assert (alpha == 1).all()
    np.testing.assert_allclose(corners, quad(0, 0, 60, 20), atol=1e-9)


@pytest.mark.parametrize("degrees", [0, 30, 90, 123, 180, 270, 359])
def test_a_turned_word_fills_its_quad(degrees: int) -> None:
    pixels, alpha, corners = turned(np.full((20, 60, 3), 200, np.uint8), degrees)
    height, width = alpha.shape
    assert pixels.shape == (height, width, 3)
    assert corners.min() > -1e-6
    assert (corners.max(axis=0) <= (width + 1e-6, height + 1e-6)).all()
    assert (pixels == 200).all()
    assert alpha.sum() == pytest.approx(20 * 60, rel=0.03)
    inside = cv2.fillPoly(np.zeros((height, width), np.uint8), [np.rint(corners - 0.5).astype(np.int32)], (1,))
    assert alpha[cv2.erode(inside, np.ones((5, 5), np.uint8), borderValue=0) > 0].min() > 0.99
    assert alpha[cv2.dilate(inside, np.ones((5, 5), np.uint8)) == 0].max(initial=0) < 0.01


def words(number: int, num_boxes: int | None = None, size: tuple[int, int] = (10, 30)) -> Words:
    pixels = tuple(np.full((*size, 3), 100 + i, np.uint8) for i in range(number))
    return Words(pixels, num_boxes or number)


def extents(polygons: list[NDArray[np.floating]]) -> list[tuple[float, ...]]:
    return [(*p.min(axis=0), *p.max(axis=0)) for p in polygons]


def test_pasted_words_meet_no_text_and_lie_in_the_picture() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    there = [quad(10, 10, 60, 40), quad(100, 50, 180, 80)]
    for seed in range(20):
        rng = np.random.default_rng(seed)
        pasted_on, pasted = paste_words(image, there, words(6), CFG, rng)
        assert 1 <= len(pasted) <= 6
        assert not image.any()  # the given picture stays as it was
        assert not pasted_on[10:40, 10:60].any()
        assert not pasted_on[50:80, 100:180].any()
        boxes = extents([*there, *pasted])
        for i, (l1, t1, r1, b1) in enumerate(boxes):
            for l2, t2, r2, b2 in boxes[:i]:
                assert l1 > r2 or l2 > r1 or t1 > b2 or t2 > b1
        for polygon in pasted:
            assert polygon.min() >= -1e-6
            assert (polygon.max(axis=0) <= (200 + 1e-6, 100 + 1e-6)).all()
            middle = polygon.mean(axis=0).astype(int)
            assert 100 <= pasted_on[middle[1], middle[0]].max() < 106


def test_how_many_are_pasted() -> None:
    image = np.zeros((400, 400, 3), np.uint8)

    def number(cfg: CopyPasteConfig, given: Words) -> int:
        return len(paste_words(image, [], given, cfg, np.random.default_rng(0))[1])

    assert number(CopyPasteConfig(), words(3)) == 1  # 0.2 * 3 is less than one
    assert number(CopyPasteConfig(), words(11)) == 2
    assert number(CopyPasteConfig(), words(4, num_boxes=16)) == 3  # a share of all boxes, ignored ones too
    assert number(CopyPasteConfig(ratio=1, max_objects=2), words(11)) == 2
    assert number(CopyPasteConfig(), words(0, num_boxes=5)) == 0


def test_words_without_a_place_are_left_out() -> None:
    image, rng = np.zeros((100, 200, 3), np.uint8), np.random.default_rng(0)
    assert paste_words(image, [quad(0, 0, 200, 100)], words(3), CFG, rng)[1] == []
    assert paste_words(image, [], words(3, size=(300, 300)), CFG, rng)[1] == []


def test_touching_is_meeting() -> None:
    """A word as large as the picture's free half touches the other half, wherever it goes."""
    image = np.zeros((40, 40, 3), np.uint8)
    whole = Words((np.full((40, 40, 3), 9, np.uint8),), 1)
    rng = np.random.default_rng(0)
    turned_by_quarters = [paste_words(image, [], whole, CFG, rng)[1] for _ in range(400)]
    assert sum(len(p) for p in turned_by_quarters) < 40  # other angles need more room than there is
    assert all(paste_words(image, [quad(-9, -9, 0, 0)], whole, CFG, rng)[1] == [] for _ in range(400))


def test_donors_are_other_samples_of_quads(picture: Path) -> None:
    curved = sample(picture, [np.zeros((12, 2), np.float32)])
    samples = [sample(picture, [quad(0, 0, 40, 20)]), curved, sample(picture, []), sample(picture, [quad(0, 0, 20, 9)])]
    donors, rng = Donors(samples, 1), np.random.default_rng(0)
    assert {donors.draw(0, rng) for _ in range(50)} == {3}
    assert {donors.draw(1, rng) for _ in range(50)} == {0, 3}
    assert Donors(samples[:3], 1).draw(0, rng) is None
    assert Donors(samples[1:3], 1).draw(0, rng) is None


def test_words_are_kept_up_to_the_limit(tmp_path: Path) -> None:
    samples = []
    for i in range(6):
        path = tmp_path / f"{i}.png"
        cv2.imwrite(str(path), np.full((400, 800, 3), i, np.uint8))
        samples.append(sample(path, [quad(0, 0, 799, 200)]))  # 468 KiB each
    donors = Donors(samples, 1)
    first = donors.words(0)
    assert donors.words(0) is first
    for i in range(1, 6):
        donors.words(i)
    again = donors.words(0)
    assert again is not first
    np.testing.assert_array_equal(again.pixels[0], first.pixels[0])
    assert Donors(samples, 0).words(0).pixels[0].shape == (200, 799, 3)


def test_a_donor_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.png"):
        Donors([sample(tmp_path / "none.png", [quad(0, 0, 9, 9)])], 1).words(0)


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"ratio": 0.0}, "ratio"),
        ({"max_objects": 0}, "max_objects"),
        ({"max_tries": 0}, "max_tries"),
        ({"cache_mib": -1}, "cache_mib"),
    ],
)
def test_configs_that_make_no_sense_are_refused(wrong: dict[str, float], key: str) -> None:
    with pytest.raises(ConfigError, match=rf"data\.augment\.copy_paste\.{key}"):
        CopyPasteConfig(**wrong)  # type: ignore[arg-type]
