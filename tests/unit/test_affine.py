import cv2
import numpy as np
import pytest

from ocr_ray.geometry import affine


def test_a_flip_keeps_the_frame() -> None:
    flip = affine.horizontal_flip(100)
    assert affine.apply(flip, [[0, 5], [100, 5], [30, 7]]).tolist() == [[100, 5], [0, 5], [70, 7]]
    np.testing.assert_allclose(flip @ flip, affine.identity())


def test_a_quarter_turn_is_clockwise_about_the_middle() -> None:
    turn = affine.rotation(90, 100, 60)
    np.testing.assert_allclose(affine.apply(turn, [[50, 30], [60, 30], [50, 20]]), [[50, 30], [50, 40], [60, 30]])


def test_a_chain_goes_from_first_to_last() -> None:
    m = affine.chain(affine.translation(1, 2), affine.scaling(10, 100))
    assert affine.apply(m, [3, 4]).tolist() == [40, 600]
    np.testing.assert_allclose(affine.apply(affine.inverse(m), [40, 600]), [3, 4])
    assert affine.mean_scale(m) == pytest.approx(1000**0.5)


def test_one_warp_moves_pixels_as_points_move() -> None:
    """A bright block is found where its corners went: pixel i covers [i, i + 1)."""
    image = np.zeros((60, 100), np.uint8)
    image[20:30, 40:60] = 255
    m = affine.chain(affine.horizontal_flip(100), affine.scaling(2, 3), affine.translation(7, -11))
    warped = cv2.warpAffine(image, affine.for_warp(m), (220, 180), flags=cv2.INTER_LINEAR)
    corners = affine.apply(m, [[40, 20], [60, 30]])
    rows, columns = np.nonzero(warped > 127)
    assert (columns.min(), columns.max() + 1) == (corners[:, 0].min(), corners[:, 0].max())
    assert (rows.min(), rows.max() + 1) == (corners[:, 1].min(), corners[:, 1].max())


def test_the_mirror_image_is_exact() -> None:
    image = np.random.default_rng(0).integers(0, 256, (17, 23, 3)).astype(np.uint8)
    warped = cv2.warpAffine(image, affine.for_warp(affine.horizontal_flip(23)), (23, 17), flags=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(warped, image[:, ::-1])
