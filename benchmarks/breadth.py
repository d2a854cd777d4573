"""Questions beyond one perturbation of one cell type, on real data.

python benchmarks/breadth.py DATA [--questions rank niche ...] [--seeds 3] [--out DIR] [--tables DIR]

DATA is a directory with papalexi.h5ad, spatial_merfish.h5ad, spatial_osmfish.h5ad, gasperini_small.h5ad,
kang_small.h5ad and kang.h5ad; a question whose file is missing is left out, which is said. Where real data with the
wanted truth were not at hand it is planted into real cells (`dose`, `tissue`), or simulated cells stand beside the real
ones (`unseen`, `matching`, `invariance`).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

from accuracy import markdown
from breadth_common import Table
from breadth_conditions import combinations, dose, rank, strength, trajectory
from breadth_tissue import niche, tissue
from breadth_training import donors, invariance, matching
from breadth_unseen import unseen

QUESTIONS: dict[str, tuple[Callable[[Path, int], Table], tuple[str, ...]]] = {
    "rank": (rank, ("papalexi",)),
    "combinations": (combinations, ("gasperini_small",)),
    "dose": (dose, ("kang_small",)),
    "unseen": (unseen, ("papalexi",)),
    "donors": (donors, ("kang",)),
    "strength": (strength, ("kang_small",)),
    "trajectory": (trajectory, ("kang_small",)),
    "matching": (matching, ("kang_small",)),
    "invariance": (invariance, ("kang",)),
    "niche": (niche, ("spatial_merfish", "spatial_osmfish")),
    "tissue": (tissue, ("spatial_merfish",)),
}


def main() -> None:
    """Ask, print and if asked for write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--questions", nargs="+", choices=QUESTIONS, default=list(QUESTIONS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="directory for breadth_<question>.json")
    parser.add_argument("--tables", type=Path, help="directory for breadth_<question>.md")
    args = parser.parse_args()
    for name in args.questions:
        ask, files = QUESTIONS[name]
        missing = [file for file in files if not (args.data / f"{file}.h5ad").is_file()]
        if missing:
            print(f"{name}: left out, there is no {', '.join(missing)}")
            continue
        start = time.process_time()
        said, table, found = ask(args.data, args.seeds)
        text = f"{said} Seeds: {args.seeds}.\n\n{markdown(table)}\n"
        print(f"## {name} ({time.process_time() - start:.0f} CPU s)\n\n{text}")
        if args.out is not None:
            args.out.mkdir(parents=True, exist_ok=True)
            told = {"question": name, "seeds": args.seeds, "table": table.reset_index().to_dict("records"), **found}
            (args.out / f"breadth_{name}.json").write_text(json.dumps(told, indent=1, default=float) + "\n")
        if args.tables is not None:
            (args.tables / f"breadth_{name}.md").write_text(text)


if __name__ == "__main__":
    main()
