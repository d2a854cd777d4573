"""Everything that users of scvi-tools expect of a model works for CFMVC."""

from __future__ import annotations

from dataclasses import asdict

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
import torch

from cfmvc_scvi import CFMVC
from cfmvc_scvi.config import FlowConfig
from cfmvc_scvi.errors import CFMVCError, DataError, NotTrainedError, UnknownConditionError, UnsupportedError


def finite(values):
    array = np.asarray(values, dtype=float)
    assert np.isfinite(array).all()
    return array


@pytest.mark.parametrize("part,width", [("intrinsic", 4), ("technical", 2), ("both", 6)])
def test_latents_are_deterministic_and_do_not_depend_on_the_batch_size(trained, part, width):
    first = finite(trained.get_latent_representation(part=part))
    assert first.shape == (360, width)
    np.testing.assert_array_equal(first, trained.get_latent_representation(part=part))
    np.testing.assert_allclose(first, trained.get_latent_representation(part=part, batch_size=7), atol=1e-5)
    subset = trained.get_latent_representation(part=part, indices=[5, 3])
    np.testing.assert_allclose(subset, first[[5, 3]], atol=1e-5)


def test_latents_as_distribution_are_means_and_positive_variances(trained):
    mean, variance = trained.get_latent_representation(part="both", return_dist=True)
    np.testing.assert_allclose(mean[:, :4], trained.get_latent_representation(), atol=1e-6)
    assert (variance > 0).all()
    sample = trained.get_latent_representation(give_mean=False)
    assert np.abs(sample - mean[:, :4]).max() > 1e-3


def test_the_technical_latent_reads_batch_and_depth_only(trained):
    data = trained.adata.copy()
    genes = np.random.default_rng(0).permutation(data.n_vars)
    data.X = data.X[:, genes]
    kept = trained.get_latent_representation(data, part="technical")
    np.testing.assert_allclose(kept, trained.get_latent_representation(part="technical"), atol=1e-5)
    assert np.abs(trained.get_latent_representation(data) - trained.get_latent_representation()).max() > 1e-3


def test_an_unknown_part_is_refused(trained):
    with pytest.raises(ValueError, match="'depth'.*intrinsic, technical, both"):
        trained.get_latent_representation(part="depth")


def test_normalized_expression(trained):
    frame = trained.get_normalized_expression(transform_batch="b1", gene_list=["gene3", "gene1"], n_samples=2)
    assert set(frame.columns) == {"gene3", "gene1"}
    assert list(frame.index) == list(trained.adata.obs_names)
    total = trained.get_normalized_expression(library_size=1e4).sum(axis=1)
    np.testing.assert_allclose(total, 1e4, rtol=1e-4)
    b1, b2 = (trained.get_normalized_expression(transform_batch=name) for name in ("b1", "b2"))
    assert np.abs(b1 - b2).to_numpy().max() > 0
    latent = trained.get_normalized_expression(library_size="latent", return_mean=True)
    np.testing.assert_allclose(latent.sum(axis=1), np.asarray(trained.adata.X.sum(axis=1)).ravel(), rtol=1e-4)


def test_differential_expression(trained):
    table = trained.differential_expression(groupby="perturbation", group1="A", group2="control", silent=True)
    assert set(table.index) == set(trained.adata.var_names)
    finite(table.select_dtypes("number"))
    batch = trained.differential_expression(
        idx1=np.arange(50), idx2=np.arange(50, 90), batch_correction=True, mode="vanilla", silent=True
    )
    assert len(batch) == 60


def test_likelihoods(trained):
    assert finite(trained.get_elbo().item()) < 0
    assert finite(trained.get_reconstruction_error()["reconstruction_loss"].item()) > 0
    torch.manual_seed(0)
    assert finite(trained.get_marginal_ll(n_mc_samples=4)) < 0
    held_out = trained.get_elbo(indices=trained.validation_indices)
    assert np.isfinite(held_out.item())


def test_posterior_predictive_samples_are_counts(trained):
    sample = trained.posterior_predictive_sample(indices=np.arange(20), n_samples=2, gene_list=["gene1", "gene4"])
    assert sample.shape == (20, 2, 2)
    dense = sample.todense()
    assert (dense >= 0).all()
    assert np.array_equal(dense, np.round(dense))


