"""CuratedImages: labeled images in class folders, in a folder, a tar file, or a folder of torchvision's downloads."""

from dataclasses import dataclass
from pathlib import Path

from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.data.module import ImageModule, Probes
from ssl_lightning.data.packs import open_labelled, splits
from ssl_lightning.types import UNLABELLED


@dataclass(kw_only=True, eq=False)
class CuratedImages(ImageModule):
    """Images with the layout `split/class/file`, in a folder or a tar file (plain, or compressed and small).

    The folders `cifar-10-batches-py`, `cifar-100-python` and `stl10_binary` of torchvision's downloads are read too.

    Args:
        path: The folder or tar file: a name in the folder of the environment variable SSL_LIGHTNING_DATA, or a path
            such as `./images`.
        split: The split for training; null if the class folders are directly in `path`.
        test_split: The split for evaluation unless `probe_sets` is given; ignored if it does not exist.
    """

    path: str
    split: str | None = "train"
    test_split: str = "test"

    def open_training(self) -> ImageDataset:
        """The training split."""
        return open_labelled(self.path, self.split, self.limits)

    def default_probe_sets(self) -> Probes:
        """The training split and the test split, if it exists and every image has a label."""
        if self.split is None or self.test_split not in splits(self.path):
            return {}
        train = self.open_training()
        if bool((train.labels == UNLABELLED).any()):
            return {}
        name = Path(self.path).name.split(".")[0]
        return {name: (train, open_labelled(self.path, self.test_split, self.limits))}
