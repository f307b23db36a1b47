"""The page of a report: its template, filled; its style and script, which it holds itself."""

import base64
import hashlib
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def render(**content: Any) -> str:
    """The page. Every string of ``content`` is escaped by the template engine; none is marked safe.

    Its policy allows the package's own style and script, by their hashes, and pictures that the page holds.
    """
    environment = Environment(
        loader=PackageLoader("saliency_entropy.study", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = (files("saliency_entropy.study").joinpath(f"report.{kind}").read_text() for kind in ("css", "js"))
    return environment.get_template("report.html.j2").render(
        content,
        style=Markup(style),
        script=Markup(script),
        policy=(
            f"default-src 'none'; img-src data:; style-src {_source(style)}; script-src {_source(script)}; "
            "base-uri 'none'; form-action 'none'"
        ),
    )


def _source(text: str) -> str:
    """An element of exactly this text, as a Content-Security-Policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
