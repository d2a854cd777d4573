import numpy as np
import pytest
from scipy import sparse

from cfmvc_scvi.benchmark import (
    CountCoupledNearestShift,
    FoldChangeResampling,
    MeanOfOtherPerturbations,
    MeanShift,
    NearestContextShift,
    NoChange,
    PooledOtherContexts,
    Prediction,
    TrainingCells,
    draw_cells,
)
from cfmvc_scvi.errors import DataError, NotTrainedError, UnknownConditionError
from cfmvc_scvi.metrics import log_normalize

BASELINES = [
    NoChange,
    MeanShift,
    NearestContextShift,
    MeanOfOtherPerturbations,
    PooledOtherContexts,
    FoldChangeResampling,
    CountCoupledNearestShift,
]


@pytest.fixture
def train(tiny_adata):
    """All cells but those with B in the context T."""
    labels = tiny_adata.obs[["perturbation", "cell_type"]].astype(str)
    keep = ~((labels.perturbation == "B") & (labels.cell_type == "T")).to_numpy()
    condition, context = (labels[key].to_numpy().astype(str)[keep] for key in labels)
    return TrainingCells(sparse.csr_matrix(tiny_adata.X)[keep], condition, context)


@pytest.fixture
def control(train):
    return train.group("control", "T")


@pytest.mark.parametrize("baseline", BASELINES)
def test_predictions_are_whole_counts_or_log_values_that_repeat_with_the_seed(baseline, train, control):
    model = baseline().fit(train)
    first, again, other = (model.predict(control, "B", "T", 30, np.random.default_rng(s)) for s in (0, 0, 1))
    values = first.log_values()
    assert values.shape == (30, 60)
    assert np.isfinite(values).all() and (values >= 0).all()
    np.testing.assert_array_equal(values, again.log_values())
    assert (values != other.log_values()).any()


@pytest.mark.parametrize("baseline", BASELINES)
def test_baselines_must_be_fitted(baseline, control, rng):
    if baseline is NoChange:
        assert NoChange().predict(control, "B", "T", 5, rng).log_values().shape == (5, 60)
        return
    with pytest.raises(NotTrainedError, match=f"{baseline.__name__} has no training cells"):
        baseline().predict(control, "B", "T", 5, rng)


@pytest.mark.parametrize("baseline", [MeanShift, NearestContextShift, PooledOtherContexts, FoldChangeResampling])
def test_what_nobody_has_seen_is_refused(baseline, train, control, rng):
    with pytest.raises(UnknownConditionError, match="No context other than 'T' has cells of 'C'"):
        baseline().fit(train).predict(control, "C", "T", 5, rng)


def test_no_change_returns_distinct_control_cells(train, control, rng):
    values = NoChange().fit(train).predict(control, "B", "T", 100, rng).log_values()
    own = log_normalize(control)
    np.testing.assert_allclose(np.sort(values.sum(1)), np.sort(own.sum(1)))


def test_shifts_move_the_mean_by_the_shift_but_for_clipping(train, control, rng):
    own = log_normalize(control).mean(axis=0)
    shifts = {c: train.profile("B", c) - train.profile("control", c) for c in ("B", "mono")}
    mean = MeanShift().fit(train).predict(control, "B", "T", 40, rng).log_values().mean(axis=0)
    expected = own + (shifts["B"] + shifts["mono"]) / 2
    up = shifts["B"] + shifts["mono"] > 0
    np.testing.assert_allclose(mean[up], expected[up], atol=1e-9)
    assert (mean[~up] >= expected[~up] - 1e-9).all()


def test_nearest_context_is_the_one_of_nearest_control_profile(train):
    model = NearestContextShift().fit(train)
    for context in ("B", "mono"):
        nearly = train.group("control", context)[:20]
        assert model.nearest_context(nearly, "B", "T") == context
        prediction = model.predict(nearly, "B", "T", 20, np.random.default_rng(0)).log_values()
        shift = train.profile("B", context) - train.profile("control", context)
        up = shift > 0
        np.testing.assert_allclose(prediction.mean(0)[up], (log_normalize(nearly).mean(0) + shift)[up], atol=1e-9)


