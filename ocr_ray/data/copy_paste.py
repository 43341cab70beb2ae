"""CopyPaste: legible words of another picture, turned at random, laid where no text is."""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_ray.data.images import Image, read_image
from ocr_ray.data.labels import Sample
from ocr_ray.errors import ConfigError
from ocr_ray.geometry import affine
from ocr_ray.geometry.polygons import area

_UPRIGHT = 1.5
"""A word this much higher than wide is laid on its side before it is turned."""


@dataclass(frozen=True)
class CopyPasteConfig:
    """How words are pasted. The reference does so for DML and CML, not for a student alone."""

    enabled: bool = False
    ratio: float = 0.2
    """Share of the other picture's boxes that is pasted, at least one."""
    max_objects: int = 30
    """Pasted into one picture at most."""
    max_tries: int = 50
    """Places tried for each before it is left out."""
    cache_mib: int = 64
    """Memory of each loader process for words that were cut out before; changes no picture."""

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise ConfigError(
                f"data.augment.copy_paste.ratio: expected more than 0 and at most 1, found {self.ratio:g}"
            )
        for key, value in (("max_objects", self.max_objects), ("max_tries", self.max_tries)):
            if value < 1:
                raise ConfigError(f"data.augment.copy_paste.{key}: expected at least 1, found {value}")
        if self.cache_mib < 0:
            raise ConfigError(f"data.augment.copy_paste.cache_mib: expected at least 0, found {self.cache_mib}")


@dataclass(frozen=True, eq=False)
class Words:
    """The legible words of one picture, cut out upright, `(h, w, 3)` each, and how many boxes it has in all."""

    pixels: tuple[Image, ...]
    num_boxes: int


class Donors:
    """Samples to take words from: those whose boxes are all quads, as in the reference.

    Words are kept once cut out, up to `cache_mib`, since decoding a second picture for each sample would double the
    work of loading.
    """

    def __init__(self, samples: Sequence[Sample], cache_mib: int, read: Callable[[Path], Image] = read_image) -> None:
        self._samples = samples
        self._read = read
        self._able = [i for i, s in enumerate(samples) if s.polygons and all(len(p) == 4 for p in s.polygons)]
        self._kept: OrderedDict[int, Words] = OrderedDict()
        self._free = cache_mib * 2**20

    def draw(self, index: int, rng: np.random.Generator) -> int | None:
        """A sample other than `index`; None when there is no other."""
        if not self._able or self._able == [index]:
            return None
        while True:
            donor = self._able[rng.integers(len(self._able))]
            if donor != index:
                return donor

    def words(self, donor: int) -> Words:
        """The words of sample `donor`. Raises: DataError when its picture cannot be read."""
        if donor in self._kept:
            self._kept.move_to_end(donor)
            return self._kept[donor]
        words = cut_words(self._samples[donor], self._read)
        size = _num_bytes(words)
        while self._kept and size > self._free:
            self._free += _num_bytes(self._kept.popitem(last=False)[1])
        if size <= self._free:
            self._kept[donor] = words
            self._free -= size
        return words


def cut_words(sample: Sample, read: Callable[[Path], Image] = read_image) -> Words:
    """Cuts the legible quads out of a sample's picture, got by `read`. Raises: DataError when it cannot be read."""
    quads = [p for p, ignored in zip(sample.polygons, sample.ignore, strict=True) if not ignored and area(p) >= 1]
    image = read(sample.image) if quads else np.zeros((0, 0, 3), np.uint8)
    cuts = (_cut_word(image, quad) for quad in quads)
    return Words(tuple(c for c in cuts if c is not None), len(sample.polygons))


