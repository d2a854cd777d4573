"""Search over options of setup, model, training and prediction, by what is held out of the training data."""

from cfmvc_scvi.tune.study import METRICS, options, search

__all__ = ["METRICS", "options", "search"]
