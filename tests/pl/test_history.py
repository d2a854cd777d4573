import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from cfmvc_scvi import pl
from cfmvc_scvi.errors import DataError


def frame(*values: float) -> pd.DataFrame:
    return pd.DataFrame({"any": list(values)})


def test_training_and_validation_share_a_panel():
    recorded = {
        "elbo_train": frame(9, 5, 4),
        "elbo_validation": frame(9.5, 6, 5),
        "flow_loss_train": frame(1, 0.5),
        "kl_weight": frame(0, 0.1),
        "train_loss_step": frame(3, 2),
    }
    axes = pl.history(recorded)
    assert [ax.get_title() for ax in axes] == ["negative ELBO", "flow loss"]
    assert [ax.get_xlabel() for ax in axes] == ["epoch of the representation", "epoch of the flow"]
    assert [line.get_label() for line in axes[0].lines] == ["train", "validation"]
    assert np.array_equal(axes[0].lines[1].get_ydata(), [9.5, 6, 5])
    assert np.array_equal(axes[1].lines[0].get_xdata(), [0, 1])


def test_constants_and_duplicates_are_left_out():
    recorded = {
        "train_loss_epoch": frame(3, 2),
        "kl_global_train": frame(0, 0),
        "loss_again_train": frame(3, 2),
    }
    assert [ax.get_title() for ax in pl.history(recorded)] == ["loss"]


def test_first_epochs_do_not_hide_the_others():
    ax = pl.history({"elbo_train": frame(1e6, *np.linspace(10, 5, 60))})[0]
    assert ax.get_ylim()[1] < 100


def test_wrong_number_of_axes():
    with pytest.raises(DataError, match="2 axes for 1 panels"):
        pl.history({"elbo_train": frame(2, 1)}, axes=list(plt.subplots(1, 2)[1]))


def test_nothing_to_draw():
    with pytest.raises(DataError, match="train the model"):
        pl.history({"kl_weight": frame(0.1, 0.1)})
