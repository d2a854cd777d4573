"""Configuration of Sphinx; `sphinx-build -W -n docs docs/_build` builds the site and follows every local link in it."""

import os
import sys
from importlib.metadata import version as installed
from pathlib import Path

from numpy.typing import ArrayLike
from sphinx.util.typing import stringify_annotation

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "cfmvc-scvi"
author = "cfmvc-scvi developers"
copyright = f"2026, {author}"
version = release = installed("cfmvc-scvi")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.bibtex",
    "local_links",
]
exclude_patterns = ["_build", "_templates", "jupyter_execute", "llms.txt", "tables"]
templates_path = ["_templates"]
default_role = "literal"

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["cfmvc.css"]
html_extra_path = ["llms.txt"]
html_show_sourcelink = False
html_theme_options = {"show_toc_level": 2, "home_page_in_toc": True}

autosummary_generate = True
autosummary_imported_members = True
autosummary_ignore_module_all = False
autodoc_member_order = "bysource"
autodoc_class_signature = "separated"
autodoc_typehints_format = "short"
napoleon_google_docstring = False
napoleon_include_init_with_doc = False
napoleon_custom_sections = ["Returns", "Yields"]  # what is returned is told in prose; its type stands in the signature

myst_enable_extensions = ["amsmath", "attrs_block", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the outputs of tutorials are committed
bibtex_bibfiles = ["references.bib"]
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# Types of other packages. At Read the Docs, where there is a network, they become links; elsewhere they stay text.
_PRIVATE = {
    "anndata._core.anndata.AnnData": "anndata.AnnData",
    "matplotlib.axes._axes.Axes": "matplotlib.axes.Axes",
    "numpy.random._generator.Generator": "numpy.random.Generator",
    "pandas.core.frame.DataFrame": "pandas.DataFrame",
    "pandas.core.series.Series": "pandas.Series",
    "scipy.sparse._csr.csr_matrix": "scipy.sparse.csr_matrix",
}
_OTHERS = (
    "anndata collections datetime huggingface_hub lightning matplotlib mudata np numpy optuna os pandas pathlib pd "
    "rich scipy scvi sklearn torch types typing"
)
nitpick_ignore_regex = [
    ("py:.*", rf"({'|'.join(_OTHERS.split())})\..*"),
    ("py:class", r"AnnData|Array|HubModel|MuData|NDArray|PCA|Path|Tensor|dict\[str|sp\.csr_matrix"),  # left as texts
    ("py:class", r"cfmvc_scvi\.(model\.(networks\.Networks|reference\.Reference)|runtime\.asked\.Asked)"),  # private
]
if os.environ.get("READTHEDOCS") == "True":
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
        "matplotlib": ("https://matplotlib.org/stable/", None),
        "mudata": ("https://mudata.readthedocs.io/stable/", None),
        "numpy": ("https://numpy.org/doc/stable/", None),
        "pandas": ("https://pandas.pydata.org/docs/", None),
        "python": ("https://docs.python.org/3/", None),
        "scipy": ("https://docs.scipy.org/doc/scipy/", None),
        "scvi": ("https://docs.scvi-tools.org/en/stable/", None),
        "torch": ("https://docs.pytorch.org/docs/stable/", None),
    }

_ARRAY_LIKE = stringify_annotation(ArrayLike, "smart")


def escape_bars(app, what, name, obj, options, lines):
    """Write the bars of a norm, |x|, as themselves: reStructuredText takes them for a substitution."""
    lines[:] = [line.replace("|", r"\|") for line in lines]


def shorten_array_like(app, what, name, obj, options, signature, returns):
    """Write ArrayLike by its name instead of the union of types that it stands for."""
    parts = (part and part.replace(_ARRAY_LIKE, "~numpy.typing.ArrayLike") for part in (signature, returns))
    return tuple(parts)


def name_publicly(app, env, node, contnode):
    """Look a class of another package up where its users import it from."""
    node["reftarget"] = _PRIVATE.get(node.get("reftarget"), node.get("reftarget"))


def setup(app):
    app.connect("autodoc-process-docstring", escape_bars)
    app.connect("autodoc-process-signature", shorten_array_like)
    app.connect("missing-reference", name_publicly, priority=100)
