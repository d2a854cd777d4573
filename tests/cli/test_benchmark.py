import anndata as ad
import pandas as pd
import pytest

_QUICK = ("--only", "T", "--seeds", 1, "--epochs-representation", 1, "--epochs-flow", 1)


@pytest.fixture(scope="module")
def one_effect(data, tmp_path_factory):
    """The cells of control and A, in a file."""
    cells = ad.read_h5ad(data)
    path = tmp_path_factory.mktemp("data") / "my cells.h5ad"
    cells[cells.obs["perturbation"] != "B"].copy().write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def reported(run, one_effect, tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "out"
    return out, run("benchmark", one_effect, "--report", out, *_QUICK)


def test_one_line_makes_a_report(reported):
    out, result = reported
    assert result.exit_code == 0, result.output
    shown = " ".join(result.stdout.split())
    assert "the best simple baseline on" in shown and "Pearson Delta" in shown
    assert shown.endswith(f"report: {out / 'index.html'}")
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "the best simple baseline on" in page.split("<h1>")[1].split("</h1>")[0]
    assert "cfmvc-scvi benchmark &#39;my cells.h5ad&#39; --holdout cell_type --report out --only T --seeds 1" in page
    assert str(out.parent) not in page
    scores = pd.read_csv(out / "run" / "scores.csv")
    assert {"CFMVC", "CFMVC, no flow", "no change", "ceiling"} <= set(scores["method"])


def test_a_run_is_gone_on_with_or_started_anew(run, one_effect, reported):
    out, first = reported
    assert first.exit_code == 0, first.output
    file = next((out / "run" / "predictions" / "CFMVC").glob("*.h5ad"))
    made = file.stat().st_mtime_ns
    again = run("benchmark", one_effect, "--report", out, *_QUICK)
    assert again.exit_code == 0, again.output
    assert file.stat().st_mtime_ns == made
    assert again.stdout == first.stdout
    (out / "notes.txt").write_text("mine")
    anew = run("benchmark", one_effect, "--report", out, *_QUICK, "--overwrite")
    assert anew.exit_code == 0, anew.output
    assert file.stat().st_mtime_ns > made
    assert (out / "notes.txt").exists()


def test_predictions_of_another_model_join(run, one_effect, reported, tmp_path):
    out, first = reported
    assert first.exit_code == 0, first.output
    theirs = out / "run" / "predictions" / "CFMVC"
    words = ("--report", tmp_path / "out", "--predictions", f"theirs={theirs}")
    result = run("benchmark", one_effect, *words, *_QUICK)
    assert result.exit_code == 0, result.output
    scores = pd.read_csv(tmp_path / "out" / "run" / "scores.csv").set_index("method")
    values = scores.loc[["theirs"]].query("metric == 'pearson_delta'")["value"].tolist()
    assert values == scores.loc[["CFMVC"]].query("metric == 'pearson_delta'")["value"].tolist()
    assert "theirs" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("words", ["theirs", "=.", "theirs=", "theirs=nowhere"])
def test_predictions_that_are_not_there(run, one_effect, tmp_path, words):
    result = run("benchmark", one_effect, "--report", tmp_path / "out", "--predictions", words)
    assert result.exit_code == 2
    assert "NAME=DIR" in result.output
    assert not (tmp_path / "out").exists()


def test_a_group_that_cannot_be_held_out(run, one_effect, tmp_path):
    result = run("benchmark", one_effect, "--report", tmp_path / "out", "--only", "mars")
    assert result.exit_code == 1
    assert "'mars' cannot be held out" in " ".join(result.output.split())
