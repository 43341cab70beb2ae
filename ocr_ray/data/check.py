"""All that is wrong with label files and their pictures, told before a run wastes a night on it."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image as PillowImage

from ocr_ray.data.check_report import SIDE_BINS_PX, UNREADABLE, CheckReport, Finding, SetCounts, Severity
from ocr_ray.data.images import read_image
from ocr_ray.data.labels import Sample, label_lines, parse_line
from ocr_ray.data.reduced import read_jpeg_header
from ocr_ray.errors import DataError
from ocr_ray.files import file_digest

SMALL_SET = 100
MAX_HEADERS = 2000
"""Pictures whose headers the short check reads; evenly spread over a larger set."""
_RANK: dict[Severity, int] = {"dropped": 0, "warning": 1, "info": 2}


@dataclass(frozen=True, eq=False)
class _Entry:
    where: str
    sample: Sample


def check_labels(
    train: Sequence[Path],
    val: Sequence[Path] = (),
    root: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Reads every label line and decodes every picture, on all cores.

    Args: `root` as in `read_labels`; `on_progress` is told how many pictures of how many were looked at.
    Raises: DataError for a label file that cannot be read or holds no line; all else is in the report.
    """
    findings: list[Finding] = []
    sets: dict[str, list[_Entry]] = {}
    for name, files in (("train", train), ("val", val)):
        if files:
            sets[name] = [entry for file in files for entry in _read(file, root, findings)]
    paths = list(dict.fromkeys(entry.sample.image for entries in sets.values() for entry in entries))
    sizes: dict[Path, tuple[int, int] | str] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, size in zip(paths, pool.map(_decoded_size, paths), strict=True):
            sizes[path] = size
            if on_progress is not None:
                on_progress(len(sizes), len(paths))
        findings += _duplicates(sets, pool, across_only=False)
    return _report(sets, sizes, findings, short=False)


def check_samples(
    train: Sequence[Sample], val: Sequence[Sample] = (), keep: Sequence[Sample] = (), test: Sequence[Sample] = ()
) -> CheckReport:
    """The same checks in short, for the start of a run: no picture is decoded.

    Every file must be there; headers are read of at most MAX_HEADERS pictures a set; of duplicates only those between
    two sets are looked for.
    """
    sets = {
        name: [_Entry(sample.name or str(sample.image), sample) for sample in samples]
        for name, samples in (("train", train), ("val", val), ("keep", keep), ("test", test))
        if samples
    }
    sizes: dict[Path, tuple[int, int] | str] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for entries in sets.values():
            paths = list(dict.fromkeys(entry.sample.image for entry in entries))
            sizes |= {
                p: "is not there" for p, there in zip(paths, pool.map(Path.is_file, paths), strict=True) if not there
            }
            spread = [paths[i] for i in np.linspace(0, len(paths) - 1, min(len(paths), MAX_HEADERS)).astype(int)]
            looked = [path for path in spread if path not in sizes]
            sizes |= {
                p: size for p, size in zip(looked, pool.map(_header_size, looked), strict=True) if size is not None
            }
        findings = _duplicates(sets, pool, across_only=True)
    for name, entries in sets.items():
        if all(entry.sample.ignore.all() for entry in entries):
            findings.append(Finding("warning", "sets without legible text", name, "every box is ignored"))
    return _report(sets, sizes, findings, short=True)


def _read(file: Path, root: Path | None, findings: list[Finding]) -> list[_Entry]:
    lines = label_lines(file)
    if not lines:
        raise DataError(f"{file}: holds no label line")
    entries: list[_Entry] = []
    for number, line in lines:
        where = f"{file}:{number}"
        try:
            entries.append(_Entry(where, parse_line(line, file.parent if root is None else root, where)))
        except DataError as e:
            findings.append(
                Finding("dropped", "label lines that cannot be used", where, str(e).removeprefix(f"{where}: "))
            )
    if entries and all(e.sample.ignore.all() for e in entries):
        findings.append(Finding("warning", "label files without legible text", str(file), "every box is ignored"))
    return entries


def _decoded_size(path: Path) -> tuple[int, int] | str:
    """Width and height of a picture, or why it has none."""
    try:
        image = read_image(path)
    except DataError as e:
        return str(e).removeprefix(f"{path}: ")
    return image.shape[1], image.shape[0]


def _header_size(path: Path) -> tuple[int, int] | None:
    """As a header tells it, or None where Pillow cannot say: OpenCV may still read it."""
    jpeg = read_jpeg_header(path)
    if jpeg is not None:
        return jpeg.width, jpeg.height
    try:
        with PillowImage.open(path) as header:
            return header.size
    except Exception:  # see read_jpeg_header
        return None


def _report(
    sets: dict[str, list[_Entry]], sizes: dict[Path, tuple[int, int] | str], findings: list[Finding], short: bool
) -> CheckReport:
    counts: list[SetCounts] = []
    for name, entries in sets.items():
        findings += _image_findings(entries, sizes)
        findings += _polygon_findings(name, entries, sizes)
        counts.append(_counted(name, entries))
        if name == "train" and 0 < len(entries) < SMALL_SET:
            detail = f"{len(entries)} images; fewer than some hundred are learned by heart soon"
            findings.append(Finding("warning", "small training sets", name, detail))
    return CheckReport(tuple(counts), tuple(sorted(findings, key=lambda f: _RANK[f.severity])), short)


