"""Write self-contained HTML pages: one file that a browser shows without a network."""

import re
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parent / "templates"
MAX_BYTES = 5_000_000  # of a page: it can be sent by mail

_NUMBER = re.compile(r"-?[\d.,]+([ –-][\d.,]+)?( ?%| s| h)?")


def render(template: str, **values: Any) -> str:
    """Return the page of a template.

    All texts are escaped. Values that are markup, such as pictures, must be `markup`.

    Args:
        template: name of a file in ``templates/``, which extends ``base.html``.
        values: what the template shows.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["numeric"] = _is_number
    page = environment.get_template(template).render(**values)
    return page.encode("utf-8", "replace").decode("utf-8")  # without halves of surrogate pairs


def markup(text: str) -> Any:
    """Mark a text as HTML of our own, which is not escaped."""
    from markupsafe import Markup

    return Markup(text)


def _is_number(value: object) -> bool:
    """Return whether a cell of a table holds a number, a range or a share."""
    return isinstance(value, int | float) or bool(_NUMBER.fullmatch(str(value)))
