"""What documentation shows can be run as it stands: examples of docstrings, and Python blocks of how-tos."""

import doctest
import importlib
import io
import pkgutil
import re
from pathlib import Path

import pytest

import cfmvc_scvi

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "howto").glob("*.md"))
_WALK = pkgutil.walk_packages(cfmvc_scvi.__path__, "cfmvc_scvi.")
# modules that import what an extra brings
_OF_EXTRAS = (
    "cfmvc_scvi.app._page",
    "cfmvc_scvi.export._hub",
    "cfmvc_scvi.serve._app",
    "cfmvc_scvi.serve._connection",
)
MODULES = sorted(module.name for module in _WALK if module.name not in _OF_EXTRAS)
_OF_TISSUE = ("dose_response", "tissue", "virtual_tissue")  # whose data have places and doses
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def _examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder()
    found = [test for name in MODULES for test in finder.find(importlib.import_module(name), name)]
    return [test for test in found if test.examples]


pytestmark = [
    pytest.mark.docs,
    pytest.mark.filterwarnings("ignore::cfmvc_scvi.errors.CFMVCWarning"),  # examples are small, and told so
    pytest.mark.filterwarnings("ignore:More than 20 figures have been opened:RuntimeWarning"),
]


@pytest.mark.parametrize("example", _examples(), ids=lambda example: example.name)
def test_example_of_a_docstring(example, namespace, request):
    example.globs.update(namespace)
    if example.name.rpartition(".")[2] in _OF_TISSUE:
        example.globs.update(request.getfixturevalue("tissue"))
    said = io.StringIO()
    doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).run(
        example, out=said.write
    )
    assert not said.getvalue(), said.getvalue()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_of_a_page_run_one_after_the_other(page, namespace):
    blocks = _BLOCK.findall(page.read_text(encoding="utf-8"))
    assert blocks or page.stem == "index"
    for block in blocks:
        exec(compile(block, page.name, "exec"), namespace)
