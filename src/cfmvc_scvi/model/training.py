"""Training in stages: which run, for how long, on which data."""

from __future__ import annotations

import inspect
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from scvi import settings
from scvi.model.base import UnsupervisedTrainingMixin
from scvi.train import TrainingPlan, TrainRunner

from cfmvc_scvi._compat import use_distributed_sampler
from cfmvc_scvi.config import PairConfig, TrainingConfig
from cfmvc_scvi.errors import CFMVCWarning, DataError, NotTrainedError, UnsupportedError
from cfmvc_scvi.model.memory import MemoryMixin
from cfmvc_scvi.model.resume import TrainingRun, agreed_options, given_options, plain_options, read_checkpoint
from cfmvc_scvi.model.trainer import trainer_options
from cfmvc_scvi.train import (
    STAGES,
    CollectionDataModule,
    FlowPlan,
    JointPlan,
    LatentDataModule,
    MinibatchCoupler,
    RepresentationPlan,
    Stage,
    stage_of,
)

__all__ = ["StagedTrainingMixin"]

_SPLIT_OPTIONS = (
    "train_size",
    "validation_size",
    "shuffle_set_split",
    "load_sparse_tensor",
    "batch_size",
    "datasplitter_kwargs",
)
_OWN_OPTIONS = {
    *_SPLIT_OPTIONS,
    "max_epochs",
    "stage",
    "plan_kwargs",
    "flow_plan_kwargs",
    "joint_plan_kwargs",
    "pair_kwargs",
}
_HALF_PRECISION = ("16-true", "bf16-true", "transformer-engine", "transformer-engine-float16")


