"""Clustering algorithms: rows of features in, a `Clustering` out."""

from ssl_lightning.clustering.clusterer import Clusterer, Clustering
from ssl_lightning.clustering.diagnostics import cluster_metrics, normalized_mutual_info, purity
from ssl_lightning.clustering.faiss_kmeans import FaissKMeans
from ssl_lightning.clustering.hierarchical import HierarchicalKMeans
from ssl_lightning.clustering.history import ClusterHistory
from ssl_lightning.clustering.kmeans import KMeans
from ssl_lightning.clustering.random_partition import RandomPartition
from ssl_lightning.clustering.tree_sampling import balanced_sample, uniform_sample
from ssl_lightning.clustering.whitening import FeatureTransform, PCAWhitening, UnitRows

__all__ = [
    "ClusterHistory",
    "Clusterer",
    "Clustering",
    "FaissKMeans",
    "FeatureTransform",
    "HierarchicalKMeans",
    "KMeans",
    "PCAWhitening",
    "RandomPartition",
    "UnitRows",
    "balanced_sample",
    "cluster_metrics",
    "normalized_mutual_info",
    "purity",
    "uniform_sample",
]
