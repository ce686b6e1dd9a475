"""Render pages from templates: files that need no network and no server."""

import base64
import hashlib
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pipelines.core.errors import count
from pipelines.report.wording import decimal, figure_of, percent, percent_range, points

TEMPLATES = Path(__file__).parent / "templates"


def render_page(context: dict[str, Any], template: str = "index.html.j2", *, folder: Path = TEMPLATES) -> str:
    """Render a template of `folder`. All data is escaped; only our own style, script and SVG are not."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([folder, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": percent, "decimal": decimal, "count": count, "figure": figure_of}
    environment.filters |= {"points": points, "thousands": "{:,}".format}
    environment.globals |= {"percent_range": percent_range}
    script = (TEMPLATES / "script.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return environment.get_template(template).render(
        **context,
        style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
    )
