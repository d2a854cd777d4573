import json

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

EPOCHS = {"epochs-representation": 1, "epochs-flow": 1}


def _file(path, **options):
    path.write_text(yaml.safe_dump(options))
    return path


@pytest.fixture
def asked(data, tmp_path):
    options = {"data": str(data), "out": str(tmp_path / "model"), "labels_key": "cell_type", "batch-key": "batch"}
    return _file(tmp_path / "run.yaml", **options, **EPOCHS)


def test_a_run_is_repeated_from_what_stands_beside_its_model(run, asked, tmp_path):
    first = run("train", "--config", asked)
    assert first.exit_code == 0, first.output
    record = tmp_path / "model.yaml"
    written = yaml.safe_load(record.read_text())
    assert written["labels_key"] == "cell_type" and written["seed"] == 0 and written["control"] == "control"
    assert set(written["versions"]) >= {"cfmvc-scvi", "torch", "scvi-tools"}
    again = run("train", "--config", record, "--out", tmp_path / "again")
    assert again.exit_code == 0, again.output
    one, two = (load_file(tmp_path / name / "weights.safetensors") for name in ("model", "again"))
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_the_command_line_overrides_the_file(run, asked, tmp_path):
    result = run("train", "--config", asked, "--labels-key", "no_such_column")
    assert result.exit_code == 1
    assert "no_such_column" in result.output
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("labels_keys: x", "labels_keys"),
        ("- a\n- b", "option: value"),
        ("a: [", "is not YAML"),
        ("seed: many", "--seed"),
    ],
)
def test_a_file_that_cannot_be_meant(run, data, tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    result = run("train", data, "--out", tmp_path / "model", "--config", path)
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())


def test_info_as_json(run, model):
    result = run("info", model, "--json")
    told = json.loads(result.stdout)
    assert told["perturbations"] == ["A", "B"]
    assert len(told["genes"]) == 60
    assert told["columns"]["labels"] == "obs['cell_type']"


def test_scores_as_json(run, model, data, tmp_path):
    predicted = tmp_path / "predicted.h5ad"
    assert run("predict", model, data, "--perturbation", "A", "--out", predicted).exit_code == 0
    result = run("evaluate", predicted, data, "--context-key", "cell_type", "--json")
    rows = {row["metric"]: row for row in json.loads(result.stdout)}
    assert 0 < rows["pearson_delta"]["model"] <= 1
    assert "Pearson Delta" in result.stderr
