"""The model of scvi-hub for the files of this package; needs the extra hub."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import huggingface_hub
from huggingface_hub import ModelCard, ModelCardData
from scvi.hub import HubMetadata
from scvi.hub import HubModel as ScviHubModel

from cfmvc_scvi.errors import ModelFileError, UnsupportedError
from cfmvc_scvi.model import CFMVC
from cfmvc_scvi.model.persistence.manifest import MANIFEST_FILE, read_manifest

__all__ = ["CARD_FILE", "METADATA_FILE", "HubModel", "card_of", "metadata_of"]

CARD_FILE, METADATA_FILE = "README.md", "_scvi_required_metadata.json"
_DATA_FILES = ("adata.h5ad", "mdata.h5mu")
_CARD = """{header}
# {title}

{description}

`CFMVC`, a model for scvi-tools of the package [cfmvc-scvi](https://pypi.org/project/cfmvc-scvi/), predicts what single
cells would look like under another perturbation.

```python
from cfmvc_scvi import export

model = export.from_hub("OWNER/NAME", revision="COMMIT").model
counterfactual = model.predict_counterfactual(cells, perturbation={example!r})
```

Reading the files executes nothing. They hold the counts of {n_kept} training cells, to which predictions refer{data}.

## What it knows

| | |
|---|---|
{facts}

## How it was made

| | |
|---|---|
{training}

## References

{references}
"""


class HubModel(ScviHubModel):
    """A saved `CFMVC` with its card: as in scvi-tools, for a directory of several files without a pickle."""

    def load_model(self, adata: Any = None, accelerator: str = "auto", device: str | int = "auto") -> None:
        """Load the model: with these data, else with those saved with it, else without."""
        directory = Path(self.local_dir)
        saved = any((directory / name).is_file() for name in _DATA_FILES)
        data = adata if adata is not None or saved else False
        self._model = CFMVC.load(directory, adata=data, accelerator=accelerator, device=device)

    def push_to_huggingface_hub(
        self,
        repo_name: str,
        repo_token: str | None = None,
        repo_create: bool = False,
        repo_create_kwargs: dict[str, Any] | None = None,
        collection_name: str | None = None,
        push_anndata: bool = True,
        **kwargs: Any,
    ) -> None:
        """Upload the model, its card and its metadata in one commit; parameters as in scvi-tools.

        Raises
        ------
        UnsupportedError
            If data that were saved with the model, and are checked with it, are to be left out; if a collection is
            named.
        """
        if collection_name is not None:
            raise UnsupportedError("Collections of scvi-tools hold its own models; leave collection_name out.")
        records = read_manifest(Path(self.local_dir))
        if not push_anndata and (held := sorted(set(records) & set(_DATA_FILES))):
            raise UnsupportedError(
                f"The model was saved with its data ({held[0]}), and is checked as a whole; make it again with "
                "to_hub(save_anndata=False)."
            )
        api = huggingface_hub.HfApi(token=repo_token)
        if repo_create:
            api.create_repo(repo_name, **{"exist_ok": True, **(repo_create_kwargs or {})})
        api.upload_folder(
            repo_id=repo_name,
            folder_path=self.local_dir,
            allow_patterns=[*sorted(records), MANIFEST_FILE, CARD_FILE, METADATA_FILE],
            **kwargs,
        )
        self._repo_name = repo_name

    @classmethod
    def pull_from_huggingface_hub(
        cls,
        repo_name: str,
        cache_dir: str | None = None,
        revision: str | None = None,
        pull_anndata: bool = True,
        **kwargs: Any,
    ) -> Self:
        """Download a model; parameters as in scvi-tools.

        Raises
        ------
        ModelFileError
            If it is not one of this package, or data are left out that were saved with it.
        """
        ignored = None if pull_anndata else list(_DATA_FILES)
        folder = Path(
            huggingface_hub.snapshot_download(
                repo_name, cache_dir=cache_dir, revision=revision, ignore_patterns=ignored, **kwargs
            )
        )
        missing = [name for name in (MANIFEST_FILE, CARD_FILE, METADATA_FILE) if not (folder / name).is_file()]
        if missing:
            raise ModelFileError(
                f"'{repo_name}' lacks {', '.join(missing)}, so it is no model that to_hub made; models of scvi-tools "
                "itself are read by scvi.hub.HubModel"
            )
        return cls(str(folder), repo_name=repo_name)

    def push_to_s3(self, *args: Any, **kwargs: Any) -> None:
        """Refused: scvi-tools uploads a pickle by name."""
        raise UnsupportedError("Copy the directory to the bucket with a tool of S3; it needs nothing else.")

    @classmethod
    def pull_from_s3(cls, *args: Any, **kwargs: Any) -> Self:
        """Refused: scvi-tools downloads a pickle by name."""
        raise UnsupportedError("Copy the directory from the bucket with a tool of S3, and load it by CFMVC.load.")


def metadata_of(model: CFMVC, training_data_url: str | None) -> HubMetadata:
    """Return what scvi-hub asks of a model: its class, where that is found, and versions."""
    return HubMetadata(
        scvi_version=str(model.registry["scvi_version"]),
        anndata_version=version("anndata"),
        model_cls_name=type(model).__name__,
        training_data_url=training_data_url,
        model_parent_module=type(model).__module__.partition(".")[0],
    )


def card_of(
    model: CFMVC, license_info: str, tissues: list[str], texts: dict[str, str | None], *, with_data: bool
) -> ModelCard:
    """Return the card, with the tags of scvi-hub."""
    metadata = metadata_of(model, texts["training_data_url"])
    tags = ["biology", "genomics", "single-cell", f"model_cls_name:{metadata.model_cls_name}"]
    tags += [f"scvi_version:{metadata.scvi_version}", f"anndata_version:{metadata.anndata_version}", "modality:rna"]
    tags += [f"tissue:{name}" for name in tissues]
    header = ModelCardData(license=license_info, library_name="scvi-tools", tags=tags)
    perturbations = () if model.vocabulary is None else model.vocabulary.perturbations
    reference = model._reference
    return ModelCard(
        _CARD.format(
            header=f"---\n{header.to_yaml()}\n---\n",
            title=f"{metadata.model_cls_name}: {len(perturbations)} perturbations",
            description=texts["description"] or "No description was given.",
            example=perturbations[0] if perturbations else "control",
            n_kept=0 if reference is None else len(reference.panel.names),
            data=", and the data themselves" if with_data else "",
            facts=_rows(_facts(model, perturbations)),
            training=_rows(_training(model, texts)),
            references=texts["references"] or "None were given.",
        )
    )


def _facts(model: CFMVC, perturbations: tuple[str, ...]) -> dict[str, Any]:
    contexts = () if model._reference is None else model._reference.contexts.names
    return {
        "genes": model.module.n_input,
        "perturbations": ", ".join(perturbations) or "none",
        "control": "none" if model.vocabulary is None else model.vocabulary.control,
        "contexts": ", ".join(contexts) or "none",
        "trained stages": ", ".join(model.trained_stages_),
    }


def _training(model: CFMVC, texts: dict[str, str | None]) -> dict[str, Any]:
    parameters = model.init_params_
    options = {
        **parameters["non_kwargs"],
        **{k: v for group in parameters["kwargs"].values() for k, v in group.items()},
    }
    setup = {key: value for key, value in model.registry["setup_args"].items() if value is not None}
    return {
        "cells of training": 0 if model.train_indices_ is None else len(model.train_indices_),
        "set up with": f"`{json.dumps(setup, default=str)}`",
        "made with": f"`{json.dumps(options, default=str)}`",
        "data": texts["training_data_url"] or "not given",
        "code": texts["training_code_url"] or "not given",
    }


def _rows(values: dict[str, Any]) -> str:
    return "\n".join(f"| {name} | {str(value).replace('|', chr(92) + '|')} |" for name, value in values.items())
