import anndata as ad
import numpy as np
import pytest

from cfmvc_scvi import benchmark as bm

SETUP = {"perturbation_key": "perturbation", "labels_key": "cell_type", "batch_key": "batch"}


@pytest.mark.filterwarnings("ignore::UserWarning")  # of lightning, about loaders and modules
def test_trains_on_the_fold_and_predicts_as_many_cells_as_were_held_out(tiny_adata: ad.AnnData):
    fold = next(iter(bm.leave_one_context_out(tiny_adata)))
    train = tiny_adata[fold.train].copy()
    query = tiny_adata[np.flatnonzero(fold.query)[:15]].copy()
    run = {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False}
    predictor = bm.cfmvc_predictor(SETUP, model_kwargs={"n_intrinsic": 4}, train_kwargs=run)
    first, other, again = (predictor(train, query, fold, seed).values.toarray() for seed in (1, 2, 1))
    assert first.shape == (int(fold.truth.sum()), tiny_adata.n_vars)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
