"""ClusterAgreement: agreement of k-means clusters of frozen features with the classes."""

from dataclasses import dataclass

from ssl_lightning.clustering.clusterer import Clusterer
from ssl_lightning.clustering.diagnostics import normalized_mutual_info
from ssl_lightning.clustering.kmeans import KMeans
from ssl_lightning.evaluation.probe import LabelledFeatures, Probe, undefined


@dataclass(frozen=True)
class ClusterAgreement(Probe):
    """NMI (geometric) between the classes and a clustering of the test features, with K = number of classes.

    Args:
        clusterer: The clustering algorithm.
        seed: Seed of its initialization.
    """

    clusterer: Clusterer = KMeans(init="k-means++")  # immutable
    seed: int = 0

    def __call__(self, train: LabelledFeatures, test: LabelledFeatures) -> dict[str, float]:
        """Return `clusters/nmi`; NaN if there are fewer images than classes."""
        if len(test.labels) < test.num_classes:
            found = f"{len(test.labels)} test rows"
            expected = f"at least {test.num_classes}, the number of classes"
            return {"clusters/nmi": undefined("ClusterAgreement's clusters/nmi", found, expected)}
        found = self.clusterer(test.features.float(), test.num_classes, self.seed)
        return {"clusters/nmi": float(normalized_mutual_info(found.labels, test.labels))}
