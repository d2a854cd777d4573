"""Figures of results, the scanpy way: each function draws arrays or tables and returns the axes; none sees a model."""

from __future__ import annotations

from cfmvc_scvi.pl.benchmark import METRICS, Metric, benchmark
from cfmvc_scvi.pl.calibration import calibration
from cfmvc_scvi.pl.conditions import conditions
from cfmvc_scvi.pl.delta import delta
from cfmvc_scvi.pl.distributions import distributions
from cfmvc_scvi.pl.dose_response import dose_response
from cfmvc_scvi.pl.effects import effects, similarity
from cfmvc_scvi.pl.embedding import embedding
from cfmvc_scvi.pl.gradients import gradients
from cfmvc_scvi.pl.history import history
from cfmvc_scvi.pl.latent import latent
from cfmvc_scvi.pl.skill import skill
from cfmvc_scvi.pl.tissue import tissue
from cfmvc_scvi.pl.trajectory import trajectory
from cfmvc_scvi.pl.trust import trust
from cfmvc_scvi.pl.velocity import project_velocity, velocity

__all__ = [
    "METRICS",
    "Metric",
    "benchmark",
    "calibration",
    "conditions",
    "delta",
    "distributions",
    "dose_response",
    "effects",
    "embedding",
    "gradients",
    "history",
    "latent",
    "project_velocity",
    "similarity",
    "skill",
    "tissue",
    "trajectory",
    "trust",
    "velocity",
]