class StagedTrainingMixin(MemoryMixin, UnsupervisedTrainingMixin):
    """`train` of `CFMVC`: the VAE by scvi's own training, then the flow over cached latents, then both on request."""

    _training_plan_cls: type[TrainingPlan] = RepresentationPlan

    def train(
        self,
        max_epochs: int | Mapping[Stage, int] | None = None,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        train_size: float | None = None,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,
        load_sparse_tensor: bool = False,
        batch_size: int | None = None,
        early_stopping: bool = False,
        datasplitter_kwargs: dict[str, Any] | None = None,
        plan_kwargs: Mapping[str, Any] | None = None,
        *,
        stage: Stage | Sequence[Stage] | None = None,
        flow_plan_kwargs: Mapping[str, Any] | None = None,
        joint_plan_kwargs: Mapping[str, Any] | None = None,
        pair_kwargs: Mapping[str, Any] | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        resume_from: str | os.PathLike[str] | None = None,
        datamodule: CollectionDataModule | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train the model: the representation, then (with perturbations) the flow.

        Stage 1 is scvi's training of the VAE. Stage 2 encodes the cells once and touches no counts, nor any weight of
        the VAE. Stage 3, ``"joint"``, runs only on request. Training a stage again continues from where it is; a new
        representation asks for a new flow.

        Parameters
        ----------
        max_epochs
            Epochs of each stage, or a number by stage. Defaults: about 700 minibatches, at least 20 epochs
            (representation), 8 epochs of 50 minibatches (flow), 10 epochs (joint).
        accelerator, devices
            As in lightning.
        train_size, validation_size, shuffle_set_split
            Split of the cells, made in the first training and kept by later ones. Cells of neither part are test cells,
            which no stage sees.
        load_sparse_tensor, datasplitter_kwargs
            Passed to :class:`scvi.dataloaders.DataSplitter`.
        batch_size
            Cells in a minibatch of counts; a few more where one or two cells would be left over. None is 128, and 1024
            in stage 3, which couples the cells of a minibatch.
        early_stopping
            Stop a stage whose validation loss no longer falls; the options of :class:`scvi.train.Trainer` apply to each
            stage.
        plan_kwargs
            Options of the plan of stage 1, `train.RepresentationPlan`.
        stage
            Stages to run; None runs the representation and, with perturbations, the flow. For a query model (see
            `load_query_data`) None runs the representation alone, and the flow of its reference still serves.
        flow_plan_kwargs, joint_plan_kwargs
            Options of `train.FlowPlan` and of `train.JointPlan`.
        pair_kwargs
            Options of `config.PairConfig`: minibatches of the flow.
        checkpoint_dir
            New directory for a checkpoint, replaced after each epoch, from which an interrupted training can be
            resumed. It is a saved model, which `load` reads too.
        resume_from
            The checkpoint of an interrupted training, which goes on from its last finished epoch and writes its further
            checkpoints there (or to `checkpoint_dir`). Model and data must be made and set up as they were then;
            arguments need not be repeated, but for functions and callbacks, and must not differ. On a CPU, in one
            process, the weights will be bit-equal to those of a training that was not interrupted.
        datamodule
            Cells on disk, as `setup_annbatch` returns them, for a model made by ``CFMVC(registry=datamodule.registry)``
            or loaded without data; None is the model's data, or the cells of the last training.
        **trainer_kwargs
            Passed to :class:`scvi.train.Trainer` in each stage: callbacks, precision, gradient_clip_val,
            accumulate_grad_batches, strategy, logger and so on. The callbacks are those of each stage in turn;
            ``enable_checkpointing=True`` adds a `train.Checkpoint`.

        Raises
        ------
        NotTrainedError
            If the flow is asked for before the representation.
        NonFiniteError
            If a loss, gradient or weight becomes NaN or infinite, in the step where it does.
        DataError
            If a stage needs perturbations, counts or pairs of cells that there are not; if data, model or arguments
            differ from those of the training that is resumed.
        ModelFileError, CorruptModelError
            If `checkpoint_dir` is not empty, or `resume_from` is not an intact checkpoint.
        UnsupportedError
            If `precision` would keep the weights themselves in half precision.

        Warns
        -----
        CFMVCWarning
            If another split is asked for than the one the model was trained with.
        """
        given = {
            "max_epochs": max_epochs,
            "early_stopping": early_stopping,
            "train_size": train_size,
            "validation_size": validation_size,
            "shuffle_set_split": shuffle_set_split,
            "load_sparse_tensor": load_sparse_tensor,
            "batch_size": batch_size,
            "datasplitter_kwargs": datasplitter_kwargs,
            "plan_kwargs": plan_kwargs,
            "stage": stage,
            "flow_plan_kwargs": flow_plan_kwargs,
            "joint_plan_kwargs": joint_plan_kwargs,
            "pair_kwargs": pair_kwargs,
            **trainer_kwargs,
        }
        if datamodule is not None:
            self._use_collection(datamodule, trainer_kwargs.get("strategy"))
        options, run = self._begin(given, checkpoint_dir, resume_from)
        self._run(run, {**options, "accelerator": accelerator, "devices": devices})

    def _begin(
        self,
        given: dict[str, Any],
        checkpoint_dir: str | os.PathLike[str] | None,
        resume_from: str | os.PathLike[str] | None,
    ) -> tuple[dict[str, Any], TrainingRun]:
        """Check the arguments and start, or take up again, the training that they ask for."""
        defaults = {name: p.default for name, p in inspect.signature(StagedTrainingMixin.train).parameters.items()}
        shaping = given_options(given, defaults)
        directory = None if checkpoint_dir is None else Path(checkpoint_dir)
        bundle = None
        if resume_from is not None:
            bundle = read_checkpoint(Path(resume_from))
            shaping = agreed_options(shaping, bundle.extras["training"]["options"])
            directory = directory or Path(resume_from)
        options = {**given, **shaping}
        stages, epochs = self._stages(options["stage"], options), options["max_epochs"]
        if isinstance(epochs, Mapping) and (unknown := set(epochs) - set(STAGES)):
            raise ValueError(f"max_epochs names {sorted(unknown)[0]!r}; the stages are {', '.join(STAGES)}.")
        self._check_split(options)
        run = TrainingRun(self, stages, plain_options(shaping), directory)
        if bundle is None:
            run.start()
        else:
            run.resume(Path(cast(Any, resume_from)), bundle)
        return options, run

    def _run(self, run: TrainingRun, options: dict[str, Any]) -> None:
        """Run the stages that remain."""
        shared = {name: value for name, value in options.items() if name not in _OWN_OPTIONS}
        split, epochs = {name: options[name] for name in _SPLIT_OPTIONS}, options["max_epochs"]
        for name in run.remaining():
            n = epochs.get(name) if isinstance(epochs, Mapping) else epochs
            own = run.trainer_options(trainer_options(shared, name))
            if name == "representation":
                self._train_representation(run, n, split, options["plan_kwargs"], own)
            elif name == "flow":
                pairs = PairConfig(**(options["pair_kwargs"] or {}))
                self._train_flow(run, n, options["flow_plan_kwargs"], pairs, own)
            else:
                self._train_joint(run, n, split, options["joint_plan_kwargs"], own)

    def _stages(self, stage: Stage | Sequence[Stage] | None, run: Mapping[str, Any]) -> Sequence[Stage]:
        """Return the stages to run, after checking that the model can run them."""
        has_flow = self.module.flow is not None
        stages = list(STAGES[: 1 + (has_flow and not self.is_query_)]) if stage is None else stage
        stages = [stages] if isinstance(stages, str) else list(stages)
        unknown = [name for name in stages if name not in STAGES]
        if unknown or not stages:
            raise ValueError(f"stage is {stage!r}; choose among {', '.join(STAGES)}.")
        if self._training_cells is None:
            raise DataError(
                "This model has no data to train on; load it with adata=, make it from an AnnData, or pass datamodule=."
            )
        if not has_flow and set(stages) != {"representation"}:
            raise DataError(
                "No perturbations are registered, so there is no flow; pass perturbation_key= to setup_anndata."
            )
        if self.minified_data_type is not None and set(stages) != {"flow"}:
            raise DataError("The data are minified: there are no counts to train on. Train with the original data.")
        if self.is_query_ and "joint" in stages:
            raise DataError(
                "Stage 'joint' would change the reference that a query model rests on; train the reference."
            )
        if use_distributed_sampler(run.get("strategy")) and settings.seed is None:
            raise DataError(
                "Processes that train together must split the cells alike; set scvi.settings.seed to the same number "
                "in each, before the model is made."
            )
        if str(run.get("precision")) in _HALF_PRECISION:
            raise UnsupportedError(
                f"precision={run['precision']!r} keeps weights and counts in half precision, where a likelihood of "
                "counts loses its digits; use 'bf16-mixed' or '32-true'."
            )
        return stages

    def _train_representation(
        self,
        run: TrainingRun,
        epochs: int | None,
        split: dict[str, Any],
        plan_kwargs: Mapping[str, Any] | None,
        trainer: dict[str, Any],
    ) -> None:
        config = TrainingConfig()
        split = self._with_splits(split, config.representation_batch_size)
        if epochs is None:
            steps = math.ceil(self._n_train(split) / split["batch_size"])
            epochs = max(math.ceil(config.representation_steps / steps), config.representation_epochs)
        plan = {
            "lr": config.representation_lr,
            "eps": config.representation_eps,
            "max_kl_weight": config.kl_weight,
            "n_epochs_kl_warmup": max(1, epochs // 10),
            **(plan_kwargs or {}),
        }
        data, train = self._counts_of(split, trainer), super().train
        with stage_of(self, "representation"):
            run.fit(lambda: train(epochs, **data, plan_kwargs=plan, **trainer))
            run.latents = self._remember(run.seed)

    def _with_splits(self, split: dict[str, Any], batch_size: int) -> dict[str, Any]:
        """Keep the split of an earlier training, so that no stage learns from the test cells of another.

        The minibatch grows until none of one or two cells is left over, which batch norm cannot take.
        """
        options = dict(split["datasplitter_kwargs"] or {})
        if self.train_indices_ is not None:
            options["external_indexing"] = list(self._splits())
        split = {**split, "datasplitter_kwargs": options}
        n_train, size = self._n_train(split), split["batch_size"] or batch_size
        while 0 < n_train % size < 3 and n_train > size:
            size += 1
        return {**split, "batch_size": size}

    def _n_train(self, split: Mapping[str, Any]) -> int:
        external = split["datasplitter_kwargs"].get("external_indexing")
        return len(external[0]) if external else math.ceil((split["train_size"] or 0.9) * self._training_cells.n_obs)

    def _counts_of(self, split: dict[str, Any], trainer: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of scvi's `train` that say which minibatches of counts there are."""
        data = self._collection
        if data is None:
            return split
        data.split(**{name: value for name, value in split.items() if name != "load_sparse_tensor"})
        if trainer["early_stopping"] and not data.n_val:
            raise DataError("Early stopping needs validation cells, and there are none; leave it out.")
        return {"datamodule": data}

    def _check_split(self, split: Mapping[str, Any]) -> None:
        """Check that an earlier split, if any, is one of these data, and say that a new one is ignored."""
        if self.train_indices_ is None:
            return
        n_split, n_cells = sum(map(len, self._splits())), self._training_cells.n_obs
        if n_split != n_cells:
            raise DataError(
                f"The model was trained on a split of {n_split} cells, and its data have {n_cells}. Load it with "
                "the data it was trained on, or map new data with load_query_data."
            )
        split = {**split, "datasplitter_kwargs": split["datasplitter_kwargs"] or {}}
        given = split["train_size"] is not None or "external_indexing" in split["datasplitter_kwargs"]
        if given and self._n_train(split) != len(self.train_indices_):
            warnings.warn(
                "The model keeps the split of its first training, so that no stage learns from the test cells of "
                "another; the split given is ignored. Make a new model for a new split.",
                CFMVCWarning,
                stacklevel=4,
            )

    def _train_flow(
        self,
        run: TrainingRun,
        epochs: int | None,
        plan_kwargs: Mapping[str, Any] | None,
        pairs: PairConfig,
        trainer: dict[str, Any],
    ) -> None:
        table, run.latents = self._latent_table(run.latents), None
        unknown = np.count_nonzero((table.condition < 0) | (table.context < 0))
        if self.is_query_ and unknown:
            warnings.warn(
                f"{unknown} of {len(table.mean)} cells have conditions or contexts that the reference does not know; "
                "the flow does not learn from them.",
                CFMVCWarning,
                stacklevel=4,
            )
        options = dict(plan_kwargs or {})
        matched = options.get("lambda_mmd", 0.0) != 0
        data = LatentDataModule(
            table, self._splits(), source=self.source_, config=pairs, seed=run.seed, observed=matched
        )
        if trainer["early_stopping"] and len(data.validation_sampler) == 0:
            raise DataError("Early stopping needs pairs of validation cells, and there are none; leave it out.")
        if matched:
            options.setdefault("bandwidths", data.bandwidths())
        plan = FlowPlan(self.module, **options)
        with stage_of(self, "flow"):
            TrainRunner(self, plan, data, TrainingConfig().flow_epochs if epochs is None else epochs, **trainer)()

    def _train_joint(
        self,
        run: TrainingRun,
        epochs: int | None,
        split: dict[str, Any],
        plan_kwargs: Mapping[str, Any] | None,
        trainer: dict[str, Any],
    ) -> None:
        if "flow" not in self.trained_stages_:
            raise NotTrainedError("Stage 'joint' fine-tunes a trained flow; run train() or train(stage='flow') first.")
        config = TrainingConfig()
        options = {"max_kl_weight": config.kl_weight, "min_kl_weight": config.kl_weight, "n_epochs_kl_warmup": None}
        # the coupler rests on the latents that the stage began with, which a resumed one no longer has
        resumed = None if run.state is None else run.state.get("coupler")
        couple = self._minibatch_coupler(run.seed) if resumed is None else MinibatchCoupler.from_state(resumed)
        plan = {**options, "couple": couple, **(plan_kwargs or {})}
        split = self._with_splits(split, config.joint_batch_size)
        self._training_plan_cls, run.latents = JointPlan, None
        try:
            epochs = config.joint_epochs if epochs is None else epochs
            data, train = self._counts_of(split, trainer), super().train
            with stage_of(self, "joint"):
                run.fit(lambda: train(epochs, **data, plan_kwargs=plan, **trainer))
                self._remember_latents()
        finally:
            del self._training_plan_cls
