"""Metrics of frozen features."""

from ssl_lightning.evaluation.cluster_scores import ClusterAgreement
from ssl_lightning.evaluation.few_shot import FewShot
from ssl_lightning.evaluation.knn import KNN, nearest_between, nearest_rows
from ssl_lightning.evaluation.linear import LinearProbe
from ssl_lightning.evaluation.low_shot import LowShot
from ssl_lightning.evaluation.probe import LabelledFeatures, Probe
from ssl_lightning.evaluation.rank import feature_std, participation_ratio, rank_me

__all__ = [
    "KNN",
    "ClusterAgreement",
    "FewShot",
    "LabelledFeatures",
    "LinearProbe",
    "LowShot",
    "Probe",
    "feature_std",
    "nearest_between",
    "nearest_rows",
    "participation_ratio",
    "rank_me",
]
