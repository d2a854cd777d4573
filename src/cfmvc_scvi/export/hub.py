"""Sharing a trained model as those of scvi-hub are shared: with a card, on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfmvc_scvi._optional import require_extra
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.model import CFMVC

if TYPE_CHECKING:
    from cfmvc_scvi.export._hub import HubModel

__all__ = ["from_hub", "to_hub"]


def to_hub(
    model: CFMVC,
    directory: str | Path,
    *,
    license_info: str,
    description: str = "",
    tissues: Sequence[str] = (),
    references: str = "",
    training_data_url: str | None = None,
    training_code_url: str | None = None,
    save_anndata: bool = False,
    overwrite: bool = False,
) -> HubModel:
    """Save a trained model with the card and the metadata of scvi-hub, ready to be pushed.

    Nothing leaves this machine until ``push_to_huggingface_hub`` of what is returned is called. The directory holds
    counts of training cells also without `save_anndata`, as every saved model does: push it where you would publish the
    data.

    Parameters
    ----------
    model
        Trained.
    directory
        To create.
    license_info
        Licence of the model, in the words of the hub, for example ``"cc-by-4.0"``.
    description, references
        Texts of the card: what the model is for and what it was trained on; what to cite.
    tissues
        Tags of the card.
    training_data_url, training_code_url
        Where the data and the code of the training are.
    save_anndata
        Save the data too.
    overwrite
        Replace a model that stands there.

    Returns
    -------
    A :class:`scvi.hub.HubModel` of the directory, whose ``model`` loads it, without data where none were saved.

    Raises
    ------
    MissingExtraError
        If the extra ``hub`` is not installed.
    NotTrainedError
        If the representation is not trained.
    DataError
        If the licence is empty, or an address is no link.
    ModelFileError, UnsupportedError
        As of `CFMVC.save`.

    Examples
    --------
    >>> hub = cfmvc_scvi.export.to_hub(model, "for_the_hub", license_info="cc-by-4.0")  # doctest: +SKIP
    >>> hub.push_to_huggingface_hub("laboratory/model", repo_create=True)  # doctest: +SKIP
    """
    require_extra("huggingface_hub", "hub")
    from cfmvc_scvi.export._hub import CARD_FILE, METADATA_FILE, HubModel, card_of, metadata_of

    model._require("representation")
    if not license_info.strip():
        raise DataError("license_info is empty; say under which licence others may use the model, e.g. 'cc-by-4.0'.")
    links = {"training_data_url": training_data_url, "training_code_url": training_code_url}
    for name, link in links.items():
        if link is not None and not link.startswith(("https://", "http://")):
            raise DataError(f"{name} is {link!r}; pass a link that starts with https://.")
    path = Path(directory)
    metadata = metadata_of(model, training_data_url)
    texts = {"description": description, "references": references, **links}
    card = card_of(model, license_info, list(tissues), texts, with_data=save_anndata)
    if overwrite:  # files of this function, which `save` takes for others'
        for name in (CARD_FILE, METADATA_FILE):
            (path / name).unlink(missing_ok=True)
    model.save(path, overwrite=overwrite, save_anndata=save_anndata)
    hub = HubModel(str(path), metadata=metadata, model_card=card)
    hub.save(overwrite=True)
    return hub


def from_hub(
    repo_name: str, *, revision: str | None = None, cache_dir: str | None = None, with_data: bool = True, **kwargs: Any
) -> HubModel:
    """Download a model that `to_hub` made; reading it executes nothing.

    Parameters
    ----------
    repo_name
        Name on the hub, ``"owner/name"``.
    revision
        Branch, tag or hash of a commit; None is the latest, which may change.
    cache_dir
        Where to keep it; None is the hub's own cache.
    with_data
        Also download data that were saved with the model.
    **kwargs
        Passed to :func:`huggingface_hub.snapshot_download`.

    Returns
    -------
    A :class:`scvi.hub.HubModel`; its ``model`` loads the model.

    Raises
    ------
    MissingExtraError
        If the extra ``hub`` is not installed.
    ModelFileError
        If there is no model of this package.
    """
    require_extra("huggingface_hub", "hub")
    from cfmvc_scvi.export._hub import HubModel

    return HubModel.pull_from_huggingface_hub(
        repo_name, cache_dir=cache_dir, revision=revision, pull_anndata=with_data, **kwargs
    )
