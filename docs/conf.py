"""Settings of the documentation: ``sphinx-build -W docs site``."""

import lossbuf

project = "lossbuf"
author = "the lossbuf authors"
release = version = lossbuf.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["site"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["lossbuf.css"]
html_title = f"lossbuf {release}"
html_show_sourcelink = False

myst_enable_extensions = ["deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Source", "notes_style"), ("Differs from the paper", "notes_style")]


def _skipped(app, what, name, obj, skip, options):
    # Made by scikit-learn, in its own words, with links into its own pages.
    return True if name.startswith("set_") and name.endswith("_request") else None


def setup(app):
    """Called by Sphinx."""
    app.connect("autodoc-skip-member", _skipped)
