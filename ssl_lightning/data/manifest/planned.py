"""The plan of a build: a file beside the parts that lists them in the order of the manifest's rows."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from ssl_lightning.data.manifest.parts import existing_part, part_path
from ssl_lightning.data.manifest.schema import VERSION
from ssl_lightning.errors import DataError
from ssl_lightning.files import sweep_temporary, write_text

_FILE = "plan.json"


@dataclass
class Plan:
    """The parts of a manifest in their order, and parts of earlier builds that may spare reading.

    Attributes:
        described: Options and sources of the build, as plain values.
        parts: Names of the parts.
        places: Source and shard of each part by its name, those of earlier builds too.
    """

    described: dict[str, Any]
    parts: list[str]
    places: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> "Plan | None":
        """The plan of a folder of parts; None if there is none, or one of another version.

        Raises:
            DataError: If it is damaged.
        """
        try:
            found = json.loads((folder / _FILE).read_text())
            return cls(found["described"], found["parts"], found["places"]) if found["version"] == VERSION else None
        except FileNotFoundError:
            return None
        except (ValueError, LookupError, TypeError) as error:
            raise DataError(f"found {folder / _FILE} damaged; remove the folder and build again") from error

    def write(self, folder: Path) -> None:
        """Write the plan atomically."""
        content = {"version": VERSION, "described": self.described, "parts": self.parts, "places": self.places}
        write_text(folder / _FILE, json.dumps(content))

    def sweep(self, folder: Path) -> None:
        """Remove the parts of earlier builds, which the manifest does not consist of."""
        sweep_temporary(folder)
        for name in self.places.keys() - set(self.parts):
            for finished in (True, False):
                part_path(folder, name, finished).unlink(missing_ok=True)
        self.places = {name: self.places[name] for name in self.parts}
        self.write(folder)


def parts_folder(out: Path) -> Path:
    """The folder of the parts of a manifest, beside it. Later builds read in it what has not changed."""
    return out.with_name(f"{out.name}.parts")


class TimesOfChange:
    """Times of change of the files of a manifest, from its parts, as far as these exist.

    Args:
        manifest: The manifest.
    """

    def __init__(self, manifest: Path) -> None:
        self._folder = parts_folder(manifest)
        plan = Plan.read(self._folder)
        self._parts: dict[tuple[str, str], list[str]] = {}
        places = {name: plan.places[name] for name in plan.parts} if plan is not None else {}
        for name, (source, shard) in places.items():
            self._parts.setdefault((source, shard), []).append(name)

    def of(self, source: str, shard: str) -> dict[str, int]:
        """The time of change of each member in nanoseconds; of a shard, all are those of its file."""
        found: dict[str, int] = {}
        for name in self._parts.get((source, shard), ()):
            path = existing_part(self._folder, name)
            try:
                table = parquet.read_table(path, columns=["member", "changed_ns"]) if path is not None else None
            except (pa.ArrowException, OSError):
                table = None
            if table is not None:
                found.update(zip(table["member"].to_pylist(), table["changed_ns"].to_pylist(), strict=True))
        return found
