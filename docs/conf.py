"""Configuration of Sphinx, for `sphinx-build -W docs docs/_build`."""

from importlib.metadata import version as installed

project = "cfmvc-scvi"
author = "cfmvc-scvi developers"
copyright = f"2026, {author}"
version = release = installed("cfmvc-scvi")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinxcontrib.bibtex",
]
exclude_patterns = ["_build", "tables"]
default_role = "literal"
html_theme = "sphinx_book_theme"
html_title = project

autodoc_member_order = "bysource"
autodoc_class_signature = "separated"
bibtex_bibfiles = ["references.bib"]
napoleon_google_docstring = False
napoleon_include_init_with_doc = False
myst_enable_extensions = ["amsmath", "dollarmath", "colon_fence"]
myst_heading_anchors = 3


def escape_bars(app, what, name, obj, options, lines):
    """Write the bars of a norm, |x|, as themselves: reStructuredText takes them for a substitution."""
    lines[:] = [line.replace("|", r"\|") for line in lines]


def setup(app):
    app.connect("autodoc-process-docstring", escape_bars)
