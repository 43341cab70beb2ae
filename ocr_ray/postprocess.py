"""Probability map to text polygons with scores."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from operator import itemgetter
from typing import Literal, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_ray.errors import ConfigError
from ocr_ray.geometry.polygons import unclip

MIN_SIDE_PX = 3  # of a kernel's rectangle; fixed in the reference. The grown one has to reach 2 more
APPROXIMATION = 0.002  # of a contour's length: how far a polygon may stray from it

Contour = NDArray[np.int32]  # (K, 1, 2)
Kernel = tuple[NDArray[np.integer | np.floating], float]
"""A text before it is grown: outline `(K, 2)` in pixels of the map, and the mean probability inside."""


@dataclass(frozen=True)
class PostprocessConfig:
    """Cuts and growth on the way from a probability map to polygons. Names and meanings as in PaddleOCR."""

    thresh: float = 0.3
    """A pixel belongs to a text kernel when its probability lies above this."""
    box_thresh: float = 0.6
    """A polygon is kept when the mean probability inside it reaches this."""
    unclip_ratio: float = 1.5
    """A kernel grows outwards by area * unclip_ratio / perimeter."""
    max_candidates: int = 1000
    """Only the first so many contours are looked at, in OpenCV's order."""
    use_dilation: bool = False
    """The kernels grow by a pixel to the right and below before their contours are taken."""
    score_mode: Literal["fast", "slow"] = "fast"
    """`fast`: the mean inside the quad. `slow`: inside the contour, which suits curved text. Quads only."""
    box_type: Literal["quad", "poly"] = "quad"

    def __post_init__(self) -> None:
        if not 0 < self.thresh < 1:
            raise ConfigError(f"postprocess.thresh: expected a number between 0 and 1, found {self.thresh:g}")
        if not 0 <= self.box_thresh <= 1:
            raise ConfigError(f"postprocess.box_thresh: expected a number from 0 to 1, found {self.box_thresh:g}")
        if not self.unclip_ratio > 0:
            raise ConfigError(f"postprocess.unclip_ratio: expected a number above 0, found {self.unclip_ratio:g}")
        if self.max_candidates < 1:
            raise ConfigError(f"postprocess.max_candidates: expected at least 1, found {self.max_candidates}")
        if self.box_type == "poly" and self.score_mode == "slow":
            raise ConfigError("postprocess.score_mode: expected fast with postprocess.box_type=poly, found slow")


@dataclass(frozen=True)
class Detection:
    """A text region: `polygon` `(K, 2)` int32 in pixels of the picture, `score` in [0, 1]."""

    polygon: NDArray[np.int32]
    score: float


def boxes_from_map(
    probability: NDArray[np.float32], cfg: PostprocessConfig, width: int, height: int
) -> list[Detection]:
    """The text regions of one probability map, scaled to a picture of `width` by `height` pixels.

    Args: probability `(H, W)` float32 in [0, 1], the shrink map.
    Returns: quads `[top left, top right, bottom right, bottom left]`, or polygons of any length with
        `box_type="poly"`, clipped to [0, width] and [0, height] inclusive, in the order of OpenCV's contours.
    Raises: ValueError when the map is not `(H, W)`.
    Source: Liao et al. 2020, arXiv 1911.08947, section 3; PaddleOCR, `DBPostProcess`.
    """
    kernels = [kernel for kernel in kernels_of(probability, cfg) if not kernel[1] < cfg.box_thresh]
    return texts_of(kernels, probability.shape, cfg, width, height)


def kernels_of(probability: NDArray[np.float32], cfg: PostprocessConfig) -> list[Kernel]:
    """The kernels of a map `(H, W)` with their scores, whatever these are, in the order of OpenCV's contours.

    `box_thresh` and `unclip_ratio` have no part in them. Raises: ValueError as `boxes_from_map`.
    """
    if probability.ndim != 2:
        raise ValueError(f"boxes_from_map: expected a map (H, W), found {probability.shape}")
    probability = np.ascontiguousarray(probability, np.float32)  # else each crop of it is copied by OpenCV
    bitmap = (probability > cfg.thresh).view(np.uint8)
    if cfg.use_dilation:
        bitmap = cast("NDArray[np.uint8]", cv2.dilate(bitmap, np.ones((2, 2), np.uint8)))
    found, _ = cv2.findContours(bitmap, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)  # holes as well, as the reference
    contours = cast("Sequence[Contour]", found)
    kernel_of = _quad_kernel if cfg.box_type == "quad" else _polygon_kernel
    kernels = (kernel_of(c, probability, cfg) for c in contours[: cfg.max_candidates] if not _is_tiny(c))
    return [kernel for kernel in kernels if kernel is not None]


