"""Until the referee's compare and verdict are there."""

import numpy as np
import pandas as pd

from cfmvc_scvi.benchmark.summary import paired_differences, summarise
from cfmvc_scvi.pl import METRICS

SIMPLE = [
    "no change",
    "mean shift",
    "nearest shift",
    "fold-change resampling",
    "pooled others",
    "count-coupled nearest",
]


def badness(name, v):
    return {"high": -v, "low": v, "zero": abs(v)}[METRICS[name].best]


def compare(scores, model, baselines=None, floor="no change", ceiling="ceiling"):
    scores = scores.dropna(subset=["value"])
    s = summarise(scores)
    rows = {}
    simple = [b for b in (baselines or SIMPLE) if b in s.index]
    for name in METRICS:
        if name not in s:
            continue
        by = badness(name, s.loc[simple, name]).idxmin()
        d = paired_differences(scores, model, by, np.random.default_rng(0)).loc[name]
        m, b, f, c = (s.loc[k, name] for k in (model, by, floor, ceiling))
        bm_, bb, bf, bc = (badness(name, v) for v in (m, b, f, c))
        gain = bb - bm_
        out = "tie" if d.low <= 0 <= d.high else ("win" if gain > 0 else "lose")
        rows[name] = dict(
            model=m,
            best=b,
            by=by,
            floor=f,
            ceiling=c,
            skill=(bf - bm_) / (bf - bc),
            difference=d.difference,
            low=d.low,
            high=d.high,
            outcome=out,
        )
    return pd.DataFrame.from_dict(rows, orient="index")


def skills(s, floor="no change", ceiling="ceiling"):
    out = {}
    for name in METRICS:
        if name in s:
            b = badness(name, s[name])
            out[name] = (b[floor] - b) / (b[floor] - b[ceiling])
    return pd.DataFrame(out).drop(index=[floor, ceiling])


def verdict(compared, model):
    lost = [METRICS[n].label for n in compared.index if compared.loc[n, "outcome"] != "win"]
    n = len(compared)
    if not lost:
        return f"{model} beats the best simple baseline on all {n} metrics."
    return f"{model} beats the best simple baseline on {n - len(lost)} of {n} metrics; not on: {', '.join(lost)}."
