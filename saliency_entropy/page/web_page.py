"""A self-contained page: a filled template with its style, its script, and a policy that allows no others."""

import base64
import hashlib
import io
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image


def render(
    package: str,
    name: str,
    filters: Mapping[str, Callable[..., object]],
    content: Mapping[str, Any],
    further_policy: str = "",
) -> str:
    """The page ``name`` of a package that holds ``name.html.j2``, ``name.css`` and, if the page has one, ``name.js``.

    Every string of ``content`` is escaped by the template engine; none is marked safe. The page's policy allows the
    package's own style and script, by their hashes, and pictures that the page holds.

    Args:
        package: holds the files.
        name: of the page.
        filters: of the template, by name.
        content: what the template calls by name, besides ``style``, ``script`` and ``policy``.
        further_policy: what else the page may do, as a directive of its policy.
    """
    environment = Environment(
        loader=PackageLoader(package, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    own = files(package)
    style = files(__package__).joinpath("page.css").read_text() + own.joinpath(f"{name}.css").read_text()
    policy = f"default-src 'none'; img-src data:; style-src {_source(style)}"
    script = ""
    if own.joinpath(f"{name}.js").is_file():
        script = own.joinpath(f"{name}.js").read_text()
        policy += f"; script-src {_source(script)}"
    if further_policy:
        policy += f"; {further_policy}"
    return environment.get_template(f"{name}.html.j2").render(
        content,
        style=Markup(style),
        script=Markup(script),
        policy=f"{policy}; base-uri 'none'; form-action 'none'",
    )


def data_uri(image: Image.Image, kind: str, **options: int) -> str:
    """A picture that a page holds in itself, in the format ``kind`` of Pillow, with that format's options."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _source(text: str) -> str:
    """How a Content-Security-Policy names an element of exactly this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