def _counted(name: str, entries: Sequence[_Entry]) -> SetCounts:
    samples = [entry.sample for entry in entries]
    sides = [
        float(np.ptp(polygon, axis=0).min())
        for s in samples
        for polygon, ignored in zip(s.polygons, s.ignore, strict=True)
        if not ignored
    ]
    return SetCounts(
        name=name,
        images=len(samples),
        boxes=sum(len(s.polygons) for s in samples),
        ignored=sum(int(s.ignore.sum()) for s in samples),
        without_text=sum(not s.polygons for s in samples),
        all_ignored=sum(bool(s.polygons and s.ignore.all()) for s in samples),
        sides=tuple(np.histogram(sides, bins=[*SIDE_BINS_PX, np.inf])[0].tolist()),
    )


def _image_findings(entries: Sequence[_Entry], sizes: dict[Path, tuple[int, int] | str]) -> list[Finding]:
    findings: list[Finding] = []
    for entry in entries:
        size = sizes.get(entry.sample.image)
        if isinstance(size, str):
            findings.append(Finding("dropped", UNREADABLE, entry.where, f"{entry.sample.image} {size}"))
        if not entry.sample.polygons:
            findings.append(Finding("info", "images without text, used as negatives", entry.where))
        elif entry.sample.ignore.all():
            findings.append(Finding("info", "images with ignored text only", entry.where))
    return findings


def _polygon_findings(
    set_name: str, entries: Sequence[_Entry], sizes: dict[Path, tuple[int, int] | str]
) -> list[Finding]:
    """What is wrong with single polygons. The metric leaves out a crossed ground truth, training draws it somehow."""
    crossed: Severity = "dropped" if set_name == "val" else "warning"
    polygons = [(entry, i, polygon) for entry in entries for i, polygon in enumerate(entry.sample.polygons, start=1)]
    shapes = _shapes([polygon for _, _, polygon in polygons])
    areas = [abs(a) for a in shapely.area(shapes).tolist()]
    valid = (shapely.is_valid(shapes) & shapely.is_simple(shapes)).tolist()
    findings: list[Finding] = []
    for (entry, i, polygon), area, is_valid in zip(polygons, areas, valid, strict=True):
        detail = f"polygon {i} of {entry.sample.name or entry.sample.image.name}"
        if area < 1:
            findings.append(Finding("dropped", "polygons without area", entry.where, detail))
        elif not is_valid:
            findings.append(Finding(crossed, "polygons that cross or touch themselves", entry.where, detail))
        size = sizes.get(entry.sample.image)
        if not isinstance(size, tuple):
            continue
        low, high = polygon.min(axis=0), polygon.max(axis=0)
        if (high <= 0).any() or (low >= size).any():
            beyond = f"{detail}, picture {size[0]}x{size[1]}"
            findings.append(Finding("dropped", "polygons outside their picture", entry.where, beyond))
        elif (low < -1).any() or (high > np.add(size, 1)).any():
            beyond = f"{detail}, picture {size[0]}x{size[1]}"
            findings.append(Finding("warning", "polygons partly outside their picture", entry.where, beyond))
    return findings


def _shapes(polygons: Sequence[NDArray[np.float32]]) -> NDArray[np.object_]:
    """Shapely polygons, made together for each number of points: ten times as fast as one by one."""
    shapes = np.empty(len(polygons), object)
    by_points: dict[int, list[int]] = defaultdict(list)
    for i, polygon in enumerate(polygons):
        by_points[len(polygon)].append(i)
    for indices in by_points.values():
        shapes[indices] = shapely.polygons(np.stack([polygons[i] for i in indices]).astype(np.float64))
    return shapes


def _duplicates(sets: dict[str, list[_Entry]], pool: ThreadPoolExecutor, across_only: bool) -> list[Finding]:
    """Pictures of the same bytes. Only files of the same length are read for it."""
    first_named: dict[Path, tuple[str, str]] = {}
    findings: list[Finding] = []
    for name, entries in sets.items():
        for entry in entries:
            seen = first_named.setdefault(entry.sample.image, (name, entry.where))
            if seen[1] != entry.where:
                findings += _duplicate(name, entry.where, *seen, across_only)
    paths = list(first_named)
    lengths = dict(zip(paths, pool.map(_length, paths), strict=True))
    alike = Counter(lengths.values())
    if across_only:  # the length must be found in two sets
        in_sets = Counter(length for length, _ in {(length, first_named[p][0]) for p, length in lengths.items()})
        common = {length for length, count in in_sets.items() if count > 1}
        compared = [p for p in paths if lengths[p] in common and lengths[p] > 0]
    else:
        compared = [p for p in paths if alike[lengths[p]] > 1 and lengths[p] > 0]
    first_of: dict[str, tuple[str, str]] = {}
    for path, digest in zip(compared, pool.map(file_digest, compared), strict=True):
        name, where = first_named[path]
        seen = first_of.setdefault(digest, (name, where))
        if seen[1] != where:
            findings += _duplicate(name, where, *seen, across_only)
    return findings


def _duplicate(name: str, where: str, first_name: str, first_where: str, across_only: bool) -> list[Finding]:
    if name != first_name:
        return [Finding("warning", f"pictures both in {first_name} and in {name}", where, f"the same as {first_where}")]
    if across_only:
        return []
    return [Finding("warning", f"pictures twice in {name}", where, f"the same as {first_where}")]


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
