"""What may be wrong with data or a trained model, most alarming first, and what to do about it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from mudata import MuData

from cfmvc_scvi.data import check_control, check_counts, check_key, check_labels
from cfmvc_scvi.errors import CFMVCWarning, DataError, UnknownConditionError, UnsupportedError
from cfmvc_scvi.model import CFMVC

__all__ = ["diagnose"]

_RANKS = ("high", "medium", "low")
_FEW_CELLS = 20  # perturbed cells in a context
_SHALLOW = 50.0  # counts of a typical cell
_RISE = 0.3  # share of what the loss had fallen by
_STILL_FALLING = 0.5  # speed at which the loss falls in the last quarter of the epochs, relative to the average
_ACTIVE = 0.01  # variance of posterior means of a dimension in use; Burda et al. 2016
_DEAD = 1e-3  # size of the effect's weights relative to those of the base
_LARGE_STEP = 0.015  # size of an update relative to the weights; healthy models of real data have 0.001 to 0.006
_SHARES = {"dead_units": 0.5, "saturated": 0.1}
_LOSSES = {"representation": "reconstruction_loss", "flow": "flow_loss"}
_PLANS = {"representation": "plan_kwargs", "flow": "flow_plan_kwargs", "joint": "joint_plan_kwargs"}
_PREFIXES = {"representation": "", "flow": "flow_", "joint": "joint_"}  # of the metrics of a monitor


@dataclass(frozen=True)
class _Finding:
    severity: Literal["high", "medium", "low"]
    finding: str
    what: str
    remedy: str


def diagnose(
    data: CFMVC | AnnData | MuData,
    *,
    perturbation_key: str | None = None,
    control_category: str = "control",
    labels_key: str | None = None,
    sample_key: str | None = None,
    batch_key: str | None = None,
    layer: str | None = None,
    modalities: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """List what may be wrong, ranked, with remedies; nothing is changed, and nothing is found in what is healthy.

    Of data: ``bad_counts``, ``shallow``, ``bad_labels``, ``no_control``, ``unmatched_contexts``, ``unmatched_batches``,
    ``too_few_cells``. Of a model, besides those of its data: ``not_trained``, ``not_finite``, ``learning_rate``,
    ``not_converged``, ``overfitting``, ``posterior_collapse``, ``dead_effect``, and, where a
    `callbacks.GradientMonitor` watched, ``dead_units`` and ``saturated``.

    Parameters
    ----------
    data
        A model, or data before they are set up.
    perturbation_key, control_category, labels_key, sample_key, batch_key, layer
        As in `CFMVC.setup_anndata`, for data; those of a model are known.
    modalities
        As in `CFMVC.setup_mudata`, for a MuData, of whose modality ``rna_layer`` the `layer` then is.

    Returns
    -------
    Frame with one row per finding: ``severity`` (``"high"``: results cannot be trusted; ``"medium"``: they may be worse
    than they could be; ``"low"``: good to know), ``finding``, ``what`` and ``remedy``.

    Raises
    ------
    UnknownConditionError
        If there is no modality of a name.
    UnsupportedError
        If the data are neither a model nor an AnnData or MuData.
    DataError
        If the data are a MuData and `modalities` does not say which of them has the counts.
    """
    if isinstance(data, CFMVC):
        keys = dict(data.registry["setup_args"])
        keys["layer"], modalities = data._layer, keys.get("modalities")
        cells, trained = data.adata, list(_of_model(data))
    else:
        keys = {"perturbation_key": perturbation_key, "control_category": control_category, "labels_key": labels_key}
        keys |= {"sample_key": sample_key, "batch_key": batch_key, "layer": layer}
        cells, trained = data, []
    if isinstance(cells, MuData):
        cells, keys = _as_adata(cells, keys, {name: each for name, each in (modalities or {}).items() if each})
    if cells is not None and not isinstance(cells, AnnData):
        raise UnsupportedError(f"A {type(cells).__name__} cannot be diagnosed; pass a model, an AnnData or a MuData.")
    found = [*([] if cells is None else _of_data(cells, keys)), *trained]
    ranked = sorted(found, key=lambda finding: _RANKS.index(finding.severity))
    return pd.DataFrame([asdict(finding) for finding in ranked], columns=["severity", "finding", "what", "remedy"])


def _as_adata(mdata: MuData, keys: Mapping[str, Any], modalities: Mapping[str, str]) -> tuple[AnnData, dict[str, Any]]:
    """Return the counts of the RNA modality with the columns named, wherever these are, and the keys for that."""
    if "rna_layer" not in modalities:
        raise DataError(
            f"Name the modality with the counts: modalities={{'rna_layer': {next(iter(mdata.mod), 'rna')!r}}}."
        )
    for name in modalities.values():
        check_key(name, mdata.mod.keys(), "mdata.mod")
    rna, columns = mdata.mod[modalities["rna_layer"]], {}
    for argument in ("perturbation_key", "labels_key", "sample_key", "batch_key"):
        holder = mdata.mod[modalities[argument]] if argument in modalities else mdata
        key = keys.get(argument)
        if key is not None and key in holder.obs:
            columns[argument] = holder.obs[key].reindex(rna.obs_names)
    layer = keys.get("layer")
    if layer is not None:
        check_key(layer, rna.layers.keys(), f"mdata.mod[{modalities['rna_layer']!r}].layers")
    counts = rna.X if layer is None else rna.layers[layer]
    cells = AnnData(counts, obs=pd.DataFrame(columns, index=rna.obs_names), var=rna.var[[]])
    return cells, {**keys, **{argument: argument for argument in columns}, "layer": None}


def _of_data(adata: AnnData, keys: Mapping[str, Any]) -> Iterator[_Finding]:
    yield from _of_counts(adata, keys)
    try:
        columns = {
            name: check_labels(adata.obs, keys[f"{name}_key"], name).astype(str).to_numpy()
            for name in ("perturbation", "labels", "sample", "batch")
            if keys.get(f"{name}_key") is not None
        }
    except (DataError, UnknownConditionError) as error:
        yield _Finding(
            "high", "bad_labels", str(error), "Fill in or correct this column of obs, or leave the cells out."
        )
        return
    if "perturbation" in columns:
        yield from _of_design(columns, keys["control_category"])


def _of_counts(adata: AnnData, keys: Mapping[str, Any]) -> Iterator[_Finding]:
    layer = keys.get("layer")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CFMVCWarning)
        try:
            check_counts(adata, layer, allow_non_integer=bool(keys.get("allow_non_integer")))
        except (DataError, UnknownConditionError) as error:
            yield _Finding("high", "bad_counts", str(error), "Pass the layer with the raw counts, or repair the file.")
            return
    for warning in caught:
        yield _Finding("low", "bad_counts", str(warning.message), "Leave out such cells (scanpy.pp.filter_cells).")
    depth = float(np.median(np.asarray((adata.X if layer is None else adata.layers[layer]).sum(axis=1))))
    if depth < _SHALLOW:
        what = f"Half of the cells have fewer than {depth:.0f} counts."
        yield _Finding("medium", "shallow", what, "Keep more genes, or filter cells by depth; expect wide intervals.")


def _of_design(columns: Mapping[str, np.ndarray], control: str) -> Iterator[_Finding]:
    label = columns["perturbation"]
    try:
        check_control(label, control)
    except DataError as error:
        yield _Finding("high", "no_control", str(error), "Pass the label of unperturbed cells as control_category.")
        return
    parts = [columns[name] for name in ("labels", "sample") if name in columns]
    context = (
        np.array([", ".join(names) for names in zip(*parts, strict=True)]) if parts else np.full(len(label), "all")
    )
    perturbed = label != control
    matched = np.isin(context, context[~perturbed])
    names = sorted(set(label[perturbed]))
    lost = [name for name in names if not matched[label == name].any()]
    outside = sorted(set(context[perturbed & ~matched]))
    remedy = "Add control cells of these contexts, or use coarser labels (labels_key, sample_key)."
    if lost:
        what = f"{_listed(lost)}: no context has both their cells and control cells, so nothing is learnt of them."
        yield _Finding("high", "unmatched_contexts", what, remedy)
    elif outside:
        n = int((perturbed & ~matched).sum())
        what = f"{n} perturbed cells are in contexts without control cells: {_listed(outside)}."
        yield _Finding("medium", "unmatched_contexts", what, remedy)
    if "batch" in columns:
        place = np.char.add(np.char.add(context.astype(str), "\0"), columns["batch"].astype(str))
        n = int((perturbed & matched & ~np.isin(place, place[~perturbed])).sum())
        if n:
            what = f"{n} perturbed cells are in batches without control cells of their context."
            remedy = "Their effect includes the batch; if batches and perturbations coincide, it cannot be told apart."
            yield _Finding("medium" if n > perturbed.sum() / 2 else "low", "unmatched_batches", what, remedy)
    sizes = pd.Series(label).groupby([label, context]).size()
    few = [name for name in names if sizes[name].max() < _FEW_CELLS]
    if few:
        what = f"{_listed(few)}: fewer than {_FEW_CELLS} cells in every context."
        remedy = "Add cells, pool contexts or leave these perturbations out; their effects are mostly noise."
        yield _Finding("high" if len(few) == len(names) else "medium", "too_few_cells", what, remedy)


def _of_model(model: CFMVC) -> Iterator[_Finding]:
    wanted = ["representation", *(["flow"] if model.module.flow is not None else [])]
    missing = [stage for stage in wanted if stage not in model.trained_stages_]
    if missing:
        yield _Finding("high", "not_trained", f"Not trained: {', '.join(missing)}.", "Call model.train().")
    bad = [name for name, value in model.module.state_dict().items() if not torch.isfinite(value).all()]
    if bad:
        remedy = "Train again with a lower learning rate or gradient_clip_val=1.0; the weights cannot be used."
        yield _Finding("high", "not_finite", f"{len(bad)} weights are NaN or infinite: {_listed(bad)}.", remedy)
        return
    history = model.history or {}
    for stage in set(wanted) - set(missing):
        yield from _of_losses(history, stage)
    yield from _of_gradients(history)
    if "representation" not in missing and model.adata is not None:
        yield from _of_latent(model)
    if not missing and model.module.flow is not None:
        yield from _of_effect(model)


def _of_losses(history: Mapping[str, pd.DataFrame], stage: str) -> Iterator[_Finding]:
    plan, name = _PLANS[stage], _LOSSES[stage]
    train, validation = (_curve(history, f"{name}_{part}") for part in ("train", "validation"))
    if len(train) >= 4:
        quarter = max(len(train) // 4, 1)
        first, last, before = train[0], np.median(train[-quarter:]), np.median(train[-2 * quarter : -quarter])
        fall, rise = first - train.min(), last - train.min()
        noise = np.median(np.abs(np.diff(train[-len(train) // 2 :])))
        if rise > max(_RISE * fall, 3 * noise):
            what = f"The loss of stage '{stage}' ends at {last:.4g}, after it had been at {train.min():.4g}."
            remedy = f"Lower the learning rate ({plan}={{'lr': ...}}) or pass gradient_clip_val=1.0."
            yield _Finding("high", "learning_rate", what, remedy)
        elif before - last > _STILL_FALLING * fall * quarter / (len(train) - 1) and fall > 0.01 * abs(last):
            what = f"The loss of stage '{stage}' was still falling at the end: {before:.4g}, then {last:.4g}."
            yield _Finding("medium", "not_converged", what, f"Train longer (max_epochs={{'{stage}': ...}}).")
    if len(validation) >= 4:
        quarter = max(len(validation) // 4, 1)
        last, best = np.median(validation[-quarter:]), validation.min()
        if last - best > _RISE * (validation[0] - best):
            what = f"The validation loss of stage '{stage}' rose from {best:.4g} to {last:.4g}."
            yield _Finding("medium", "overfitting", what, "Pass early_stopping=True, or train for fewer epochs.")


def _of_gradients(history: Mapping[str, pd.DataFrame]) -> Iterator[_Finding]:
    """Read what a gradient monitor recorded."""
    for stage, prefix in _PREFIXES.items():
        for metric, limit in _SHARES.items():
            last = {name: values[-1] for name, values in _matching(history, f"{prefix}{metric}/")}
            worst = [f"{name} ({value:.0%})" for name, value in last.items() if value > limit]
            if worst:
                what = f"Units or values without a gradient in stage '{stage}': {_listed(worst)}."
                remedy = f"Lower the learning rate ({_PLANS[stage]}={{'lr': ...}}), or leave out genes without counts."
                yield _Finding("medium", metric, what, remedy)
        ratios = [values for _, values in _matching(history, f"{prefix}update_ratio/")]
        typical = np.nanmedian(np.concatenate(ratios)) if ratios else 0.0
        if typical > _LARGE_STEP:
            what = f"A step of stage '{stage}' changes a typical layer by {typical:.0%}."
            yield _Finding("medium", "learning_rate", what, f"Lower the learning rate ({_PLANS[stage]}={{'lr': ...}}).")


def _of_latent(model: CFMVC) -> Iterator[_Finding]:
    cells = np.random.default_rng(0).permutation(model.adata.n_obs)[:5000]
    mean = np.asarray(model.get_latent_representation(indices=np.sort(cells).tolist()))
    n_active = int((mean.var(axis=0) > _ACTIVE).sum())
    if n_active < 2:
        what = f"{n_active} of {mean.shape[1]} dimensions of the latent differ between cells."
        remedy = "Lower plan_kwargs={'max_kl_weight': ...}, train longer, and check that the counts are not shuffled."
        yield _Finding("high", "posterior_collapse", what, remedy)


@torch.no_grad()
def _of_effect(model: CFMVC) -> Iterator[_Finding]:
    field = model.module.velocity
    n = field.perturbation_encoder.n_perturbations
    design = torch.eye(n, device=model.module.device)
    context = torch.zeros(n, field.context_encoder.n_context_features, device=model.module.device)
    modulation = field.basis_in(field.perturbation_encoder(design, field.context_encoder(context)))
    size = torch.linalg.matrix_norm(field.basis_out.weight[None] * modulation[:, None, :])
    relative = (size / torch.linalg.matrix_norm(field.base_out.weight)).cpu().numpy()
    names = model.vocabulary.perturbations if model.vocabulary is not None else []
    dead = [name for name, value in zip(names, relative, strict=True) if value < _DEAD]
    if dead:
        what = f"The flow does nothing for {_listed(dead)}: single cells differ in their response by the mean alone."
        remedy = "Train the flow longer or at a higher rate (flow_plan_kwargs={'lr': ...}); see unmatched_contexts."
        yield _Finding("high", "dead_effect", what, remedy)


def _matching(history: Mapping[str, pd.DataFrame], beginning: str) -> Iterator[tuple[str, np.ndarray]]:
    for key in history:
        if key.startswith(beginning):
            yield key.removeprefix(beginning), _curve(history, key)


def _curve(history: Mapping[str, pd.DataFrame], name: str) -> np.ndarray:
    if name not in history:
        return np.empty(0)
    return pd.to_numeric(history[name].iloc[:, 0], errors="coerce").to_numpy(dtype=float)


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
