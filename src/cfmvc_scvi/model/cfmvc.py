"""The model that users hold: `CFMVC`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal, Self, TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData
from scvi import REGISTRY_KEYS
from scvi.model.base import ArchesMixin, BaseMinifiedModeModelClass, EmbeddingMixin, RNASeqMixin, VAEMixin

from cfmvc_scvi._keys import CFMVC_REGISTRY_KEYS
from cfmvc_scvi.config import FlowConfig
from cfmvc_scvi.data import Vocabulary, check_key, match_genes, match_modality
from cfmvc_scvi.errors import DataError, NotTrainedError, UnsupportedError
from cfmvc_scvi.model.effects import EffectMixin
from cfmvc_scvi.model.niche import Niche, niche_width
from cfmvc_scvi.model.persistence import SafePersistenceMixin
from cfmvc_scvi.model.question import Known
from cfmvc_scvi.model.reference import Reference
from cfmvc_scvi.model.setup import SetupMixin
from cfmvc_scvi.model.tissue import TissueMixin
from cfmvc_scvi.model.training import StagedTrainingMixin
from cfmvc_scvi.module import CFMVCModule
from cfmvc_scvi.train import Stage

__all__ = ["CFMVC"]

Part: TypeAlias = Literal["intrinsic", "technical", "both"]


class CFMVC(
    SetupMixin,
    SafePersistenceMixin,
    TissueMixin,
    EffectMixin,
    StagedTrainingMixin,
    EmbeddingMixin,
    RNASeqMixin,
    VAEMixin,
    ArchesMixin,
    BaseMinifiedModeModelClass,
):
    r"""Conditional flow matching, virtual cell: what these cells would look like under another condition.

    A variational autoencoder in the manner of scVI :cite:p:`Lopez18` with an intrinsic latent (cell state) and a
    technical latent (batch, depth), and a conditional flow :cite:p:`Lipman23` in the intrinsic one: a base field plus
    an effect of the perturbation that is exactly zero at control. Counterfactual counts are the cell's own counts,
    thinned or added to so that the mean of its context meets the empirical-Bayes estimate, with the flow's differences
    between cells.

    Parameters
    ----------
    adata
        Data registered with `setup_anndata`; None with `registry`.
    registry
        Registry of a saved model or of a collection (see `setup_annbatch`), for a model without data in memory.
    n_intrinsic, n_technical
        Dimensions of the latents.
    n_hidden, n_layers, dropout_rate
        Encoder and decoder of the VAE.
    dispersion, gene_likelihood
        As in :class:`scvi.module.VAE`; ``"nb"``, ``"zinb"`` or ``"poisson"``.
    source
        Where the paths of the flow start: ``"control"`` cells of the same context, best for the individual cell, or
        Gaussian ``"noise"``, which learns the whole distribution.
    niche
        What the flow knows of a cell's place, with `spatial_key`: the mean latent of its 15 nearest ``"neighbours"`` in
        the slice; ``"messages"``, which are passed on over three rounds; or its ``"coordinates"`` alone.
    flow_kwargs
        Options of `config.FlowConfig`: width, depth and rank of the flow.
    **vae_kwargs
        Passed to :class:`scvi.module.VAE`.

    Examples
    --------
    >>> import cfmvc_scvi
    >>> adata = cfmvc_scvi.datasets.simulated_perturbation()
    >>> cfmvc_scvi.CFMVC.setup_anndata(
    ...     adata, batch_key="batch", labels_key="cell_type", perturbation_key="perturbation"
    ... )
    >>> model = cfmvc_scvi.CFMVC(adata)
    >>> model.train()
    >>> adata.obsm["X_cfmvc"] = model.get_latent_representation()
    >>> control = adata[adata.obs["perturbation"] == "control"]
    >>> cells = model.predict_counterfactual(control, perturbation="A")
    """

    _module_cls = CFMVCModule
    _LATENT_QZM_KEY = "cfmvc_latent_qzm"
    _LATENT_QZV_KEY = "cfmvc_latent_qzv"

    def __init__(
        self,
        adata: AnnData | None = None,
        registry: dict[str, Any] | None = None,
        n_intrinsic: int = 32,
        n_technical: int = 2,
        n_hidden: int = 128,
        n_layers: int = 1,
        dropout_rate: float = 0.1,
        dispersion: Literal["gene", "gene-batch", "gene-label", "gene-cell"] = "gene",
        gene_likelihood: Literal["nb", "zinb", "poisson"] = "nb",
        source: Literal["control", "noise"] = "control",
        niche: Niche = "neighbours",
        flow_kwargs: dict[str, Any] | None = None,
        **vae_kwargs: Any,
    ) -> None:
        # resolved here, so that a saved model keeps its architecture when a default changes
        flow_kwargs = asdict(FlowConfig(**(flow_kwargs or {})))
        super().__init__(adata, registry)
        self.source_, self.niche_, self.is_query_ = source, niche, False
        self.trained_stages_: list[Stage] = []
        self._reference = None
        names = self._state(REGISTRY_KEYS.X_KEY).get("column_names") if adata is None else self._rna(adata).var_names
        self._var_names = None if names is None else np.asarray(names, dtype=str)
        stats = self.summary_stats
        self.module = self._module_cls(
            n_input=stats.n_vars,
            n_batch=stats.n_batch,
            n_labels=stats.n_labels,
            n_continuous_cov=stats.get("n_extra_continuous_covs", 0),
            n_cats_per_cov=self._state(REGISTRY_KEYS.CAT_COVS_KEY).get("n_cats_per_key"),
            n_intrinsic=n_intrinsic,
            n_technical=n_technical,
            n_perturbations=stats.get("n_perturbations", 0),
            n_niche=niche_width(niche, n_intrinsic, stats.get("n_spatial", 0)),
            flow=FlowConfig(**flow_kwargs),
            n_hidden=n_hidden,
            n_layers=n_layers,
            dropout_rate=dropout_rate,
            dispersion=dispersion,
            gene_likelihood=gene_likelihood,
            use_size_factor_key=self._setup_argument("size_factor_key") is not None,
            **vae_kwargs,
        )
        self.module.minified_data_type = self.minified_data_type
        self._model_summary_string = (
            f"CFMVC with {stats.get('n_perturbations', 0)} perturbations; n_intrinsic: {n_intrinsic}, n_technical: "
            f"{n_technical}, n_hidden: {n_hidden}, n_layers: {n_layers}, gene_likelihood: {gene_likelihood}, "
            f"source: {source}."
        )
        self.init_params_ = self._get_init_params(locals())

    def _state(self, key: str) -> dict[str, Any]:
        """Return the state registry of a field, empty where the field is."""
        return dict(self.registry["field_registries"].get(key, {}).get("state_registry", {}))

    def _setup_argument(self, name: str) -> Any:
        return self.registry["setup_args"].get(name)

    @property
    def _has_samples(self) -> bool:
        return self._setup_argument("sample_key") is not None

    @property
    def vocabulary(self) -> Vocabulary | None:
        """Perturbations, control and separator as registered; None without perturbations."""
        state = self._state(CFMVC_REGISTRY_KEYS.PERTURBATION_KEY)
        return Vocabulary.from_dict(state["vocabulary"]) if state else None

    @property
    def _known(self) -> Known:
        """What the model knows by name, and remembers of its training."""
        if self.vocabulary is None:
            raise DataError(
                "The model was trained without perturbations; pass perturbation_key= to setup_anndata and train."
            )
        samples = CFMVC_REGISTRY_KEYS.SAMPLE_KEY
        return Known(
            self.vocabulary,
            self._reference,
            self._categories(REGISTRY_KEYS.LABELS_KEY),
            self._categories(REGISTRY_KEYS.BATCH_KEY),
            self._categories(samples) if self._has_samples else None,
            self._setup_argument("dose_key") is not None,
        )

    def _categories(self, key: str) -> tuple[str, ...]:
        return tuple(str(name) for name in self.get_state_registry(key)["categorical_mapping"])

    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        give_mean: bool = True,
        mc_samples: int = 5000,
        batch_size: int | None = None,
        return_dist: bool = False,
        dataloader: Any = None,
        *,
        part: Part = "intrinsic",
        **data_loader_kwargs: Any,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Return the latents of cells.

        Parameters
        ----------
        adata, indices, give_mean, mc_samples, batch_size, return_dist, dataloader, **data_loader_kwargs
            As in :meth:`scvi.model.SCVI.get_latent_representation`.
        part
            ``"intrinsic"``: cell state, what a perturbation changes; ``"technical"``: what every counterfactual
            holds fixed; ``"both"``: the concatenation (minification needs this one).

        Returns
        -------
        `(cells, dims)` posterior means (or samples), or the pair of means and variances.

        Raises
        ------
        NotTrainedError
            If the representation is not trained.
        """
        self._require("representation")
        n = self.module.n_intrinsic
        blocks = {"intrinsic": slice(0, n), "technical": slice(n, None), "both": slice(None)}
        if part not in blocks:
            raise ValueError(f"part is {part!r}; choose one of {', '.join(blocks)}.")
        result = super().get_latent_representation(
            adata,
            indices,
            give_mean=give_mean,
            mc_samples=mc_samples,
            batch_size=batch_size,
            return_dist=return_dist,
            dataloader=dataloader,
            **data_loader_kwargs,
        )
        return tuple(array[:, blocks[part]] for array in result) if return_dist else result[:, blocks[part]]

    def minify_adata(
        self,
        minified_data_type: str = "latent_posterior_parameters",
        use_latent_qzm_key: str = "X_latent_qzm",
        use_latent_qzv_key: str = "X_latent_qzv",
    ) -> None:
        """Replace the counts of the model's data by their latents, as :meth:`scvi.model.SCVI.minify_adata` does.

        Latents, expected expression and counterfactual latents stay available; counts, and what is coupled to them, do
        not.

        Parameters
        ----------
        minified_data_type
            As in scvi-tools; ``"latent_posterior_parameters_with_counts"`` keeps the counts.
        use_latent_qzm_key, use_latent_qzv_key
            Keys of `adata.obsm` with what ``get_latent_representation(part="both", return_dist=True)`` returns.

        Raises
        ------
        UnknownConditionError
            If a key does not exist.
        DataError
            If these latents lack one of the two blocks.
        UnsupportedError
            If the data are a MuData.
        """
        if not isinstance(self.adata, AnnData):
            raise UnsupportedError("Only an AnnData can be minified.")
        for key in (use_latent_qzm_key, use_latent_qzv_key):
            check_key(key, self.adata.obsm.keys(), "adata.obsm")
            width = self.adata.obsm[key].shape[1]
            if width != self.module.n_latent:
                raise DataError(
                    f"obsm[{key!r}] has {width} columns and the latent {self.module.n_latent}: store what "
                    "get_latent_representation(part='both', return_dist=True) returns."
                )
        super().minify_adata(minified_data_type, use_latent_qzm_key, use_latent_qzv_key)

    @classmethod
    def load_query_data(
        cls,
        adata: AnnData | None = None,
        reference_model: Any = None,
        *args: Any,
        trust_pickle: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Map query data onto a trained model (scArches :cite:p:`Lotfollahi21`), for batches it has not seen.

        `train` then fits the weights of the new batches; the flow and all that the reference knows of its conditions
        and contexts stay, so `predict_counterfactual` works for query cells of those contexts. Train with
        ``plan_kwargs={"weight_decay": 0.0}``, which leaves the reference's weights as they are.

        Parameters
        ----------
        adata
            Query data, with the columns of the reference's setup; genes are matched by name, into a copy if they
            differ.
        reference_model
            Trained model, or the directory it was saved to.
        args, kwargs
            Further arguments of :meth:`scvi.model.base.ArchesMixin.load_query_data`. With ``unfrozen=True`` every
            weight learns, so nothing the reference knew of the latent stays true: `train` runs both stages on the
            query.
        trust_pickle
            As in `load`.

        Returns
        -------
        The query model, whose representation is not trained yet.

        Raises
        ------
        DataError
            If genes of the reference are missing (see `prepare_query_anndata`).
        UnknownConditionError
            If a perturbation is unknown to the reference.
        """
        reference = cls._as_model(reference_model, trust_pickle)
        if adata is not None and reference is not None and not kwargs.get("inplace_subset_query_vars"):
            adata = cls._match_genes(adata, reference.get_var_names(), reference.registry)
        model = super().load_query_data(adata, reference, *args, **kwargs)
        model.train_indices_ = model.validation_indices_ = model.test_indices_ = model.history_ = None
        model.is_query_ = not kwargs.get("unfrozen", False)
        model.trained_stages_ = [name for name in model.trained_stages_ if name != "representation" and model.is_query_]
        model._adopt_reference()
        return model

    def _require(self, *stages: str) -> None:
        missing = [stage for stage in stages if stage not in self.trained_stages_]
        if missing:
            raise NotTrainedError(
                f"Stage '{missing[0]}' of this model is not trained. Call model.train() first "
                f"(trained so far: {', '.join(self.trained_stages_) or 'nothing'})."
            )

    def _validate_anndata(self, adata: AnnData | None = None, copy_if_view: bool = True) -> AnnData:
        """Match the genes by name, then validate as scvi does."""
        if adata is not None and adata is not self.adata and self._var_names is not None:
            adata = self._match_genes(adata, self._var_names, self.registry)
        return super()._validate_anndata(adata, copy_if_view=copy_if_view)

    @classmethod
    def _match_genes(cls, data: Any, var_names: np.ndarray, registry: dict[str, Any]) -> Any:
        """Put the genes of new data in the model's order before they are set up."""
        if isinstance(data, AnnData):
            return match_genes(data, var_names)
        return match_modality(data, registry["setup_args"]["modalities"]["rna_layer"], var_names)

    def _rna(self, data: Any) -> AnnData:
        """Return the AnnData with the counts: the data themselves, or the modality of a MuData."""
        if isinstance(data, AnnData):
            return data
        return data.mod[self.registry["setup_args"]["modalities"]["rna_layer"]]

    def _column(self, data: Any, argument: str) -> pd.Series | None:
        """Return the column of `obs` that an argument of the setup names, of the modality where it is; None if none."""
        key = self._setup_argument(argument)
        if key is None:
            return None
        obs = self._holder(data, argument).obs
        check_key(key, obs.columns, "obs")
        return obs[key]

    def _holder(self, data: Any, argument: str) -> Any:
        """Return what holds that which an argument of the setup names: the data, or a modality of them."""
        modality = None if isinstance(data, AnnData) else self.registry["setup_args"]["modalities"].get(argument)
        return data if modality is None else data.mod[modality]

    def get_var_names(self, legacy_mudata_format: bool = False) -> np.ndarray | None:
        """Return the names of the genes, also of a model without data."""
        return self._var_names

    def _extra_state(self) -> dict[str, Any]:
        names = None if self._var_names is None else [str(name) for name in self._var_names]
        return {"var_names": names, "reference": None if self._reference is None else self._reference.state()}

    def _load_extra_state(self, state: dict[str, Any]) -> None:
        self._var_names = None if state["var_names"] is None else np.asarray(state["var_names"], dtype=str)
        self._reference = None if state["reference"] is None else Reference.from_state(state["reference"])
