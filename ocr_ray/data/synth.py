"""Rendered scene text: words in DejaVu faces, straight and curved, each with the exact polygon of its ink."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_ray.data.images import Image, write_image
from ocr_ray.data.labels import format_line
from ocr_ray.data.lettering import Ink, draw_word
from ocr_ray.errors import ConfigError, DataError
from ocr_ray.files import whole_folder, write_text
from ocr_ray.typed import to_plain

Split = Literal["train", "val"]
Rng = np.random.Generator
Polygon = NDArray[np.float32]

FORMAT = "ocr_ray synthetic scene text 1"
CARD = "synth.json"
GAP_PX = 4  # kept free around each word
POINTS_PER_SIDE = 6  # of a curved word's polygon; its chords then stay within about a pixel of the arc
ATTEMPTS = 6  # draws of word, size and bend, each smaller than the one before
PLACES = 12  # tried for each of them


@dataclass(frozen=True)
class SynthConfig:
    """What is rendered. Lengths in pixels, angles in degrees."""

    train: int = 200
    """Pictures to train on."""
    val: int = 24
    """Pictures to validate on."""
    width: int = 320
    height: int = 256
    min_words: int = 3
    max_words: int = 7
    min_text_height: int = 16
    """Of a word's ink before it is turned or bent."""
    max_text_height: int = 48
    max_angle: float = 20.0
    curved: float = 0.25
    """The part of the words that runs along an arc."""
    difficulty: Literal["easy", "hard"] = "easy"
    """`easy`: plain, gradient or noisy backgrounds, strong contrast. `hard`: shapes as well, and less contrast."""

    def __post_init__(self) -> None:
        if self.train < 1 or self.val < 1:
            raise ConfigError(f"synth: expected at least 1 picture in train and val, found {self.train} and {self.val}")
        if not 1 <= self.min_words <= self.max_words:
            raise ConfigError(f"synth: expected 1 <= min_words <= max_words, found {self.min_words}, {self.max_words}")
        if not 8 <= self.min_text_height <= self.max_text_height:
            raise ConfigError(
                "synth: expected 8 <= min_text_height <= max_text_height, found "
                f"{self.min_text_height}, {self.max_text_height}"
            )
        if min(self.width, self.height) < 8 * self.min_text_height:
            raise ConfigError(
                f"synth: {self.width}x{self.height} is too small for text {self.min_text_height} high, expected sides "
                f"of at least {8 * self.min_text_height}"
            )
        if not 0 <= self.max_angle <= 90 or not 0 <= self.curved <= 1:
            raise ConfigError(
                "synth: expected max_angle from 0 to 90 and curved from 0 to 1, found "
                f"{self.max_angle:g} and {self.curved:g}"
            )


@dataclass(frozen=True)
class Picture:
    """A rendered picture `(H, W, 3)`, and its words: polygons of 4 points, or 12 along an arc, clockwise, texts."""

    image: Image
    polygons: tuple[Polygon, ...]
    texts: tuple[str, ...]


def render_set(out: Path, cfg: SynthConfig, seed: int) -> tuple[Path, Path]:
    """Renders `out/train/*.jpg`, `out/val/*.jpg`, and their label files in PaddleOCR's format; all or nothing.

    The same config and seed give the same bytes with the same versions of NumPy, OpenCV and Pillow. A set that is
    there already with this config and seed is left as it is; another one of ours is replaced.
    Returns: the label files, `out/train_label.txt` and `out/val_label.txt`.
    Raises: DataError when `out` holds anything but a set rendered by this function.
    """
    card = {"format": FORMAT, "seed": seed, "config": to_plain(cfg)}
    if _card_in(out) != card:
        with whole_folder(out) as folder:
            _render_split(folder, "train", cfg.train, cfg, seed)
            _render_split(folder, "val", cfg.val, cfg, seed)
            write_text(folder / CARD, json.dumps(card, indent=2) + "\n")
    return out / "train_label.txt", out / "val_label.txt"


def render_picture(cfg: SynthConfig, seed: int, split: Split, index: int) -> Picture:
    """One picture, from (seed, split, index) alone. It holds at least one word, as a rule as many as `cfg` asks for."""
    rng = np.random.default_rng((seed, get_args(Split).index(split), index))
    light_on_dark = bool(rng.integers(2))
    canvas = _background(rng, cfg, dark=light_on_dark)
    taken = np.zeros(canvas.shape[:2], np.uint8)
    polygons: list[Polygon] = []
    texts: list[str] = []
    tries = int(rng.integers(cfg.min_words, cfg.max_words + 1))
    while tries > 0 or not polygons:
        tries -= 1
        placed = _place_word(rng, cfg, taken)
        if placed is None:
            continue
        ink, polygon, x, y = placed
        ink.paint(canvas, x, y, _colour(rng, cfg, dark=not light_on_dark))
        _take(taken, polygon)
        polygons.append(polygon)
        texts.append(ink.text)
    if cfg.difficulty == "hard":
        canvas = cast(Image, cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.3, 1.0)))
    return Picture(_with_noise(rng, canvas, amplitude=4), tuple(polygons), tuple(texts))


