"""A page as HTML: the template, with the charts' script and data inlined once."""

import json
from importlib.resources import files

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from ocr_ray.report.blocks import Block, Chart, Charts, Code, Page, Pictures, Prose, Section, Table

TEMPLATE = "page.html.jinja"


def rendered(page: Page) -> str:
    """The whole file. Every text in it is escaped, for names of sweeps and reasons of failures are not ours."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["kind"] = _kind
    environment.filters["script_json"] = _script_json
    drawn = any(_has_chart(block) for section in page.sections for block in section.blocks)
    script = Markup(get_plotlyjs().replace("</script", "<\\/script")) if drawn else ""
    return environment.get_template(TEMPLATE).render(page=page, plotly=script)


def charts_in(section: Section) -> list[Chart]:
    """All charts of a section."""
    found: list[Chart] = []
    for block in section.blocks:
        found += [block] if isinstance(block, Chart) else block.charts if isinstance(block, Charts) else []
    return found


def _source(name: str) -> str:
    return (files("ocr_ray.report") / "templates" / name).read_text(encoding="utf-8")


def _has_chart(block: Block) -> bool:
    return isinstance(block, Chart | Charts)


def _kind(block: Block) -> str:
    match block:
        case Chart():
            return "chart"
        case Charts():
            return "charts"
        case Table():
            return "table"
        case Code():
            return "code"
        case Prose():
            return "prose"
        case Pictures():
            return "pictures"


def _script_json(text: str) -> Markup:
    """JSON that no text in it can end the script element of."""
    json.loads(text)
    safe = text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return Markup(safe.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))
