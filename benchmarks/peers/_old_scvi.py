"""What packages written for older scvi-tools need on Python 3.11 and torch 2.13; import it before them.

cpa imports a name of tkinter that it never uses, and an installation of Python may have no tkinter.
"""

from __future__ import annotations

__all__ = ["repair_celldisect", "repair_scgen"]

import importlib.util
import sys
import types
import typing

if importlib.util.find_spec("_tkinter") is None:
    sys.modules["tkinter"] = types.ModuleType("tkinter")
    sys.modules["tkinter"].N = "n"


def repair_scgen() -> None:
    """Let scGen import what scvi-tools called otherwise, or had elsewhere, until 0.19."""
    from scvi.module import base

    def recorder(loss: object, reconstruction_loss: object, kl_local: object) -> base.LossOutput:
        return base.LossOutput(loss=loss, reconstruction_loss=reconstruction_loss, kl_local=kl_local)

    base.LossRecorder = recorder
    compatibility = types.ModuleType("scvi._compat")
    compatibility.Literal = typing.Literal
    sys.modules["scvi._compat"] = compatibility


def repair_celldisect() -> None:
    """Let early stopping and the learning rate's schedule of CellDISECT find the validation loss.

    Since Python 3.11 an enum of strings formats as its name, so the loss was logged as 'LOSS_KEYS.LOSS_validation'; and
    torch's schedule has lost its argument `verbose`.
    """
    from celldisect import trainingplan, utils

    utils.LOSS_KEYS.__format__ = lambda self, spec: format(self.value, spec)
    utils.LOSS_KEYS.__str__ = lambda self: self.value
    schedule = trainingplan.ReduceLROnPlateau

    def without_verbose(*args: object, verbose: bool = False, **kwargs: object) -> object:
        return schedule(*args, **kwargs)

    trainingplan.ReduceLROnPlateau = without_verbose