def _card_in(folder: Path) -> object:
    """What `render_set` wrote about the set in `folder`; None when the folder is not there or empty."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        card = None
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise DataError(f"{folder}: holds something else than a rendered set, expected a new folder")
    return card


def _render_split(folder: Path, split: Split, count: int, cfg: SynthConfig, seed: int) -> None:
    lines = []
    for index in range(count):
        picture = render_picture(cfg, seed, split, index)
        name = f"{split}/{index:05d}.jpg"
        write_image(folder / name, picture.image)
        lines.append(format_line(name, picture.polygons, picture.texts) + "\n")
    write_text(folder / f"{split}_label.txt", "".join(lines))


def _place_word(rng: Rng, cfg: SynthConfig, taken: NDArray[np.uint8]) -> tuple[Ink, Polygon, int, int] | None:
    """A word, turned or bent, its polygon, and its middle where it touches neither another word nor the border."""
    highest = float(cfg.max_text_height)
    for _ in range(ATTEMPTS):
        ink = draw_word(
            rng,
            height=rng.uniform(cfg.min_text_height, highest),
            angle=np.deg2rad(rng.uniform(-cfg.max_angle, cfg.max_angle)),
            bend=rng.uniform(0.5, 1.3) * rng.choice((-1, 1)) if rng.random() < cfg.curved else 0.0,
        )
        outline = ink.outline(POINTS_PER_SIDE)
        low = np.ceil(GAP_PX - outline.min(axis=0)).astype(int)
        high = np.floor((cfg.width, cfg.height) - outline.max(axis=0)).astype(int) - GAP_PX
        if (low < high).all():
            for place in rng.integers(low, high, (PLACES, 2)):
                polygon = outline + place.astype(np.float32)
                if _is_free(taken, polygon):
                    return ink, polygon, int(place[0]), int(place[1])
        highest = max(0.75 * highest, cfg.min_text_height)
    return None


def _is_free(taken: NDArray[np.uint8], polygon: Polygon) -> bool:
    x, y, width, height = cv2.boundingRect(polygon)
    inside = np.zeros((height, width), np.uint8)
    cv2.fillPoly(inside, [np.rint(polygon - (x, y)).astype(np.int32)], 1)
    return not (taken[y : y + height, x : x + width] & inside[: taken.shape[0] - y, : taken.shape[1] - x]).any()


def _take(taken: NDArray[np.uint8], polygon: Polygon) -> None:
    points = [np.rint(polygon).astype(np.int32)]
    cv2.fillPoly(taken, points, 1)
    cv2.polylines(taken, points, True, 1, 2 * GAP_PX + 1)


def _colour(rng: Rng, cfg: SynthConfig, dark: bool) -> NDArray[np.float32]:
    """A colour from the dark or from the light side; text and background always come from different ones."""
    low, high = (0, 90) if cfg.difficulty == "easy" else (20, 115)
    channels = rng.uniform(low, high, 3)
    return (channels if dark else 255 - channels).astype(np.float32)


def _background(rng: Rng, cfg: SynthConfig, dark: bool) -> Image:
    first, second = _colour(rng, cfg, dark), _colour(rng, cfg, dark)
    kind = rng.choice(("plain", "gradient", "noise"))
    if kind == "gradient":
        across = rng.uniform(-1, 1) * np.linspace(-1, 1, cfg.width, dtype=np.float32)
        down = rng.uniform(-1, 1) * np.linspace(-1, 1, cfg.height, dtype=np.float32)
        slope = (across[None, :] + down[:, None])[..., None]
        share = (slope - slope.min()) / max(float(np.ptp(slope)), 1e-3)
        canvas = (first + (second - first) * share).astype(np.uint8)
    else:
        canvas = np.full((cfg.height, cfg.width, 3), first, np.uint8)
    if cfg.difficulty == "hard":
        _draw_shapes(rng, cfg, canvas, dark)
    return _with_noise(rng, canvas, amplitude=30) if kind == "noise" else canvas


def _draw_shapes(rng: Rng, cfg: SynthConfig, canvas: Image, dark: bool) -> None:
    """Boxes and strokes in the background's own range, so that not each edge is text."""
    for _ in range(int(rng.integers(2, 9))):
        start, end = rng.integers(0, (cfg.width, cfg.height), (2, 2)).tolist()
        colour = _colour(rng, cfg, dark).tolist()
        thickness = int(rng.choice((-1, 1, 3, 8)))
        if rng.random() < 0.5:
            cv2.rectangle(canvas, start, end, colour, thickness)
        else:
            cv2.line(canvas, start, end, colour, abs(thickness), cv2.LINE_AA)


def _with_noise(rng: Rng, canvas: Image, amplitude: int) -> Image:
    noise = rng.integers(0, 2 * amplitude + 1, canvas.shape, np.uint8)
    return np.clip(canvas.astype(np.int16) + noise - amplitude, 0, 255).astype(np.uint8)
