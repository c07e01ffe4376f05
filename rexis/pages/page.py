"""A page out of a template, with the common style sheet, plots, and the data that it shows as JSON inside."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from rexis.pages.charts import STYLE


def render(template: Path, document: Mapping[str, Any], *, charts: Mapping[str, str], **values: Any) -> str:
    """The page; every text of `document` and `values` is escaped.

    Args:
        template: a Jinja template; it gets the members of `document`, `values`, `charts`, `style` and `data`.
        document: the JSON value that the page shows, which it also holds as `data`.
        charts: SVG by name, from `rexis.pages.charts`, which escapes the names that it shows.
    """
    # In a script element nothing but the end tag is special; \u003c keeps any text from forming it.
    data = Markup(json.dumps(document, ensure_ascii=False).replace("<", "\\u003c"))
    drawn = {name: Markup(chart) for name, chart in charts.items()}
    style = Markup(STYLE.read_text(encoding="utf-8"))
    environment = Environment(loader=FileSystemLoader(template.parent), autoescape=True, undefined=StrictUndefined)
    return environment.get_template(template.name).render(**document, **values, charts=drawn, data=data, style=style)
