"""How Sphinx builds these pages: `make docs`. Nothing is fetched, and a built page loads nothing from another host."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

from hoarfrost import __version__

project = "hoarfrost"
author = "the hoarfrost developers"
copyright = "the hoarfrost developers"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "command_pages",
    "offline",
    "source_links",
]
exclude_patterns = ["_build", "extensions", "pictures"]

# Pages are Markdown that a git host shows as well, so none of MyST's further syntax is switched on.
myst_enable_extensions: list[str] = []
myst_heading_anchors = 3

# Commands and equations in pages have no language; guessing one colours them at random.
highlight_language = "none"

# Nothing has to be loaded to know what a name of another library is: those are left as they are written.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!hoarfrost).*")]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_use_type_comments = False
maximum_signature_line_length = 80
add_module_names = False
python_display_short_literal_types = True
default_role = "code"  # of docstrings: `name`
napoleon_google_docstring = False

html_theme = "furo"
html_title = f"hoarfrost {__version__}"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1f5f8b", "color-brand-content": "#1f5f8b"},
    "dark_css_variables": {"color-brand-primary": "#8fc3e6", "color-brand-content": "#8fc3e6"},
}
