"""SubsetFile: which images of a manifest are kept, in which group, and why the others are not."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int64

from ssl_lightning.clustering.list_file import KEPT, write_list


@dataclass(frozen=True, eq=False)
class SubsetFile:
    """A row for each usable image of a manifest, in the order of their ids.

    Attributes:
        ids: Their ids.
        kept: Whether each is kept.
        groups: Group of duplicates or cluster of each.
        reasons: Why a row is not kept; empty for one that is.
    """

    ids: Int64[np.ndarray, "N"]
    kept: Bool[np.ndarray, "N"]
    groups: Int64[np.ndarray, "N"]
    reasons: list[str]

    def write(self, path: Path, fingerprint: str) -> None:
        """Write `sample_id`, `kept`, `group` and `reason`, with the fingerprint of the images."""
        columns = {
            "sample_id": pa.array(self.ids, pa.int64()),
            KEPT: pa.array(self.kept),
            "group": pa.array(self.groups, pa.int64()),
            "reason": pa.array(self.reasons, pa.string()),
        }
        write_list(path, columns, fingerprint)

    @property
    def copies(self) -> int:
        """Rows that are in a group with an earlier one."""
        return len(self.groups) - len(np.unique(self.groups))

    def counts(self) -> dict[str, int]:
        """Number of rows by reason, those that are kept aside."""
        counted = Counter(self.reasons)
        del counted[""]
        return dict(counted)
