"""The usable images of a manifest as a dataset for training."""

import hashlib
import os
from pathlib import Path

import torch

from ssl_lightning.clustering.feature_file import FeatureFile
from ssl_lightning.data.dataset import PackedNames
from ssl_lightning.data.fingerprint import BY_CONTENT
from ssl_lightning.data.manifest.labels import labels_of
from ssl_lightning.data.manifest.mapped import MappedManifest, mapped
from ssl_lightning.data.manifest.places import container_of
from ssl_lightning.data.options import SourceOptions
from ssl_lightning.data.sources.byte_table import ByteTable
from ssl_lightning.data.sources.container import forget_containers
from ssl_lightning.data.sources.paths import divided
from ssl_lightning.data.sources.selection import DEFAULT_SELECTION
from ssl_lightning.data.stored import StoredImages
from ssl_lightning.errors import DataError, UsageError
from ssl_lightning.types import UNLABELLED


class ManifestImages(StoredImages):
    """The images of status `ok` in the order of their ids, decoded when they are read.

    Columns are mapped from files, so that ranks and workers share them and none is copied.

    Args:
        manifest: The file, or a folder of them.
        options: How images are decoded; files are chosen when the manifest is built.

    Raises:
        DataError: If the manifest is damaged, or a shard is missing, shorter or replaced.
        UsageError: For patterns of file names, or a label that a manifest does not have.
    """

    def __init__(self, manifest: Path, options: SourceOptions) -> None:
        if options.selection != DEFAULT_SELECTION:
            raise UsageError(
                f"found data.include or data.exclude with the manifest {manifest}; expected them at "
                "`ssl-lightning data build`, which chooses the files"
            )
        forget_containers()
        rows = mapped(manifest)
        arrays = rows.arrays
        containers = [container_of(source, shard, manifest.parent) for source, shard, _ in rows.containers]
        names = PackedNames.of(arrays["names"], arrays["ends"])
        table = ByteTable(
            containers, arrays["container"], names, arrays["offsets"], arrays["sizes"], skipped=rows.left_out
        )
        labels, classes = torch.tensor(UNLABELLED).expand(len(table)), []  # one value for all rows takes no memory
        if options.label is not None:
            found, classes = labels_of(manifest, options.label, arrays["ids"])
            labels = torch.from_numpy(found)
        super().__init__(table, labels, classes, torch.from_numpy(arrays["ids"]), options)
        self.title = str(manifest)
        self._fingerprint_of_rows = rows.fingerprint
        _check_lengths(manifest, containers, rows)
        _check_content(manifest, table, rows)

    def reject_other_features(self, features: FeatureFile) -> None:
        """Reject features of other images, or of another state of the manifest.

        Raises:
            DataError: With the fingerprints of both.
        """
        made_for = features.metadata.get("data")
        if made_for != self.fingerprint_as(made_for):
            raise DataError(
                f"found features of other images {str(made_for)[:12]}; expected those of the manifest "
                f"{self.fingerprint[:12]}: embed them again"
            )

    def notes(self) -> list[str]:
        """None: building the manifest examines the files."""
        return []

    def make_fingerprint(self) -> str:
        """The fingerprint of the manifest, which covers ids and content."""
        return BY_CONTENT + self._fingerprint_of_rows

    def make_fingerprint_by_names(self) -> str:
        """The same."""
        return self.fingerprint


def _check_lengths(manifest: Path, containers: list[str], rows: MappedManifest) -> None:
    for path, (_, shard, end) in zip(containers, rows.containers, strict=True):
        if shard and path.endswith(".tar") and os.path.getsize(divided(path)[0]) < end:
            raise DataError(
                f"found {path} shorter than {manifest} has it ({os.path.getsize(path)} bytes, {end} are read); "
                "restore it, or build the manifest again"
            )


def _check_content(manifest: Path, table: ByteTable, rows: MappedManifest) -> None:
    """Compare some evenly spaced images; `data check --full` compares all."""
    changed = [row for row, digest in rows.compared if _digest(table, row) != digest]
    if changed:
        raise DataError(
            f"found {len(changed)} of {len(rows.compared)} examined images of {manifest} missing or changed, the first "
            f"being {table.name(changed[0])}; see `ssl-lightning data check`, and build the manifest again"
        )


def _digest(table: ByteTable, row: int) -> str:
    try:
        return hashlib.sha256(table.read(row)).hexdigest()
    except OSError:
        return ""