def test_likelihood_parameters_and_correlations(trained):
    parameters = trained.get_likelihood_parameters()
    assert set(parameters) == {"mean", "dispersions"}
    assert (finite(parameters["dispersions"]) > 0).all()
    matrix = trained.get_feature_correlation_matrix(n_samples=2, correlation_type="pearson", transform_batch=["b1"])
    assert matrix.shape == (60, 60)
    np.testing.assert_allclose(np.diag(finite(matrix)), 1.0, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Using 128 after custom Dataloader")  # scvi-tools 1.5, of its own call
def test_differential_abundance_lives_in_the_intrinsic_latent(trained):
    data = trained.adata.copy()
    trained.differential_abundance(data, sample_key="perturbation")
    assert finite(data.obsm["da_log_probs"]).shape == (360, 3)
    assert trained.get_aggregated_posterior().mean.shape == (4,)


@pytest.mark.parametrize("likelihood", ["nb", "zinb", "poisson"])
@pytest.mark.parametrize("dispersion", ["gene", "gene-batch", "gene-label", "gene-cell"])
def test_likelihoods_and_dispersions_train(tiny_adata, make_model, quick, likelihood, dispersion):
    model = make_model(tiny_adata, gene_likelihood=likelihood, dispersion=dispersion)
    model.train(**quick)
    finite(model.get_elbo().item())
    finite(model.get_normalized_expression(n_samples=1))
    predicted = model.predict_counterfactual(indices=[0, 1, 2], perturbation="A", seed=0)
    assert (predicted.X.data > 0).all()


@pytest.mark.parametrize(
    "options",
    [
        {"n_technical": 0},
        {"n_layers": 2, "dropout_rate": 0.0},
        {"use_batch_norm": "none", "use_layer_norm": "both"},
        {"batch_representation": "embedding"},
        {"use_observed_lib_size": False},
        {"log_variational": False},
        {"deeply_inject_covariates": True, "n_layers": 2},
    ],
    ids=str,
)
def test_options_of_the_vae(tiny_adata, make_model, quick, options):
    if options.get("use_observed_lib_size", True) is False:
        depth = np.log(np.asarray(tiny_adata.X.sum(axis=1)))
        options = options | {"library_log_means": np.full((1, 2), depth.mean(), np.float32)}
        options["library_log_vars"] = np.ones((1, 2), np.float32)
    model = make_model(tiny_adata, **options)
    model.train(**quick)
    finite(model.get_latent_representation(part="both"))
    finite(model.predict_counterfactual(indices=[0, 1, 2], perturbation="A", seed=0, output="rate").X)


def test_covariates_cannot_be_encoded(tiny_adata, make_model):
    with pytest.raises(UnsupportedError, match="encode_covariates"):
        make_model(tiny_adata, encode_covariates=True)
    with pytest.raises(ValueError, match="latent_distribution"):
        make_model(tiny_adata, latent_distribution="ln")


def test_a_model_from_a_registry_has_weights_of_the_same_shape(trained):
    twin = CFMVC(
        registry=trained.registry, **trained.init_params_["non_kwargs"] | trained.init_params_["kwargs"]["vae_kwargs"]
    )
    shapes = {name: tensor.shape for name, tensor in trained.module.state_dict().items()}
    assert {name: tensor.shape for name, tensor in twin.module.state_dict().items()} == shapes
    assert twin.adata is None
    with pytest.raises(NotTrainedError, match=r"train\(\)"):
        twin.get_latent_representation(trained.adata)
    with pytest.raises(DataError, match="no data to train on"):
        twin.train()


def test_save_and_load_without_data_then_new_data(trained, tmp_path):
    trained.save(tmp_path / "model")
    back = CFMVC.load(tmp_path / "model", adata=False, accelerator="cpu")
    assert list(back.get_var_names()) == list(trained.adata.var_names)
    new = ad.AnnData(
        trained.adata.X, obs=trained.adata.obs[["cell_type", "batch", "perturbation"]], var=trained.adata.var
    )
    latent = trained.get_latent_representation()
    np.testing.assert_allclose(back.get_latent_representation(new), latent, atol=1e-5)
    expected = trained.predict_counterfactual(perturbation="B", seed=3)
    assert (back.predict_counterfactual(new, perturbation="B", seed=3).X != expected.X).nnz == 0
    full = CFMVC.load(tmp_path / "model", adata=new, accelerator="cpu")
    np.testing.assert_array_equal(full.get_latent_representation(), latent)
    assert full.trained_stages_ == ["representation", "flow"]
    np.testing.assert_array_equal(full.train_indices, trained.train_indices)
    assert {key: len(frame) for key, frame in full.history.items()} == {k: len(f) for k, f in trained.history.items()}


def test_genes_are_matched_by_name_at_inference_and_at_load(trained, tmp_path):
    trained.save(tmp_path / "model")
    shuffled = trained.adata[:, np.random.default_rng(0).permutation(60)].copy()
    latent = trained.get_latent_representation()
    np.testing.assert_allclose(trained.get_latent_representation(shuffled), latent, atol=1e-5)
    loaded = CFMVC.load(tmp_path / "model", adata=shuffled, accelerator="cpu")
    np.testing.assert_allclose(loaded.get_latent_representation(), latent, atol=1e-5)
    with pytest.raises(DataError, match="1 gene of the model not in the data"):
        trained.get_latent_representation(trained.adata[:, 1:].copy())


def test_new_data_with_unknown_categories_are_refused(trained):
    data = trained.adata.copy()
    data.obs["batch"] = "new"
    with pytest.raises(UnknownConditionError, match="new"):
        trained.get_latent_representation(data)


def test_a_backed_file_trains_and_predicts(tiny_adata, make_model, quick, tmp_path):
    tiny_adata.write_h5ad(tmp_path / "data.h5ad")
    backed = ad.read_h5ad(tmp_path / "data.h5ad", backed="r")
    model = make_model(backed)
    model.train(**quick)
    memory = model.get_latent_representation(tiny_adata)
    np.testing.assert_allclose(model.get_latent_representation(), memory, atol=1e-5)
    assert model.predict_counterfactual(indices=[3, 1], perturbation="A", seed=0).shape == (2, 60)


def test_prediction_before_training_names_the_stage(tiny_adata, make_model, quick):
    model = make_model(tiny_adata)
    with pytest.raises(NotTrainedError, match=r"'representation'.*train\(\)"):
        model.predict_counterfactual(perturbation="A")
    model.train(stage="representation", **quick)
    with pytest.raises(NotTrainedError, match=r"'flow'.*train\(\)"):
        model.predict_counterfactual(perturbation="A")


def test_a_minified_model_keeps_what_needs_no_counts(own):
    latent, technical = own.get_latent_representation(), own.get_latent_representation(part="technical")
    own.adata.obsm["X_latent_qzm"], own.adata.obsm["X_latent_qzv"] = own.get_latent_representation(
        part="both", return_dist=True
    )
    own.minify_adata()
    assert own.adata.X.nnz == 0
    np.testing.assert_allclose(own.get_latent_representation(), latent, atol=1e-6)
    np.testing.assert_allclose(own.get_latent_representation(part="technical"), technical, atol=1e-6)
    finite(own.get_normalized_expression())
    with pytest.raises(CFMVCError, match="minified"):
        own.predict_counterfactual(perturbation="A", output="counts")
    with pytest.raises(DataError, match="minified"):
        own.train()


def test_a_minified_model_is_saved_and_loaded(own, tmp_path):
    own.adata.obsm["X_latent_qzm"], own.adata.obsm["X_latent_qzv"] = own.get_latent_representation(
        part="both", return_dist=True
    )
    own.minify_adata()
    own.save(tmp_path / "minified", save_anndata=True)
    back = CFMVC.load(tmp_path / "minified", accelerator="cpu")
    assert back.minified_data_type == "latent_posterior_parameters"
    np.testing.assert_array_equal(back.get_latent_representation(), own.get_latent_representation())


def test_minifying_needs_both_blocks_of_the_latent(own):
    own.adata.obsm["X_latent_qzm"], own.adata.obsm["X_latent_qzv"] = own.get_latent_representation(return_dist=True)
    with pytest.raises(DataError, match="4 columns and the latent 6.*part='both'"):
        own.minify_adata()
    with pytest.raises(UnknownConditionError, match="nothing"):
        own.minify_adata(use_latent_qzm_key="nothing")


@pytest.mark.parametrize("kind", ["csc", "dense", "layer", "float64", "int64"])
def test_matrix_formats_give_the_same_latents(trained, kind):
    csr = trained.adata.X
    data = ad.AnnData(csr, obs=trained.adata.obs[["cell_type", "batch", "perturbation"]], var=trained.adata.var)
    data.X = {"csc": csr.tocsc(), "dense": csr.toarray(), "layer": csr}.get(kind, csr)
    if kind in ("float64", "int64"):
        data.X = csr.astype(kind)
    np.testing.assert_allclose(trained.get_latent_representation(data), trained.get_latent_representation(), atol=1e-5)


@pytest.mark.parametrize("kind", ["csc", "dense", "layer"])
def test_matrix_formats_train(tiny_adata, make_model, quick, kind):
    setup = {}
    if kind == "layer":
        tiny_adata.layers["counts"], tiny_adata.X = tiny_adata.X, sp.csr_matrix(tiny_adata.shape)
        setup = {"layer": "counts"}
    else:
        tiny_adata.X = tiny_adata.X.tocsc() if kind == "csc" else tiny_adata.X.toarray()
    model = make_model(tiny_adata, setup)
    model.train(**quick)
    finite(model.get_latent_representation())
    assert model.predict_counterfactual(indices=[0, 1], perturbation="A", seed=0).X.sum() > 0


def test_no_docstring_has_an_unfilled_placeholder():
    for name in dir(CFMVC):
        ours = str(getattr(getattr(CFMVC, name), "__module__", "")).startswith("cfmvc_scvi")
        doc = getattr(CFMVC, name).__doc__ if ours and not name.startswith("_") else None
        assert doc is None or "%(" not in doc, name


def test_a_saved_model_keeps_its_architecture_when_a_default_changes(own):
    stored = CFMVC(own.adata).init_params_["non_kwargs"]["flow_kwargs"]
    assert stored == asdict(FlowConfig())  # resolved, not None
