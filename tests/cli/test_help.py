import subprocess
import sys

import pytest

from cfmvc_scvi import __version__
from cfmvc_scvi.cli import app

COMMANDS = ("demo", "train", "predict", "evaluate", "benchmark", "report", "info", "app")


def test_commands_are_listed(run):
    result = run("--help")
    assert result.exit_code == 0
    assert all(f" {name} " in result.output for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained(run, command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Usage: " in result.output
    assert "--help" in result.output


def test_version(run):
    assert run("--version").output.strip() == __version__


def test_it_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "cfmvc_scvi", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == __version__


def test_help_loads_neither_torch_nor_scvi():
    code = (
        "import sys; from cfmvc_scvi.cli import main; sys.argv = ['cfmvc-scvi', 'train', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "sys.exit(', '.join({'torch', 'scvi', 'scanpy', 'matplotlib', 'pandas'} & set(sys.modules)) or None)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"loaded: {result.stderr}"


def test_the_shell_can_complete(monkeypatch, run, capsys):
    assert "--install-completion" in run("--help").output
    monkeypatch.setenv("_CFMVC_SCVI_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "cfmvc-scvi tr")
    monkeypatch.setenv("COMP_CWORD", "1")
    with pytest.raises(SystemExit):
        app(prog_name="cfmvc-scvi")
    assert capsys.readouterr().out.split() == ["train"]
