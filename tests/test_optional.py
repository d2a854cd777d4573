import sys

import pytest

from cfmvc_scvi._optional import require_extra
from cfmvc_scvi.errors import MissingExtraError


def test_returns_the_module():
    assert require_extra("math", extra="all").sqrt(4) == 2


def test_names_the_command_that_installs_it():
    with pytest.raises(MissingExtraError, match=r'pip install "cfmvc-scvi\[datasets\]"') as error:
        require_extra("no_such_module_at_all", extra="datasets")
    assert isinstance(error.value, ImportError)


def test_missing_package_of_a_dotted_module():
    with pytest.raises(MissingExtraError, match="no_such_package.part"):
        require_extra("no_such_package.part", extra="eval")


def test_failure_inside_an_installed_module_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "broken_dependency_for_test.py").write_text("import no_such_module_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError) as error:
        require_extra("broken_dependency_for_test", extra="all")
    assert not isinstance(error.value, MissingExtraError)
    assert "broken_dependency_for_test" not in sys.modules
