"""The two files of a clustering: tensors for the next stage, and a table for people."""

import logging
from pathlib import Path

from ssl_lightning.clustering.clusterer import Clustering
from ssl_lightning.clustering.list_file import write_list
from ssl_lightning.contracts import TrainingData

log = logging.getLogger(__name__)


def write_cluster_files(path: Path, clustering: Clustering, data: TrainingData, metadata: dict[str, str]) -> None:
    """Write `<path>.safetensors` and `<path>.parquet`; the first is written last, so it exists only when both do.

    Args:
        path: Path of the files without their suffix. Its folder is created.
        clustering: Labels of all images, -1 for an image without a cluster.
        data: The images.
        metadata: Of the first file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_table(path.with_name(f"{path.name}.parquet"), clustering, data)
    clustering.save(path.with_name(f"{path.name}.safetensors"), metadata)


def _as_text(name: str) -> str:
    """A name in UTF-8: bytes that are no text, which Python keeps as lone surrogates, are escaped."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _write_table(path: Path, clustering: Clustering, data: TrainingData) -> None:
    try:
        import pyarrow as pa  # optional: no stage reads this table
    except ImportError:
        log.warning("found no pyarrow: %s is not written; the next stage does not need it", path)
        return
    columns = {
        "row": pa.array(range(len(clustering.labels)), pa.int64()),
        "sample_id": pa.array(data.training.sample_ids.numpy(), pa.int64()),
        "path": pa.array([_as_text(name) for name in data.training.names], pa.string()),
        "cluster": pa.array(clustering.labels.numpy(), pa.int64()),
        "distance": pa.array(clustering.distances.float().numpy(), pa.float32()),
    }
    write_list(path, columns, data.fingerprint)
