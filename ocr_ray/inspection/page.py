"""The page about one file of weights on one label file: what goes wrong, where, and what other settings give.

Like a sweep's page it needs nothing beside it and asks no network for anything.
"""

import shlex
from pathlib import Path

import plotly.graph_objects as go

from ocr_ray.files import write_text
from ocr_ray.inspection.drawn import LEGEND, drawn
from ocr_ray.inspection.errors import KINDS, MEANING, Fate
from ocr_ray.inspection.look import WORST, Inspection, inspect, named, settings_sentence, typed
from ocr_ray.inspection.search import KEYS, Found, Key
from ocr_ray.inspection.traits import TRAITS, Trait, by_bin
from ocr_ray.report.blocks import Block, Cell, Chart, Charts, Code, Headline, Page, Prose, Row, Section, Table, Tile
from ocr_ray.report.figures import BLUE, GOLD, GREY, ORANGE, PURPLE, chart, figure, hover, lines
from ocr_ray.report.html import rendered
from ocr_ray.report.page import written

PAGE_FILE = "inspect.html"
OF_REGIONS: tuple[Fate, ...] = ("matched", "missed", "split", "merged", "loose")
COLOURS: dict[Fate, str] = {"matched": BLUE, "missed": ORANGE, "split": PURPLE, "merged": GOLD, "loose": GREY}


def write_inspection(
    weights: Path,
    labels: Path,
    out: Path,
    root: Path | None = None,
    model: str | None = None,
    worst: int = WORST,
) -> tuple[Path, Inspection]:
    """Looks at the weights and writes `out/inspect.html`.

    Raises: DataError, WeightsError as `inspect`; UserError when the file cannot be written.
    """
    seen = inspect(weights, labels, root, model, worst)
    page = out / PAGE_FILE
    write_text(page, rendered(page_of(seen)))
    return page, seen


def page_of(seen: Inspection) -> Page:
    """The page; a part is there when what it shows is."""
    sections = (_kinds(seen), _worst(seen), _where(seen), _settings(seen), _again(seen))
    return Page(
        title=seen.weights.name,
        kind="inspection",
        about=" · ".join([f"on {'/'.join(seen.labels.parts[-2:])}", _settings_of(seen), written()]),
        headline=_headline(seen),
        tiles=_tiles(seen),
        sections=tuple(section for section in sections if section is not None),
    )


def _settings_of(seen: Inspection) -> str:
    own = ", ".join(f"{key} {typed(getattr(seen.card.postprocess, key))}" for key in KEYS)
    return f"{seen.card.resize}, {own}"


def _headline(seen: Inspection) -> Headline:
    score, images = seen.evaluation.score, seen.evaluation.images
    text = f"Hmean {score.hmean:.4f} on {images} picture{'s' if images != 1 else ''}"
    common, count = max(((kind, _count(seen, kind)) for kind in KINDS), key=lambda pair: pair[1])
    text += f"; most errors are of the kind {common}: {count} of {_errors(seen)}." if count else ", without an error."
    details = []
    if seen.evaluation.unreadable:
        left_out = seen.evaluation.unreadable
        details.append(f"{len(left_out)} pictures could not be read, the first: {left_out[0]}.")
    said = settings_sentence(seen.found)
    details.append(f"Other settings: {said}")
    is_gain = seen.found is not None and seen.found.is_better and seen.found.gain.is_gain
    return Headline(text, tuple(details), "good" if is_gain else "neutral")


def _count(seen: Inspection, kind: Fate) -> int:
    return seen.fates[kind] + seen.detections[kind]


def _errors(seen: Inspection) -> int:
    return sum(_count(seen, kind) for kind in KINDS)


