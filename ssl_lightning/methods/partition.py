"""Checks of the cluster file and of the experts of Divide and Contrast against the images of a run."""

from jaxtyping import Int
from torch import Tensor

from ssl_lightning.clustering.clusterer import Clustering, reject_other_images
from ssl_lightning.contracts import TrainingData
from ssl_lightning.errors import DataError, UsageError


def read_clusters(path: str, num_experts: int, data: TrainingData) -> Clustering:
    """The clusters of the second stage.

    Args:
        path: File of `WriteClusters`, `<path>.safetensors`.
        num_experts: K, the expected number of clusters.
        data: Of the run.

    Raises:
        UsageError: For a file that is missing, damaged, of other images or of another number of clusters.
    """
    clustering, made_for = Clustering.load(path)
    again = "make them again with predict and WriteClusters"
    if len(clustering.sizes) != num_experts:
        raise UsageError(
            f"found {num_experts} experts and {len(clustering.sizes)} clusters in {path}; expected an expert for each "
            f"cluster: give --model.experts as many, or {again}"
        )
    own = data.fingerprint_as(made_for.get("data"))
    reject_other_images(path, clustering, made_for, own, data.num_samples, again)
    return clustering


def reject_other_experts(
    experts: list[str], trained_on: list[str], clusters: str, labels: Int[Tensor, "N"], data: TrainingData
) -> None:
    """Reject an expert of another cluster. One of all images passes, and one of unknown images.

    Args:
        experts: Their checkpoints in the order of the clusters, for the error.
        trained_on: Fingerprint of the training images of each, empty where it is not known.
        clusters: The file of the labels, for the error.
        labels: The cluster of each image.
        data: Of the run.

    Raises:
        DataError: Names the expert, and its own cluster if it is one of these.
    """
    subsets = [data.training.select((labels == k).nonzero().flatten()) for k in range(len(experts))]
    for k, (expert, images) in enumerate(zip(experts, trained_on, strict=True)):
        if images in ("", data.fingerprint_as(images), subsets[k].fingerprint_as(images)):
            continue
        known = [subset.fingerprint_as(images) for subset in subsets]
        found = f"cluster {known.index(images)}" if images in known else f"other images {images[:12]}"
        raise DataError(
            f"found {expert} trained on {found} as expert {k} of --model.experts; expected cluster {k} of {clusters}: "
            f"give the experts in the order of their clusters, or train this one with --data.subset.path {clusters} "
            f"--data.subset.value {k}"
        )
