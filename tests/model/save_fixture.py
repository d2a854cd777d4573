"""Save the model by which later versions test that they still read the files of this one.

python tests/model/save_fixture.py    # at each release; writes tests/model/saved_by_<version>
"""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import anndata as ad
import scvi

import cfmvc_scvi

HERE = Path(__file__).parent


def counts() -> ad.AnnData:
    """Return a part of the shared counts of the tests."""
    spec = spec_from_file_location("shared", HERE.parent / "conftest.py")
    shared = module_from_spec(spec)
    spec.loader.exec_module(shared)
    return shared.make_counts()[::3, :20].copy()


def main() -> None:
    """Train and save."""
    scvi.settings.seed = 0
    adata = counts()
    cfmvc_scvi.CFMVC.setup_anndata(adata, batch_key="batch", labels_key="cell_type", perturbation_key="perturbation")
    model = cfmvc_scvi.CFMVC(adata, n_intrinsic=4, n_technical=2, n_hidden=8, flow_kwargs={"n_hidden": 8})
    pairs = {"batch_size": 64, "steps_per_epoch": 4}
    model.train(max_epochs=2, accelerator="cpu", enable_progress_bar=False, pair_kwargs=pairs)
    model.save(HERE / f"saved_by_{cfmvc_scvi.__version__.replace('.', '_')}")


if __name__ == "__main__":
    main()