def _tiles(seen: Inspection) -> tuple[Tile, ...]:
    score = seen.evaluation.score
    return (
        Tile(f"{score.hmean:.4f}", "hmean"),
        Tile(f"{score.precision:.4f}", "precision", f"{score.matched} of {score.detected} detections are right"),
        Tile(f"{score.recall:.4f}", "recall", f"{score.matched} of {score.ground_truth} regions are found"),
        Tile(f"{_errors(seen)}", "errors", f"on {seen.faulty} of {seen.evaluation.images} pictures"),
    )


def _kinds(seen: Inspection) -> Section:
    rows = [Row((_text("matched"), _number(seen.fates["matched"]), _number(seen.detections["matched"]), _text("")))] + [
        Row((_text(kind), _regions(seen, kind), _detections(seen, kind), _text(MEANING[kind]))) for kind in KINDS
    ]
    score = seen.evaluation.score
    rows.append(Row((_text("all"), _number(score.ground_truth), _number(score.detected), _text(""))))
    lead = (
        "Each region that was not found, and each detection that is wrong, has one kind; with what matched they add up "
        "to what hmean is made of."
    )
    table = Table("kinds-table", ("kind", "regions", "detections", "what it means"), tuple(rows), sortable=False)
    return Section("kinds", "Errors by kind", lead, (table,))


def _regions(seen: Inspection, kind: Fate) -> Cell:
    return Cell("–") if kind == "false" else _number(seen.fates[kind])


def _detections(seen: Inspection, kind: Fate) -> Cell:
    return Cell("–") if kind == "missed" else _number(seen.detections[kind])


def _worst(seen: Inspection) -> Section | None:
    if not seen.worst:
        return None
    all_of_them = len(seen.worst) == seen.faulty
    lead = (
        f"{'All' if all_of_them else f'The {len(seen.worst)} worst'} of {seen.faulty} pictures with errors, those with "
        f"most errors first. {LEGEND}"
    )
    return Section("worst", "The worst pictures", lead, tuple(drawn(image) for image in seen.worst))


def _where(seen: Inspection) -> Section | None:
    if not seen.regions:
        return None
    blocks: list[Block] = [Charts(tuple(_shares(trait, seen) for trait in TRAITS))]
    for trait in TRAITS:
        rows = tuple(
            Row(
                (
                    Cell(name, number),
                    _number(sum(count.values())),
                    Cell(f"{(recall := count['matched'] / sum(count.values())):.3f}", recall),
                    *(_number(count[fate]) for fate in OF_REGIONS),
                )
            )
            for number, (name, count) in enumerate(by_bin(trait, seen.regions))
        )
        blocks.append(Table(f"{_name(trait)}-table", (trait.name, "regions", "recall", *OF_REGIONS), rows))
    lead = (
        "What became of the labelled regions: by their shorter side in pixels of the picture on disk, by their angle "
        "to the horizontal, by the contrast inside them (grey levels between the darkest and the brightest twentieth), "
        "and by how many there are in the picture."
    )
    return Section("where", "Which regions are lost", lead, tuple(blocks))


def _shares(trait: Trait, seen: Inspection) -> Chart:
    bins = by_bin(trait, seen.regions)
    traces = []
    for fate in OF_REGIONS:
        shares = [count[fate] / sum(count.values()) for _, count in bins]
        said = [
            lines(f"{trait.name}: {name}", f"{count[fate]} of {sum(count.values())} regions {fate} ({share:.0%})")
            for (name, count), share in zip(bins, shares, strict=True)
        ]
        bar = go.Bar(x=[name for name, _ in bins], y=shares, name=fate, marker={"color": COLOURS[fate]}, **hover(said))
        traces.append(bar.update(textposition="none"))
    drawn_chart = figure(traces, trait.name, "share of regions")
    drawn_chart.update_layout(barmode="stack", bargap=0.3)
    drawn_chart.update_xaxes(type="category")
    drawn_chart.update_yaxes(range=[0, 1], tickformat=".0%")
    return chart(_name(trait), f"What became of regions by {trait.name}.", drawn_chart, 320)


def _name(trait: Trait) -> str:
    return trait.name.split(",")[0].replace(" ", "-")


