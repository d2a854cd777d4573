import logging
import warnings

import h5py
import pytest

from cfmvc_scvi.errors import ModelFileError


def one_line(result) -> str:
    assert result.exit_code == 1, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--labels-key", "celltype"), "Did you mean 'cell_type'"),
        (("--control", "ctrl"), "ctrl"),
        (("--layer", "raw"), "raw"),
    ],
)
def test_train_names_what_is_wrong(run, data, tmp_path, words, part):
    assert part in one_line(run("train", data, "--out", tmp_path / "model", *words))
    assert not (tmp_path / "model").exists()


def test_unknown_perturbation(run, model, data, tmp_path):
    line = one_line(run("predict", model, data, "--perturbation", "C", "--out", tmp_path / "x.h5ad"))
    assert "'C'" in line


def test_a_column_that_is_not_there_is_not_scored(run, data):
    assert "celltype" in one_line(run("evaluate", data, data, "--context-key", "celltype"))
    assert "'ctrl'" in one_line(run("evaluate", data, data, "--control", "ctrl"))


def test_files_that_are_no_cells(run, tmp_path):
    text, other, linked = (tmp_path / name for name in ("text.h5ad", "other.h5ad", "linked.h5ad"))
    text.write_text("not HDF5")
    with h5py.File(other, "w") as file:
        file["x"] = [1, 2, 3]
    with h5py.File(linked, "w") as file:
        file["X"] = h5py.ExternalLink("secret.h5", "X")
    for path, part in ((text, "HDF5"), (other, "other.h5ad"), (linked, "external link")):
        assert part in one_line(run("train", path, "--out", tmp_path / "model"))


def test_no_model(run, tmp_path):
    assert "no saved model" in one_line(run("info", tmp_path))


def test_debug_shows_the_error_wherever_it_stands(run, tmp_path):
    for words in (("info", tmp_path, "--debug"), ("--debug", "info", tmp_path)):
        assert isinstance(run(*words).exception, ModelFileError)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("train",),
        ("train", "nothing.h5ad", "--out", "model"),
        ("unknown",),
        ("evaluate", "nothing.h5ad", "nothing.h5ad"),
    ],
)
def test_wrong_calls_have_exit_code_2(run, words):
    assert run(*words).exit_code == 2


def test_predicting_no_change_is_a_wrong_call(run, model, data, tmp_path):
    assert run("predict", model, data, "--out", tmp_path / "x.h5ad").exit_code == 2


def test_existing_results_are_kept(run, model, data):
    before = (model / "manifest.json").read_bytes()
    assert run("train", data, "--out", model).exit_code == 2
    assert (model / "manifest.json").read_bytes() == before


def test_logs_and_warnings_are_as_before(run, tmp_path):
    before = logging.root.manager.disable, list(warnings.filters)
    run("info", tmp_path)
    assert (logging.root.manager.disable, list(warnings.filters)) == before