def texts_of(
    kernels: Sequence[Kernel], map_shape: tuple[int, ...], cfg: PostprocessConfig, width: int, height: int
) -> list[Detection]:
    """Kernels grown by `unclip_ratio` and scaled from a map `(H, W)` to a picture; those that come to nothing are left
    out."""
    grow = _grown_quad if cfg.box_type == "quad" else _grown_polygon
    grown = [(grow(outline, cfg.unclip_ratio), score) for outline, score in kernels]
    polygons = [polygon for polygon, _ in grown if polygon is not None]
    scores = [score for polygon, score in grown if polygon is not None]
    scaled = _scaled(polygons, (map_shape[1], map_shape[0]), (width, height))
    return [Detection(polygon, score) for polygon, score in zip(scaled, scores, strict=True)]


def _scaled(
    polygons: list[NDArray[np.floating]], map_size: tuple[int, int], size: tuple[int, int]
) -> list[NDArray[np.int32]]:
    """From pixels of the map to whole pixels of the picture, all of them at once; sizes are (width, height)."""
    if not polygons:
        return []
    points = np.concatenate(polygons)
    for axis in (0, 1):
        points[:, axis] = np.clip(np.round(points[:, axis] / map_size[axis] * size[axis]), 0, size[axis])
    whole = points.astype(np.int32)
    ends = list(accumulate(len(polygon) for polygon in polygons))
    return [whole[start:end] for start, end in pairwise([0, *ends])]


def _is_tiny(contour: Contour) -> bool:
    """Whether the contour's smallest rectangle must be too small, seen more cheaply than by finding it.

    Its area is at most that of the axis-parallel box, and its shorter side at most the root of its area.
    """
    _, _, width, height = cv2.boundingRect(contour)
    return (width - 1) * (height - 1) < MIN_SIDE_PX**2


def _quad_kernel(contour: Contour, probability: NDArray[np.float32], cfg: PostprocessConfig) -> Kernel | None:
    quad, side = _smallest_rectangle(contour)
    if side < MIN_SIDE_PX:
        return None
    return quad, _mean_inside(probability, quad if cfg.score_mode == "fast" else contour[:, 0])


def _grown_quad(quad: NDArray[np.integer | np.floating], unclip_ratio: float) -> NDArray[np.floating] | None:
    grown = unclip(quad, unclip_ratio)
    if len(grown) != 1:
        return None
    quad, side = _smallest_rectangle(grown[0])
    return None if side < MIN_SIDE_PX + 2 else quad


def _polygon_kernel(contour: Contour, probability: NDArray[np.float32], cfg: PostprocessConfig) -> Kernel | None:
    kernel = cv2.approxPolyDP(contour, APPROXIMATION * cv2.arcLength(contour, True), True)[:, 0]
    return None if len(kernel) < 4 else (kernel, _mean_inside(probability, kernel))


def _grown_polygon(kernel: NDArray[np.integer | np.floating], unclip_ratio: float) -> NDArray[np.floating] | None:
    grown = unclip(kernel, unclip_ratio)
    if len(grown) != 1:
        return None
    _, side = _smallest_rectangle(grown[0])
    return None if side < MIN_SIDE_PX + 2 else grown[0].astype(np.float64)


def _smallest_rectangle(points: NDArray[np.generic]) -> tuple[NDArray[np.float32], float]:
    """The rectangle of least area around `points`, corners clockwise from the top left, and its shorter side."""
    rectangle = cv2.minAreaRect(points.astype(np.int32, copy=False))
    corners = sorted(cv2.boxPoints(rectangle).tolist(), key=itemgetter(0))
    (one, other), (third, fourth) = corners[:2], corners[2:]
    # Of two on the same height the second one of the pair counts as the upper, as in the reference.
    top_left, bottom_left = (one, other) if other[1] > one[1] else (other, one)
    top_right, bottom_right = (third, fourth) if fourth[1] > third[1] else (fourth, third)
    return np.array([top_left, top_right, bottom_right, bottom_left], np.float32), min(rectangle[1])


def _mean_inside(probability: NDArray[np.float32], polygon: NDArray[np.generic]) -> float:
    """Mean probability of the pixels that OpenCV fills for `polygon` `(K, 2)`, vertices truncated to whole pixels."""
    height, width = probability.shape
    xs, ys = zip(*polygon.tolist(), strict=True)
    x0, x1 = _clamp(math.floor(min(xs)), width - 1), _clamp(math.ceil(max(xs)), width - 1)
    y0, y1 = _clamp(math.floor(min(ys)), height - 1), _clamp(math.ceil(max(ys)), height - 1)
    mask = np.zeros((y1 - y0 + 1, x1 - x0 + 1), np.uint8)
    cv2.fillPoly(mask, [(polygon - np.array((x0, y0))).astype(np.int32)], 1)
    return cv2.mean(probability[y0 : y1 + 1, x0 : x1 + 1], mask)[0]


def _clamp(value: int, last: int) -> int:
    return 0 if value < 0 else last if value > last else value
