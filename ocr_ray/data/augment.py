"""Flip, rotation, scale and crop of a training picture: drawn from its polygons, then done in one warp.

The geometry is drawn first and needs no pixel, only the picture's size. The picture is then read as small as the crop
allows, and a single affine map takes it into the crop: no rotated or threefold enlarged copy is ever made.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_ray.data.copy_paste import CopyPasteConfig
from ocr_ray.data.images import Image
from ocr_ray.data.reduced import ReducedImage, Reduction
from ocr_ray.errors import ConfigError
from ocr_ray.geometry import affine
from ocr_ray.geometry.affine import Affine

Polygons = Sequence[NDArray[np.floating]]


@dataclass(frozen=True)
class AugmentConfig:
    """How training pictures are varied; the defaults are the reference's."""

    flip_probability: float = 0.5
    """Of a mirrored picture, left to right."""
    rotate_degrees: float = 10.0
    """Turned by up to this much either way, corners black, size kept."""
    scale_min: float = 0.5
    scale_max: float = 3.0
    """Resized by a factor between the two before the crop is drawn."""
    crop_width: int = 960
    crop_height: int = 960
    """What the net sees, in pixels; a multiple of 32 each. Crops are scaled to fit, the rest is black."""
    max_tries: int = 50
    """Rectangles drawn before the whole picture is taken."""
    min_crop_side_ratio: float = 0.1
    """A crop's sides are at least this share of the picture's."""
    copy_paste: CopyPasteConfig = field(default_factory=CopyPasteConfig)

    def __post_init__(self) -> None:
        for key, share in (
            ("flip_probability", self.flip_probability),
            ("min_crop_side_ratio", self.min_crop_side_ratio),
        ):
            if not 0 <= share <= 1:
                raise ConfigError(f"data.augment.{key}: expected a number between 0 and 1, found {share:g}")
        for key, side in (("crop_width", self.crop_width), ("crop_height", self.crop_height)):
            if side < 32 or side % 32:
                raise ConfigError(f"data.augment.{key}: expected a multiple of 32, found {side}")
        if not 0 < self.scale_min <= self.scale_max:
            raise ConfigError(
                f"data.augment.scale_min: expected more than 0 and at most data.augment.scale_max={self.scale_max:g}, "
                f"found {self.scale_min:g}"
            )
        if not 0 <= self.rotate_degrees <= 180:
            raise ConfigError(
                f"data.augment.rotate_degrees: expected a number from 0 to 180, found {self.rotate_degrees:g}"
            )
        if self.max_tries < 0:
            raise ConfigError(f"data.augment.max_tries: expected at least 0, found {self.max_tries}")