def test_mean_of_other_perturbations_stays_in_the_context(train, control, rng):
    mean = MeanOfOtherPerturbations().fit(train).predict(control, "B", "T", 40, rng).log_values().mean(axis=0)
    up = train.profile("A", "T") > train.profile("control", "T")
    np.testing.assert_allclose(mean[up], train.profile("A", "T")[up], atol=1e-9)
    with pytest.raises(UnknownConditionError, match="'T' has no perturbation other than 'A'"):
        MeanOfOtherPerturbations().fit(train).predict(control, "A", "T", 5, rng)


def test_pooled_cells_are_real_cells_of_other_contexts(train, control, rng):
    drawn = PooledOtherContexts().fit(train).predict(control, "B", "T", 50, rng).values.toarray()
    real = np.vstack([train.group("B", context).toarray() for context in ("B", "mono")])
    assert {tuple(cell) for cell in drawn} <= {tuple(cell) for cell in real}
    assert len({tuple(cell) for cell in drawn}) == 50


def test_resampling_follows_the_fold_change_of_the_others(train, control):
    """B doubles genes 10 to 19 in both other contexts."""
    model = FoldChangeResampling().fit(train)
    total = [model.predict(control, "B", "T", 40, np.random.default_rng(s)).values.sum(axis=0) for s in range(20)]
    ratio = np.asarray(np.mean(total, axis=0)).ravel()[10:20].sum() / control[:, 10:20].sum()
    assert ratio == pytest.approx(2.0, rel=0.2)


def test_coupled_counts_have_the_mean_of_the_nearest_shift(train, control, rng):
    model = CountCoupledNearestShift(dispersion=5.0).fit(train)
    nearest = model.nearest_context(control, "B", "T")
    goal = np.maximum(log_normalize(control).mean(axis=0) + model.shift("B", nearest), 0)
    mean = model.predict(control, "B", "T", 40, rng).log_values().mean(axis=0)
    assert np.corrcoef(mean, goal)[0, 1] > 0.99
    assert np.abs(mean - goal).mean() < 0.3 * np.abs(log_normalize(control).mean(axis=0) - goal).mean()


def test_parameters_must_be_positive():
    with pytest.raises(DataError, match="dispersion is 0"):
        CountCoupledNearestShift(dispersion=0)
    with pytest.raises(DataError, match="pseudocount is -1"):
        FoldChangeResampling(pseudocount=-1)


def test_prediction_checks_its_scale():
    values = np.array([[0.0, 1.5], [2.0, 0.3]])
    np.testing.assert_array_equal(Prediction(values, "log1p_cp10k").log_values(), values)
    np.testing.assert_array_equal(
        Prediction(sparse.csr_matrix(values), "log1p_cp10k").log_values(), Prediction(values, "log1p_cp10k").values
    )
    with pytest.raises(DataError, match="2 predicted counts are not whole numbers"):
        Prediction(sparse.csr_matrix(values))
    with pytest.raises(DataError, match="scale is 'rate'"):
        Prediction(values, "rate")


def test_labels_must_fit_the_counts(train):
    with pytest.raises(DataError, match="320 cells, 319 conditions and 320 contexts"):
        TrainingCells(train.counts, train.condition[:-1], train.context)


def test_draw_never_repeats_a_cell(rng):
    counts = sparse.csr_matrix(np.arange(1.0, 6.0)[:, None])
    assert sorted(draw_cells(counts, 9, rng).toarray().ravel()) == [1, 2, 3, 4, 5]
    assert len(np.unique(draw_cells(counts, 3, rng).toarray())) == 3
    with pytest.raises(DataError, match="no cells to draw"):
        draw_cells(counts[:0], 3, rng)
