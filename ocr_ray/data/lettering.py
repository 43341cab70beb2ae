"""One word as ink: set in a face, then bent along an arc and turned, its outline known to the pixel."""

import functools
from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

FACES = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
)
REFERENCE_SIZE = 64  # at which a word is measured, to find the size that gives its ink the wanted height
INK = 32  # of 255: fainter edges of letters lie outside the outline
DIGITS = 0.2  # of all words are numbers

LEXICON = (
    "above across after air alley almost anchor apple arch arrow avenue baker bank barn basin beach best bike bird "
    "black blue boat book bottle box bridge bright brown bus butter cafe camp candle castle cedar center chalk chapel "
    "cherry city clinic clock club coast coffee copper corner cream cross daily danger delta depot direct dock door "
    "dragon drive east easy echo empty engine exit express fabric ferry field final fire fish flower forest fresh "
    "fruit garage garden gate gift glass gold grand grape green guide hall harbor heart hill hobby home honey hotel "
    "house ice inn island jacket jazz juice jump key kitchen lake lamp laundry leaf lemon library lion local lucky "
    "lunch magic mail maple market metro milk mint mirror modern museum narrow new night north number ocean office "
    "olive open orange oven paper park peach pearl pepper piano pilot pizza plaza police pool post price public "
    "purple quality queen quick quiet radio railway rapid red rice river road rocket roof rose royal sale salt sand "
    "school shop silver sky smoke snow soap south spice square station stone store street sugar summer swan table "
    "taxi tea theater ticket tiger toast tower town track train travel tunnel under union upper urban valley velvet "
    "vine violet visit wagon water west wheat window winter wood world yellow yoga young zebra zero zone"
)
WORDS = LEXICON.split()


@dataclass(frozen=True, eq=False)
class Ink:
    """A word's ink. Its own frame has the middle of the word at the origin, x to the right, y down, in pixels.

    `strip` `(h, w)` uint8 is the upright word's coverage, trimmed to the ink. It is bent along an arc of `bend`
    radians (middle up when positive, straight at 0; its middle line keeps its length) and turned by `angle` radians,
    clockwise as seen.
    """

    text: str
    strip: NDArray[np.uint8]
    bend: float
    angle: float

    def outline(self, points_per_side: int) -> NDArray[np.float32]:
        """The ink's box under bend and turn, clockwise from the top left: `(4, 2)`, or `2 * points_per_side` points."""
        height, width = self.strip.shape
        along = np.linspace(-width / 2, width / 2, points_per_side if self.bend else 2)
        above, below = np.full_like(along, -height / 2), np.full_like(along, height / 2)
        x, y = np.concatenate([along, along[::-1]]), np.concatenate([above, below])
        if self.bend:
            radius, side = self._arc()
            from_centre = radius - side * y
            x, y = from_centre * np.sin(x / radius), side * (radius - from_centre * np.cos(x / radius))
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return np.stack([x * cos - y * sin, x * sin + y * cos], axis=1).astype(np.float32)

    def paint(self, canvas: NDArray[np.uint8], x: int, y: int, colour: NDArray[np.float32]) -> None:
        """Lays the ink on `canvas` `(H, W, 3)` with its middle at the pixel (x, y); it must lie inside."""
        outline = self.outline(16)
        left, top = np.floor(outline.min(axis=0)).astype(int) - 1
        right, bottom = np.ceil(outline.max(axis=0)).astype(int) + 2
        left, top = max(left, -x), max(top, -y)
        right, bottom = min(right, canvas.shape[1] - x), min(bottom, canvas.shape[0] - y)
        columns, rows = self._strip_coordinates(
            np.arange(left, right, dtype=np.float32)[None, :], np.arange(top, bottom, dtype=np.float32)[:, None]
        )
        coverage = cv2.remap(self.strip, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        patch = canvas[y + top : y + bottom, x + left : x + right]
        share = coverage[..., None].astype(np.float32) / 255
        patch[:] = (patch + (colour - patch) * share + 0.5).astype(np.uint8)

    def _strip_coordinates(
        self, x: NDArray[np.float32], y: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Column and row in `strip` of points in the word's frame: the way back from `outline`."""
        height, width = self.strip.shape
        cos, sin = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        x, y = x * cos + y * sin, y * cos - x * sin
        if self.bend:
            radius, side = self._arc()
            depth = radius - side * y
            x, y = radius * np.arctan2(x, depth), side * (radius - np.hypot(x, depth))
        return (x + (width - 1) / 2).astype(np.float32), (y + (height - 1) / 2).astype(np.float32)

    def _arc(self) -> tuple[float, int]:
        """Radius of the middle line, and 1 where the arc's centre lies below it, -1 where above."""
        return self.strip.shape[1] / abs(self.bend), 1 if self.bend > 0 else -1


def draw_word(rng: np.random.Generator, height: float, angle: float, bend: float) -> Ink:
    """A random word or number in a random face, its ink about `height` pixels high before bend and turn.

    `bend` is reduced where the word is too short for it: the inner edge keeps a radius of the word's height.
    """
    text, face = _word(rng), str(rng.choice(FACES))
    _, top, _, bottom = _font(face, REFERENCE_SIZE).getbbox(text)
    font = _font(face, max(round(REFERENCE_SIZE * height / (bottom - top)), 1))
    left, top, right, bottom = (int(v) for v in font.getbbox(text))
    strip = PillowImage.new("L", (right - left, bottom - top))
    ImageDraw.Draw(strip).text((-left, -top), text, fill=255, font=font)
    trimmed = _trimmed(np.asarray(strip))
    limit = trimmed.shape[1] / (1.5 * trimmed.shape[0])
    return Ink(text, trimmed, float(np.clip(bend, -limit, limit)), angle)


def _word(rng: np.random.Generator) -> str:
    if rng.random() < DIGITS:
        return str(rng.integers(10, 10000))
    word = str(rng.choice(WORDS))
    return (word, word.upper(), word.capitalize())[int(rng.integers(3))]


def _trimmed(strip: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rows, columns = np.flatnonzero((strip > INK).any(axis=1)), np.flatnonzero((strip > INK).any(axis=0))
    return strip[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


@functools.lru_cache(maxsize=512)
def _font(face: str, size: int) -> ImageFont.FreeTypeFont:
    # The basic layout engine: the other one is not in every build of Pillow and sets letters elsewhere.
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf"
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)