def paste_words(
    image: Image,
    polygons: Sequence[NDArray[np.floating]],
    words: Words,
    cfg: CopyPasteConfig,
    rng: np.random.Generator,
) -> tuple[Image, list[NDArray[np.floating]]]:
    """A copy of `image` with some of `words` on it, and the quads of the pasted words, `(4, 2)` in its pixels.

    Each is turned by whole degrees and laid so that its extent touches that of no polygon and no other pasted word;
    one that is larger than the picture or finds no place is left out. Nothing is scaled.
    Source: reference name `CopyPaste`.
    """
    height, width = image.shape[:2]
    image = image.copy()
    taken = [(*p.min(axis=0), *p.max(axis=0)) for p in polygons]
    pasted: list[NDArray[np.floating]] = []
    number = max(1, min(int(cfg.ratio * words.num_boxes), cfg.max_objects))
    for i in rng.permutation(len(words.pixels))[:number]:
        pixels, alpha, quad = turned(words.pixels[i], float(rng.integers(360)))
        h, w = alpha.shape
        if w > width or h > height:
            continue
        places = rng.integers(0, (width - w + 1, height - h + 1), size=(cfg.max_tries, 2))
        place = _first_free(places + quad.min(axis=0), places + quad.max(axis=0), taken)
        if place is None:
            continue
        x, y = places[place]
        part = image[y : y + h, x : x + w]
        part[:] = (pixels * alpha[..., None] + part * (1 - alpha[..., None]) + 0.5).astype(np.uint8)
        quad = quad + np.array([x, y])
        pasted.append(quad)
        taken.append((*quad.min(axis=0), *quad.max(axis=0)))
    return image, pasted


def turned(word: Image, degrees: float) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
    """A word turned counter-clockwise, in the smallest picture that holds it.

    Returns: its pixels `(H, W, 3)`, how opaque each is from 0 to 1 `(H, W)`, and the word's quad `(4, 2)` in there.
    """
    h, w = word.shape[:2]
    quad = affine.apply(affine.rotation(-degrees, w, h), [(0, 0), (w, 0), (w, h), (0, h)])
    low = quad.min(axis=0)
    width, height = (math.ceil(side - 1e-6) for side in quad.max(axis=0) - low)
    move = affine.chain(affine.rotation(-degrees, w, h), affine.translation(-low[0], -low[1]))
    matrix = affine.for_warp(move)
    pixels = cv2.warpAffine(word, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    alpha = cv2.warpAffine(np.ones((h, w), np.float32), matrix, (width, height), flags=cv2.INTER_LINEAR)
    return np.asarray(pixels, np.float32), np.asarray(alpha, np.float32), quad - low


def _cut_word(image: Image, quad: NDArray[np.floating]) -> Image | None:
    """The quad as an upright rectangle of its longer sides; on its side where it is much higher than wide."""
    sides = np.linalg.norm(np.roll(quad, -1, axis=0) - quad, axis=1)
    width, height = int(max(sides[0], sides[2])), int(max(sides[1], sides[3]))
    if min(width, height) < 1 or max(width, height) > max(image.shape[:2]):
        return None
    low = np.clip(np.floor(quad.min(axis=0)).astype(int) - 2, 0, None)
    high = np.clip(np.ceil(quad.max(axis=0)).astype(int) + 3, 0, None)
    part = image[low[1] : high[1], low[0] : high[0]]  # all of it may have more pixels a side than OpenCV's warp takes
    if not part.size:
        return None
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    matrix = cv2.getPerspectiveTransform((quad - low).astype(np.float32), corners)
    word = cv2.warpPerspective(part, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(np.rot90(word) if height >= _UPRIGHT * width else word, np.uint8)


def _first_free(low: NDArray[np.float64], high: NDArray[np.float64], taken: Sequence[tuple[float, ...]]) -> int | None:
    """The first of the extents `low` to `high`, `(T, 2)` each, that touches none of `taken`; None when all do."""
    if not taken:
        return 0
    left, top, right, bottom = np.array(taken).T
    meets_in_x = (low[:, :1] <= right) & (high[:, :1] >= left)
    meets_in_y = (low[:, 1:] <= bottom) & (high[:, 1:] >= top)
    free = np.flatnonzero(~np.any(meets_in_x & meets_in_y, axis=1))
    return int(free[0]) if len(free) else None


def _num_bytes(words: Words) -> int:
    return sum(p.nbytes for p in words.pixels) + 1024
