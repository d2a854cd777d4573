"""Run other packages' models, each in an environment of its own, on the folds of a data set.

python benchmarks/peers/run.py --environments ENVS --setup
python benchmarks/peers/run.py --environments ENVS --data kang_small.h5ad --holdout cell_type --store OUT

Predictions that are there are not made again, nor are failures tried again without --retry.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import anndata as ad

from cfmvc_scvi import benchmark as bm

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Peer:
    """A package to run.

    Parameters
    ----------
    method
        Its name in tables; also the directory of its predictions.
    adapter
        Script that trains and predicts, beside this file.
    environment
        Name of its virtual environment and of the requirements beside this file; None: this Python's.
    """

    method: str
    adapter: str
    environment: str | None


PEERS = {  # from the cheapest to the dearest
    "scgen": Peer("scGen", "run_scgen.py", "cpa"),
    "cellflow": Peer("CellFlow", "run_cellflow.py", "cellflow"),
    "sccausalvi": Peer("scCausalVI", "run_sccausalvi.py", "sccausalvi"),
    "cpa": Peer("CPA", "run_cpa.py", "cpa"),
    "biolord": Peer("biolord", "run_biolord.py", "biolord"),
    "celldisect": Peer("CellDISECT", "run_celldisect.py", "cpa"),
}
OURS = Peer("CFMVC", "run_cfmvc.py", None)  # as a process that is timed like the others


class Ledger:
    """What was run on which data, with the reason of each failure: ``peers.json`` in the store."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        self._path = path
        self.entries: dict[str, dict[str, object]] = {}
        if path.exists():
            before = json.loads(path.read_text())
            if before["data"] != fingerprint:
                raise SystemExit(f"{path.parent} has predictions of other data; choose another directory.")
            self.entries = before["runs"]
        self._fingerprint = fingerprint

    def failed(self, name: str) -> bool:
        """Whether the last try of a run failed."""
        return bool(self.entries.get(name, {}).get("reason"))

    def record(self, name: str, seconds: float, cpu_seconds: float, reason: str | None) -> None:
        """Keep what a run took, and why it failed if it did."""
        self.entries[name] = {"seconds": round(seconds, 1), "cpu_seconds": round(cpu_seconds, 1), "reason": reason}
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps({"data": self._fingerprint, "runs": self.entries}, indent=1) + "\n")
        part.replace(self._path)


def set_up(name: str, environments: Path) -> None:
    """Make an environment of this Python, with the pinned packages beside this file."""
    place = environments / name
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    pip = [place / "bin" / "python", "-m", "pip", "install"]
    subprocess.run([*pip, "-r", HERE / f"requirements-{name}.txt"], check=True)
    bare = HERE / f"requirements-{name}-bare.txt"  # packages whose declared dependencies exclude each other
    if bare.exists():
        subprocess.run([*pip, "--no-deps", "--ignore-requires-python", "-r", bare], check=True)


def run_adapter(command: list[str | Path], log: Path, timeout: float) -> str | None:
    """Run an adapter, its output in a file; return why it failed, or None."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"PYTHONNOUSERSITE": "1", "MPLBACKEND": "agg"}
    environment.setdefault("OMP_NUM_THREADS", "1")
    with log.open("w") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            return f"took longer than {timeout:.0f} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if code == 0:
        return None
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else f"ended with code {code} and said nothing"


def child_cpu_seconds() -> float:
    """CPU time of all processes that have been waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def predict(args: argparse.Namespace, adata: ad.AnnData, folds: list[bm.Fold]) -> None:
    """Run all peers on all folds and seeds, one after the other."""
    store = bm.PredictionStore(args.store)
    ledger = Ledger(args.store / "peers.json", bm.data_fingerprint(adata, ["perturbation", args.holdout]))
    places = bm.export_folds(adata, folds, args.store)
    for peer in (PEERS[key] for key in args.peers):
        for seed in args.seeds:
            for fold, place in zip(folds, places, strict=True):
                out = store.path(peer.method, fold, seed)
                name = f"{peer.method}/{out.stem}"
                if out.exists() or (ledger.failed(name) and not args.retry):
                    continue
                start, cpu = time.monotonic(), child_cpu_seconds()
                reason = predict_fold(args, peer, place, out, seed)
                ledger.record(name, time.monotonic() - start, child_cpu_seconds() - cpu, reason)
                took = f"{name}: {ledger.entries[name]['cpu_seconds']} CPU s"
                print(took + (f", failed: {reason}" if reason else ""), flush=True)


def predict_fold(
    args: argparse.Namespace, peer: Peer, place: Path, out: Path, seed: int, budget: int | None = None
) -> str | None:
    """Run a peer on one fold; return why it failed, or None."""
    python = Path(sys.executable)
    if peer.environment is not None:
        python = args.environments / peer.environment / "bin" / "python"
    if not python.exists():
        return f"no environment '{peer.environment}' in the directory of --environments; make it with --setup"
    out.parent.mkdir(parents=True, exist_ok=True)
    options = ["--seed", str(seed), "--context", args.holdout]
    if budget is not None:
        options += ["--budget", str(budget)]
    command = [python, HERE / peer.adapter, place / "train.h5ad", place / "query.h5ad", out, *options]
    log = args.store / "logs" / out.parent.name / f"{out.stem}.log"
    return run_adapter(command, log, args.timeout) or (None if out.exists() else "wrote no prediction")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environments", type=Path, required=True, help="directory of the virtual environments")
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--setup", action="store_true", help="make the environments of the peers, and stop")
    parser.add_argument("--data", type=Path, help="h5ad, counts in X; obs: perturbation, cell_type, batch")
    parser.add_argument("--holdout", default="cell_type", help="column of obs whose groups are left out")
    parser.add_argument("--store", type=Path, help="directory of the run")
    parser.add_argument("--contexts", nargs="+", help="only these held-out groups")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--timeout", type=float, default=3600, help="seconds that one run may take")
    parser.add_argument("--retry", action="store_true", help="try again what failed")
    args = parser.parse_args(arguments)
    if not args.setup and (args.data is None or args.store is None):
        parser.error("--data and --store are needed, unless --setup is given")
    return args


def main(arguments: list[str] | None = None) -> None:
    """Set up, or run."""
    args = parse(arguments)
    if args.setup:
        for name in sorted({PEERS[key].environment for key in args.peers}):
            set_up(name, args.environments.absolute())
        return
    args.store, args.environments = args.store.absolute(), args.environments.absolute()
    adata = ad.read_h5ad(args.data)
    folds = bm.make_folds(adata, args.holdout)
    if args.contexts:
        folds = [fold for fold in folds if fold.context in args.contexts]
    args.store.mkdir(parents=True, exist_ok=True)
    predict(args, adata, folds)


if __name__ == "__main__":
    main()
