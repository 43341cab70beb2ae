"""A file of weights looked at on labelled pictures: each error by its kind, the worst pictures, better settings."""

import dataclasses
import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ocr_ray.data.images import read_image
from ocr_ray.data.labels import read_labels
from ocr_ray.engine.evaluate import Evaluation, ImageResult
from ocr_ray.errors import WeightsError
from ocr_ray.inspection.errors import Errors, Fate, find_errors
from ocr_ray.inspection.search import Found, SettingsSearch
from ocr_ray.inspection.traits import RegionTraits, traits_of
from ocr_ray.model_card import ModelCard, check_keeps_card, copy_with_card
from ocr_ray.predict import examine
from ocr_ray.weights.load import read_weights

WORST = 12


@dataclass(frozen=True)
class SeenImage:
    """One picture with its result and its errors."""

    result: ImageResult
    errors: Errors


@dataclass(frozen=True)
class Inspection:
    """What was seen on a label file, under the settings that travel with the weights."""

    weights: Path
    labels: Path
    root: Path | None
    model: str | None
    card: ModelCard
    evaluation: Evaluation
    regions: tuple[RegionTraits, ...]
    """All that count, over all pictures."""
    detections: Counter[Fate]
    worst: tuple[SeenImage, ...]
    """Those with most errors, the worst first; pictures without an error are not among them."""
    faulty: int
    """Pictures with an error."""
    found: Found | None
    """What other settings give; None where the pictures tell nothing."""

    @property
    def fates(self) -> Counter[Fate]:
        """Of the regions."""
        return Counter(region.fate for region in self.regions)


def inspect(
    weights: Path, labels: Path, root: Path | None = None, model: str | None = None, worst: int = WORST
) -> Inspection:
    """Evaluates the weights once and keeps what there is to see. At most `worst` probability maps are in memory.

    Raises: DataError for labels or pictures that cannot be read, WeightsError for the weights.
    """
    samples = read_labels(labels, root)
    regions: list[RegionTraits] = []
    detections: Counter[Fate] = Counter()
    heap: list[tuple[int, int, SeenImage]] = []
    searches: list[SettingsSearch] = []
    counts = Counter[str]()

    def watch(card: ModelCard) -> Callable[[ImageResult], None]:
        search = SettingsSearch(samples, card.postprocess)
        searches.append(search)

        def see(result: ImageResult) -> None:
            sample = result.sample
            errors = find_errors(sample.polygons, sample.ignore, [d.polygon for d in result.detections])
            detections.update(fate for fate in errors.detections if fate is not None)
            if any(fate is not None for fate in errors.regions):
                regions.extend(traits_of(read_image(sample.image), sample.polygons, errors))
            search.see(result)
            counts["seen"] += 1
            if errors.count:
                counts["faulty"] += 1
                heapq.heappush(heap, (errors.count, -counts["seen"], SeenImage(result, errors)))
                if len(heap) > worst:
                    heapq.heappop(heap)

        return see

    card, evaluation = examine(weights, samples, model, watch)
    kept = tuple(seen for *_, seen in sorted(heap, key=lambda entry: entry[:2], reverse=True))
    return Inspection(
        *(weights, labels, root, model, card, evaluation),
        *(tuple(regions), detections, kept, counts["faulty"], searches[0].found()),
    )


def check_copy(weights: Path, out: Path) -> None:
    """Whether `write_better` may write `out`, before anything is computed. Raises: WeightsError."""
    check_keeps_card(out)
    if out.exists() and weights.exists() and out.samefile(weights):
        raise WeightsError(f"{out}: is the file that is looked at, expected another one to write")
    if weights.suffix == ".onnx" and weights.exists():
        read_weights(weights)  # an exported file can be looked at, and not written anew


def write_better(seen: Inspection, out: Path) -> str:
    """A copy of the weights with the best settings in its card, where these are better on the half held back.

    Returns: a line that says what was done. Raises: WeightsError, UserError as `copy_with_card`.
    """
    found = seen.found
    if found is None or not found.is_better:
        return f"{out}: not written, {settings_sentence(found)}"
    origin = dataclasses.replace(
        seen.card.origin,
        settings=f"ocr-ray inspect, {found.tried} settings on a half of {seen.labels.name}; on the other half hmean "
        f"{found.held_back.best:.4f} instead of {found.held_back.own:.4f}",
    )
    card = dataclasses.replace(seen.card, postprocess=found.best, origin=origin)
    copy_with_card(seen.weights, card, out, seen.model)
    return f"{out}: written, {settings_sentence(found)}"


def settings_sentence(found: Found | None) -> str:
    """What the search of settings came to, in one sentence."""
    if found is None:
        return "the settings were not searched: one half of the pictures shows no text to find."
    tried = f"{found.tried:,} settings"
    if found.best == found.own:
        return f"none of {tried} does better than the weights' own on the half of the pictures that was searched."
    held = found.held_back
    pictures = f"{held.pictures} picture{'s' if held.pictures != 1 else ''}"
    if not found.is_better:
        return (
            f"the best of {tried} on one half of the pictures, {named(found)}, is no better on the {pictures} of the "
            f"other: hmean {held.best:.4f} instead of {held.own:.4f}. The weights' own settings stand."
        )
    beyond = "beyond the noise of pictures" if found.gain.is_gain else "within the noise of so few pictures"
    return (
        f"the best of {tried} on one half of the pictures, {named(found)}, gives hmean {held.best:.4f} instead of "
        f"{held.own:.4f} on the {pictures} of the other: {found.gain.text()}, {beyond}."
    )


def named(found: Found) -> str:
    """E.g. `thresh=0.2, use_dilation=true`."""
    return ", ".join(f"{key}={typed(value)}" for key, value in found.changed().items())


def typed(value: float | bool) -> str:
    """As a config has it."""
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"
