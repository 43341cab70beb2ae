import numpy as np
import pytest

from ocr_ray.visualize import (
    IGNORED,
    LABELLED,
    PREDICTED,
    WRONG,
    Mark,
    contact_sheet,
    draw_map,
    draw_marks,
    draw_regions,
    side_by_side,
)

SQUARE = np.array([[20, 20], [80, 20], [80, 60], [20, 60]])


def holds(image: np.ndarray, colour: tuple[int, int, int]) -> int:
    """Pixels of about that colour: smoothed lines are mixed with what lies under them."""
    return int((np.abs(image.astype(int) - colour) < 50).all(axis=2).sum())


@pytest.mark.parametrize("background", [(0, 0, 0), (255, 255, 255), PREDICTED])
def test_lines_can_be_seen_on_any_background(background: tuple[int, int, int]) -> None:
    image = np.full((100, 120, 3), background, np.uint8)
    before = image.copy()
    drawn = draw_regions(image, [SQUARE])
    np.testing.assert_array_equal(image, before)
    changed = np.abs(drawn.astype(int) - image).max(axis=2) > 100
    assert changed.sum() > 2 * (60 + 40)  # an outline at the least


def test_predicted_labelled_and_ignored_regions_have_colours_of_their_own() -> None:
    image = np.full((200, 120, 3), 90, np.uint8)
    drawn = draw_regions(image, [SQUARE], [SQUARE + np.array([0, 60]), SQUARE + np.array([0, 120])], [False, True])
    for colour, low in ((PREDICTED, 0), (LABELLED, 60), (IGNORED, 120)):
        assert holds(drawn[low + 10 : low + 70], colour) > 100
        assert holds(drawn, colour) == holds(drawn[low + 10 : low + 70], colour)


def test_polygons_outside_the_picture_do_no_harm() -> None:
    image = np.zeros((50, 50, 3), np.uint8)
    far = [SQUARE + 1e9, SQUARE - 1e9, np.full((4, 2), np.nan)]
    np.testing.assert_array_equal(draw_regions(image, far), image)


def test_one_flag_for_each_labelled_region() -> None:
    with pytest.raises(ValueError, match="zip"):
        draw_regions(np.zeros((50, 50, 3), np.uint8), [], [SQUARE, SQUARE], [True])


def test_the_map_grows_brighter_with_the_probability() -> None:
    levels = np.linspace(0, 1, 11, dtype=np.float32)[None].repeat(4, axis=0)
    heat = draw_map(levels, 11, 4)
    assert heat.shape == (4, 11, 3)
    assert (np.diff(heat[0].astype(int) @ [29, 150, 77]) > 0).all()
    np.testing.assert_array_equal(
        draw_map(np.array([[np.nan, -3, 7]], np.float32), 3, 1)[0, :2], heat[:1, :1].repeat(2, 1)[0]
    )


def test_picture_and_map_lie_side_by_side() -> None:
    image = np.full((60, 90, 3), 7, np.uint8)
    both = side_by_side(image, np.ones((32, 64), np.float32))
    assert both.shape == (60, 180, 3)
    np.testing.assert_array_equal(both[:, :90], image)


def test_a_sheet_keeps_each_picture_in_proportion() -> None:
    wide, high = np.full((50, 100, 3), 10, np.uint8), np.full((100, 50, 3), 20, np.uint8)
    sheet = contact_sheet([wide, high, wide], columns=2, cell_width=50)
    assert sheet.shape == (200, 100, 3)
    assert (sheet[:25, :50] == 10).all()
    assert (sheet[25:100, :50] == 255).all()
    assert (sheet[:100, 50:] == 20).all()
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([], 2, 50)


def test_a_word_is_written_where_none_is_yet() -> None:
    image = np.full((100, 120, 3), 90, np.uint8)
    words = [Mark(SQUARE, LABELLED, word) for word in ("missed", "false", "loose")]
    one, two, three = (holds(draw_marks(image, words[:count]), WRONG) for count in (1, 2, 3))
    assert 0 < one < two  # above, then below
    assert three == two  # no place is left
    assert holds(draw_marks(image, [Mark(SQUARE + 100, LABELLED, "far")]), WRONG) == 0
    assert holds(draw_marks(image, [Mark(np.full((4, 2), np.nan), LABELLED, "nowhere")]), WRONG) == 0
