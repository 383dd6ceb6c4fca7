"""Coresets: a few real rows that are to stand for all, chosen by scikit-learn style estimators.

    X_small, y_small = Herding(ipc=10, features=NetworkFeatures()).fit_resample(X, y)

All take their size as ``ipc`` (rows a class) or ``size`` (a count, or a share of the rows), by class or over all rows.
"""

from condensation.coresets.craig import Craig
from condensation.coresets.crust import Crust
from condensation.coresets.features import FeatureGradients, FreshNetwork, LastLayerGradients, NetworkFeatures, Pixels
from condensation.coresets.forgetting import Forgetting
from condensation.coresets.gradient_norm import ErrorNorms, GradientNorm
from condensation.coresets.herding import Herding
from condensation.coresets.k_center import KCenter
from condensation.coresets.k_means import KMeans
from condensation.coresets.random_rows import Random
from condensation.coresets.sharded import Sharded

__all__ = [
    "Craig",
    "Crust",
    "ErrorNorms",
    "FeatureGradients",
    "Forgetting",
    "FreshNetwork",
    "GradientNorm",
    "Herding",
    "KCenter",
    "KMeans",
    "LastLayerGradients",
    "NetworkFeatures",
    "Pixels",
    "Random",
    "Sharded",
]