def _settings(seen: Inspection) -> Section | None:
    found = seen.found
    if found is None:
        return None
    said = settings_sentence(found)
    lead = (
        f"Each picture's probability map was computed once, and {found.tried:,} settings were tried on it, in "
        f"{found.seconds:.0f} s for all pictures. One half of them ({found.searched.pictures}) was searched; the best "
        f"is reported on the other ({found.held_back.pictures}), which the search did not see. "
        f"{said[0].upper()}{said[1:]}"
    )
    rows = [Row((_text("the weights' own"), *_row(found, found.own, found.searched.own, found.held_back.own)))]
    if found.best != found.own:
        best = _row(found, found.best, found.searched.best, found.held_back.best)
        rows.append(Row((_text("best on the searched half"), *best), "winner" if found.is_better else ""))
    columns = ("settings", *KEYS, "hmean, searched half", "hmean, other half")
    blocks: list[Block] = [
        Table("settings-table", columns, tuple(rows), sortable=False),
        Charts(tuple(_profile(found, key) for key in KEYS if key != "use_dilation")),
    ]
    ends = found.at_an_end()
    if ends:
        blocks.append(Prose(f"At an end of what was tried, beyond which a better value may lie: {', '.join(ends)}."))
    blocks.append(
        Prose(
            "Along each line the other settings are the best ones. ★: the best, ◆: the weights' own. The gain on the "
            "searched half holds luck, since the settings were picked there; the other half's interval is a paired "
            "bootstrap over its pictures."
        )
    )
    return Section("settings", "Settings after training", lead, tuple(blocks))


def _row(found: Found, cfg: object, searched: float, held_back: float) -> list[Cell]:
    values = [Cell(typed(getattr(cfg, key)), float(getattr(cfg, key))) for key in KEYS]
    return [*values, Cell(f"{searched:.4f}", searched), Cell(f"{held_back:.4f}", held_back)]


def _profile(found: Found, key: Key) -> Chart:
    points = found.profiles[key]
    own, best = getattr(found.own, key), getattr(found.best, key)
    symbols = ["star" if value == best else "diamond" if value == own else "circle" for value, *_ in points]
    traces = [
        go.Scatter(
            x=[point[0] for point in points],
            y=[point[place] for point in points],
            mode="lines+markers",
            name=name,
            line={"color": colour, "dash": dash},
            marker={
                "symbol": symbols,
                "size": [5 if s == "circle" else 12 for s in symbols],
                "opacity": 1,
                "line": {"width": 0},
            },
            **hover([lines(f"{key}={point[0]:g}", f"{name}: {point[place]:.4f}") for point in points]),
        )
        for place, name, colour, dash in ((1, "searched half", BLUE, "solid"), (2, "other half", ORANGE, "dash"))
    ]
    says = f"Hmean by {key}, on both halves of the pictures."
    return chart(f"settings-{key}", says, figure(traces, key, "hmean"), 300)


def _again(seen: Inspection) -> Section:
    options = [*(["--root", str(seen.root)] if seen.root else []), *(["--model", seen.model] if seen.model else [])]
    files = [str(seen.weights), str(seen.labels)]
    blocks: list[Block] = [Code("Evaluate", shlex.join(["ocr-ray", "eval", *files, *options]))]
    found = seen.found
    if found is not None and found.is_better:
        better = f"{seen.weights.stem}-set.safetensors"
        again = ["ocr-ray", "inspect", *files, *options, "--out", "inspection", "--write", better]
        blocks.append(Code(f"Write a copy that is used with {named(found)} from then on", shlex.join(again)))
        keys = " ".join(f"eval.postprocess.{key}={typed(value)}" for key, value in found.changed().items())
        blocks.append(Code("Evaluate with them while training", keys))
    return Section("again", "How to go on", "", tuple(blocks))


def _text(text: str) -> Cell:
    return Cell(text)


def _number(number: int) -> Cell:
    return Cell(f"{number:,}", number)