@dataclass(frozen=True)
class Crop:
    """A rectangle in whole pixels: its top left corner and its size."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Augmentation:
    """What was drawn for one picture of `width` x `height` pixels.

    In this order: mirrored where `flip`, turned by `degrees` within its own frame, resized by `scale`, cut to `crop`
    (pixels of the resized picture), resized to fit `crop_width` x `crop_height` and laid into its top left corner.
    """

    width: int
    height: int
    flip: bool
    degrees: float
    scale: float
    crop: Crop
    crop_width: int
    crop_height: int

    @cached_property
    def before_crop(self) -> Affine:
        """Points of the picture to points of the flipped, turned and resized one."""
        return _before_crop(self.width, self.height, self.flip, self.degrees, self.scale)

    @cached_property
    def matrix(self) -> Affine:
        """Points of the picture to points of what the net sees."""
        fit = self.fit
        return affine.chain(self.before_crop, affine.translation(-self.crop.x, -self.crop.y), affine.scaling(fit, fit))

    @property
    def fit(self) -> float:
        """By how much the crop is resized."""
        return min(self.crop_width / self.crop.width, self.crop_height / self.crop.height)

    @property
    def filled(self) -> tuple[int, int]:
        """Width and height of the part that shows the crop; what lies right of it and below is black."""
        return max(1, int(self.crop.width * self.fit)), max(1, int(self.crop.height * self.fit))

    @property
    def reduction(self) -> Reduction:
        """How much smaller the picture may be read; without it a crop that shrinks by more than two would alias."""
        scale = affine.mean_scale(self.matrix)
        return 8 if scale <= 1 / 8 else 4 if scale <= 1 / 4 else 2 if scale <= 1 / 2 else 1

    def moved(self, polygons: Polygons) -> tuple[list[NDArray[np.float64]], list[int]]:
        """The polygons as they lie in what the net sees, and which of the given ones they are.

        Polygons entirely outside the filled part are left out; touching it is enough to stay. Nothing is clipped.
        """
        moved = _apply_to_all(self.matrix, polygons)
        kept = np.flatnonzero(_touching(_extents(moved), 0, 0, *self.filled)).tolist()
        return [moved[i] for i in kept], kept

    def picture(self, image: ReducedImage) -> Image:
        """What the net sees, `(crop_height, crop_width, 3)`; bilinear, black where the picture does not reach."""
        width, height = self.filled
        shown = self.source(image).warped(width, height)
        if (width, height) == (self.crop_width, self.crop_height):
            return shown
        canvas = np.zeros((self.crop_height, self.crop_width, 3), np.uint8)
        canvas[:height, :width] = shown
        return canvas

    def source(self, image: ReducedImage) -> "Source":
        """The part of the picture as it was read that the net sees, and where it goes."""
        width, height = self.filled
        if self.degrees == 0 and self.scale == 1 and image.pixels.shape[:2] == (self.height, self.width):
            crop, whole = self.crop, image.pixels[:, ::-1] if self.flip else image.pixels
            part = whole[crop.y : crop.y + crop.height, crop.x : crop.x + crop.width]
            return Source(part, affine.for_warp(affine.scaling(width / crop.width, height / crop.height)), is_cut=True)
        return _looked_at(image, self.matrix, width, height)


@dataclass(frozen=True, eq=False)
class Source:
    """`pixels` `(h, w, 3)`, perhaps a view or none at all, and the `(2, 3)` matrix that takes the centres of these to
    those of what the net sees.

    Where `is_cut`, they are the whole crop, and what lies beyond them is as their border; else it is black.
    """

    pixels: Image
    matrix: Affine
    is_cut: bool = False

    def warped(self, width: int, height: int) -> Image:
        """`(height, width, 3)`, bilinear."""
        if self.is_cut:
            return _resized(self.pixels, width, height)
        if not self.pixels.size:
            return np.zeros((height, width, 3), np.uint8)
        return np.asarray(cv2.warpAffine(self.pixels, self.matrix, (width, height), flags=cv2.INTER_LINEAR), np.uint8)


def draw_augmentation(
    polygons: Polygons, ignore: NDArray[np.bool_], width: int, height: int, cfg: AugmentConfig, rng: np.random.Generator
) -> Augmentation:
    """Draws flip, rotation, scale and crop for a picture of `width` x `height` pixels and its M polygons.

    `ignore` is `(M,)`; ignored polygons do not guide the crop.
    Source: reference names `IaaAugment` (its imgaug form, PaddleOCR up to 2.7) and `EastRandomCropData`. The order of
    the draws is our own, see also `draw_crop`.
    """
    flip = bool(rng.random() < cfg.flip_probability)
    degrees = float(rng.uniform(-cfg.rotate_degrees, cfg.rotate_degrees))
    scale = float(rng.uniform(cfg.scale_min, cfg.scale_max))
    to_scaled = _before_crop(width, height, flip, degrees, scale)
    guides = _apply_to_all(to_scaled, [p for p, ignored in zip(polygons, ignore, strict=True) if not ignored])
    crop = draw_crop(guides, *_scaled_size(width, height, scale), cfg, rng)
    return Augmentation(width, height, flip, degrees, scale, crop, cfg.crop_width, cfg.crop_height)


def draw_crop(guides: Polygons, width: int, height: int, cfg: AugmentConfig, rng: np.random.Generator) -> Crop:
    """A rectangle whose sides cut through no guide: they lie in columns and rows that no guide's extent covers.

    Each side is drawn from a stretch of free columns (rows) that is itself drawn, so that a narrow gap between words
    is as likely as a wide margin. A rectangle is taken when it is large enough and touches a guide. Where no column or
    no row is free, or nothing is taken in `max_tries` tries, it is the whole picture.

    Differs from the reference (`EastRandomCropData`) in three things, each a slip of its code: its last free stretch
    is never used, so that the rightmost and the lowest text is rarely seen whole; text that begins left of or above
    the picture covers nothing; and a picture without guides is shown whole or dropped, while here it gets the first
    rectangle that is large enough, so that negatives come in all sizes too.
    """
    whole = Crop(0, 0, width, height)
    extents = _extents(guides)
    sides = extents.tolist()
    columns, rows = _free_runs(extents[:, 0::2], width), _free_runs(extents[:, 1::2], height)
    if not columns or not rows:
        return whole
    least_width, least_height = max(1.0, cfg.min_crop_side_ratio * width), max(1.0, cfg.min_crop_side_ratio * height)
    for _ in range(cfg.max_tries):
        (x0, x1), (y0, y1) = _draw_sides(columns, rng), _draw_sides(rows, rng)
        if x1 - x0 < least_width or y1 - y0 < least_height:
            continue
        if not guides or any(
            left <= x1 and right >= x0 and top <= y1 and bottom >= y0 for left, top, right, bottom in sides
        ):
            return Crop(x0, y0, x1 - x0, y1 - y0)
    return whole


def cut(image: Image, crop: Crop, width: int, height: int) -> Image:
    """The rectangle of a picture, resized (bilinear) to `width` x `height`."""
    return _resized(image[crop.y : crop.y + crop.height, crop.x : crop.x + crop.width], width, height)


def _resized(image: Image, width: int, height: int) -> Image:
    return np.asarray(cv2.resize(np.ascontiguousarray(image), (width, height)), np.uint8)


def _scaled_size(width: int, height: int, scale: float) -> tuple[int, int]:
    return max(1, round(width * scale)), max(1, round(height * scale))


@lru_cache(maxsize=1)  # a sample asks twice: where to crop, and then
def _before_crop(width: int, height: int, flip: bool, degrees: float, scale: float) -> Affine:
    scaled_width, scaled_height = _scaled_size(width, height, scale)
    return affine.chain(
        affine.horizontal_flip(width) if flip else affine.identity(),
        affine.rotation(degrees, width, height),
        affine.scaling(scaled_width / width, scaled_height / height),
    )


def _apply_to_all(matrix: Affine, polygons: Polygons) -> list[NDArray[np.float64]]:
    """Each polygon moved by `matrix`; all points at once, since a picture may have hundreds of short polygons."""
    if not polygons:
        return []
    points = affine.apply(matrix, np.concatenate(polygons))
    ends = [*accumulate(len(polygon) for polygon in polygons)]
    return [points[start:end] for start, end in pairwise([0, *ends])]


def _extents(polygons: Polygons) -> NDArray[np.float64]:
    """Left, top, right and bottom of each, `(M, 4)`."""
    if not polygons:
        return np.zeros((0, 4))
    points = np.concatenate(polygons)
    starts = [0, *accumulate(len(polygon) for polygon in polygons[:-1])]
    low, high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
    return np.concatenate([low, high], axis=1, dtype=np.float64)


def _touching(extents: NDArray[np.float64], x0: float, y0: float, x1: float, y1: float) -> NDArray[np.bool_]:
    """Which of the extents `(M, 4)` have a point in common with the rectangle."""
    left, top, right, bottom = extents.T
    return (left <= x1) & (right >= x0) & (top <= y1) & (bottom >= y0)


def _free_runs(extents: NDArray[np.floating], size: int) -> list[list[int]]:
    """Stretches of columns or rows, first and one past the last, that none of the extents `(M, 2)` covers."""
    runs: list[list[int]] = []
    free_from = 0
    covered = np.minimum(np.maximum(np.rint(extents), 0), size).astype(int)
    for first, end in sorted(covered.tolist()):
        if first < end:  # text thinner than a pixel may cover none
            if first > free_from:
                runs.append([free_from, first])
            free_from = max(free_from, end)
    if free_from < size:
        runs.append([free_from, size])
    return runs


def _draw_sides(runs: list[list[int]], rng: np.random.Generator) -> tuple[int, int]:
    # Four draws of one number each: the same numbers as two draws of arrays, in half the time.
    picked = [runs[rng.integers(len(runs))] for _ in range(2)]
    one, other = (int(rng.integers(first, end)) for first, end in picked)
    return min(one, other), max(one, other)


def _looked_at(image: ReducedImage, matrix: Affine, width: int, height: int) -> Source:
    """What `matrix` (from pixels of the whole picture) takes into `width` x `height` pixels."""
    matrix = affine.chain(affine.scaling(image.pixel_width, image.pixel_height), matrix)
    # Only the part that is looked at: cv2.warpAffine takes no picture of more than 32,766 pixels a side.
    (a, b, c), (d, e, f), _ = matrix.tolist()
    corners = [(x - c, y - f) for x in (0, width) for y in (0, height)]
    x0, x1 = _span([(e * x - b * y) / (a * e - b * d) for x, y in corners], image.pixels.shape[1])
    y0, y1 = _span([(a * y - d * x) / (a * e - b * d) for x, y in corners], image.pixels.shape[0])
    to_part = affine.for_warp(affine.chain(affine.translation(float(x0), float(y0)), matrix))
    return Source(image.pixels[y0:y1, x0:x1], to_part)


def _span(places: Sequence[float], size: int) -> tuple[int, int]:
    """First and one past the last of `size` pixels that interpolation between the `places` may look at."""
    first, last = min(places) - 2, max(places) + 2
    return math.floor(min(max(first, 0), size)), math.ceil(min(max(last, 0), size))
