from pathlib import Path

import numpy as np
import pytest

from ocr_ray.data.images import read_image
from ocr_ray.data.labels import read_labels
from ocr_ray.data.synth import SynthConfig, render_picture, render_set
from ocr_ray.errors import ConfigError, DataError
from ocr_ray.files import file_digest

SMALL = SynthConfig(train=4, val=2)


def digests(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): file_digest(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_set_is_made_of_pictures_and_labels_that_fit_them(tmp_path: Path) -> None:
    train, val = render_set(tmp_path / "set", SMALL, seed=3)
    assert (train, val) == (tmp_path / "set" / "train_label.txt", tmp_path / "set" / "val_label.txt")
    for file, split, count in ((train, "train", 4), (val, "val", 2)):
        samples = read_labels(file)
        assert len(samples) == count
        for index, sample in enumerate(samples):
            picture = render_picture(SMALL, 3, split, index)
            assert read_image(sample.image).shape == picture.image.shape == (256, 320, 3)
            assert sample.texts == picture.texts
            for written, polygon in zip(sample.polygons, picture.polygons, strict=True):
                np.testing.assert_allclose(written, polygon, atol=0.006)  # labels keep two decimals
                assert (polygon >= 0).all()
                assert (polygon <= (320, 256)).all()


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(tmp_path: Path) -> None:
    render_set(tmp_path / "a", SMALL, seed=1)
    render_set(tmp_path / "b", SMALL, seed=1)
    render_set(tmp_path / "c", SMALL, seed=2)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert digests(tmp_path / "a")["train_label.txt"] != digests(tmp_path / "c")["train_label.txt"]


def test_a_picture_does_not_depend_on_how_many_there_are() -> None:
    many = SynthConfig(train=500, val=2)
    np.testing.assert_array_equal(render_picture(SMALL, 0, "train", 3).image, render_picture(many, 0, "train", 3).image)
    assert render_picture(SMALL, 0, "train", 1).texts != render_picture(SMALL, 0, "val", 1).texts


def test_an_equal_set_is_kept_and_another_one_of_ours_replaced(tmp_path: Path) -> None:
    out = tmp_path / "set"
    render_set(out, SMALL, seed=0)
    (out / "train" / "00000.jpg").write_bytes(b"marked")
    render_set(out, SMALL, seed=0)
    assert (out / "train" / "00000.jpg").read_bytes() == b"marked"
    render_set(out, SynthConfig(train=2, val=2), seed=0)
    assert len(list((out / "train").iterdir())) == 2
    assert (out / "train" / "00000.jpg").read_bytes() != b"marked"


@pytest.mark.parametrize("name", ["mine.txt", "synth.json"])
def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(DataError, match="something else"):
        render_set(tmp_path, SMALL, seed=0)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    render_set(tmp_path, SynthConfig(train=1, val=1), seed=0)
    assert (tmp_path / "train" / "00000.jpg").exists()


def test_words_are_as_many_and_as_bent_as_asked() -> None:
    pictures = [render_picture(SynthConfig(curved=0.0), 0, "train", i) for i in range(30)]
    counts = [len(p.polygons) for p in pictures]
    assert min(counts) >= 2
    assert max(counts) == 7
    assert np.mean(counts) > 4
    assert all(len(polygon) == 4 for p in pictures for polygon in p.polygons)
    bent = [render_picture(SynthConfig(curved=1.0), 0, "train", i) for i in range(5)]
    assert all(len(polygon) == 12 for p in bent for polygon in p.polygons)
    upright = [render_picture(SynthConfig(curved=0.0, max_angle=0.0), 0, "train", i) for i in range(10)]
    heights = np.array([np.ptp(polygon[:, 1]) for p in upright for polygon in p.polygons])
    assert 14 <= heights.min() <= 24
    assert 32 <= heights.max() <= 50


def test_text_stands_out_from_an_easy_background_and_less_from_a_hard_one() -> None:
    easy = [contrast(SynthConfig(difficulty="easy"), i) for i in range(12)]
    hard = [contrast(SynthConfig(difficulty="hard"), i) for i in range(12)]
    assert min(easy) > 60
    assert np.mean(hard) < np.mean(easy)


def contrast(cfg: SynthConfig, index: int) -> float:
    """Between the brightest and the darkest twentieth of the pixels inside the first word's box."""
    picture = render_picture(cfg, 5, "train", index)
    low, high = picture.polygons[0].min(axis=0).astype(int), picture.polygons[0].max(axis=0).astype(int)
    inside = picture.image[low[1] : high[1], low[0] : high[0]].mean(axis=2)
    return float(np.quantile(inside, 0.95) - np.quantile(inside, 0.05))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"val": 0}, "at least 1 picture"),
        ({"min_words": 5, "max_words": 3}, "min_words"),
        ({"min_text_height": 4}, "min_text_height"),
        ({"width": 100}, "too small"),
        ({"max_angle": 100.0}, "max_angle"),
        ({"curved": 1.5}, "curved"),
    ],
)
def test_a_wrong_value_is_named(values: dict[str, float], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        SynthConfig(**values)
