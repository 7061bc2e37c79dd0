"""Draw figures as SVG to stand inside of an HTML page, in the colours of the page."""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

INK = "#010203"  # stands for the colour of the page's text
COLOURS = [f"#0a0b{number:02x}" for number in range(8)]  # of lines: --line-0 to --line-7 in CSS
STYLES = ("-", "--", ":")  # lines of one colour differ in their style


@contextmanager
def _style() -> Iterator[None]:
    """Use the settings that `inline_svg` needs while the context is open."""
    from cycler import cycler
    from matplotlib import rc_context

    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    settings = {
        **dict.fromkeys(inked, INK),
        "axes.prop_cycle": cycler(linestyle=STYLES) * cycler(color=COLOURS),
        "axes.facecolor": "none",
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "font.family": "sans-serif",
        "font.size": 11,
        "svg.fonttype": "none",
        "svg.hashsalt": "asrprune",
        "text.parse_math": False,  # a dollar sign in a name of the corpus is a dollar sign
    }
    with rc_context(settings):
        yield


def inline_svg(draw: Callable[[Any], None], name: str, size: tuple[float, float] = (6, 4)) -> str:
    """Return a picture as the text of an ``<svg>`` element.

    Equal pictures give equal texts. The element holds no address of the web. Its ids begin with the
    name, so several pictures can stand in one page.

    Args:
        draw: draws on the axes that it is given.
        name: of the picture; it must be unique in the page, and be letters, digits and hyphens.
        size: width and height in inches.
    """
    from matplotlib.figure import Figure

    file = io.StringIO()
    with _style():
        figure = Figure(figsize=size, layout="constrained", facecolor="none")
        draw(figure.subplots())
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)  # it is in the page's CSS
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    text = re.sub(r"font-family: [^;\"]*; ", "", text)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)  # the page decides
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = text.replace("url(#", f"url(#{name}-")
    text = text.replace(INK, "currentColor")
    for number, colour in enumerate(COLOURS):
        text = text.replace(colour, f"var(--line-{number})")
    return text.strip()
