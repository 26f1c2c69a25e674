"""Parts of the images, and who was trained on which: the files of stages 2 and 3 of Divide and Contrast, checked."""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Int
from torch import Tensor

from ssl_lightning.clustering.clusterer import Clustering, reject_other_images
from ssl_lightning.errors import DataError, UsageError


@runtime_checkable
class KnowsItsImages(Protocol):
    """What tells whether files of earlier stages are of the images of a run."""

    num_samples: int
    fingerprint: str

    def fingerprint_as(self, other: str | None) -> str:
        """The fingerprint to compare with one from a file, which may be from before content was read."""
        ...

    @property
    def training(self) -> Any:
        """The table of images: `select` gives some of its rows, with a `fingerprint` of their own."""
        ...


def read_parts(path: str, num_experts: int, images: KnowsItsImages) -> Clustering:
    """The second stage's clusters, if they are of these images and as many as the experts.

    Args:
        path: What `WriteClusters` wrote, `<path>.safetensors`.
        num_experts: K.
        images: Those of the run.

    Raises:
        ValueError: For a file that is missing, damaged, of other images or of another number of clusters.
    """
    clustering, made_for = Clustering.load(path)
    again = "make them again with predict and WriteClusters"
    if len(clustering.sizes) != num_experts:
        raise UsageError(
            f"found {num_experts} experts and {len(clustering.sizes)} clusters in {path}; expected an expert for each "
            f"cluster: give --model.experts as many, or {again}"
        )
    own = images.fingerprint_as(made_for.get("data"))
    reject_other_images(path, clustering, made_for, own, images.num_samples, again)
    return clustering


def reject_other_parts(
    experts: list[str], trained_on: list[str], clusters: str, labels: Int[Tensor, "N"], images: KnowsItsImages
) -> None:
    """Reject an expert of another part, where its checkpoint tells; one that was trained on all of them may be.

    Args:
        experts: Their checkpoints in the order of the clusters, for the error.
        trained_on: The fingerprint of the images of each, empty where it is not known.
        clusters: The file of the labels, for the error.
        labels: The cluster of each image.
        images: Those of the run.

    Raises:
        ValueError: Names the expert, and the cluster whose expert it is if it is one of these.
    """
    selected = [images.training.select((labels == k).nonzero().flatten()) for k in range(len(experts))]
    for k, (expert, seen) in enumerate(zip(experts, trained_on, strict=True)):
        if seen in ("", images.fingerprint_as(seen), selected[k].fingerprint_as(seen)):
            continue
        parts = [part.fingerprint_as(seen) for part in selected]
        found = f"cluster {parts.index(seen)}" if seen in parts else f"other images {seen[:12]}"
        raise DataError(
            f"found {expert} trained on {found} as expert {k} of --model.experts; expected cluster {k} of {clusters}: "
            f"give the experts in the order of their clusters, or train this one with --data.subset.path {clusters} "
            f"--data.subset.value {k}"
        )
