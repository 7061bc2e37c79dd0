"""Configuration of Sphinx: `bash tools/docs.sh` builds the site."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]

project = "asrprune"
author = "the asrprune developers"
copyright = author
init = (ROOT / "asrprune" / "__init__.py").read_text("utf-8")
version = re.search(r'__version__ = "([^"]+)"', init)[1]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "asrprune"
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
default_role = "code"  # `name` in docstrings, without a link
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
nitpicky = False
