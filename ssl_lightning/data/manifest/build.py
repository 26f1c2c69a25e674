"""Building of a manifest: the plan of its parts, the parts that are left to make, and the merge."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_lightning.data.hashing import MISSING, OK, QUARANTINED
from ssl_lightning.data.manifest.mapped import mapped
from ssl_lightning.data.manifest.merge import ANNOTATIONS, Changes, merge
from ssl_lightning.data.manifest.parts import Built, Earlier, existing_part, last_member, part_path
from ssl_lightning.data.manifest.planned import Plan, parts_folder
from ssl_lightning.data.manifest.pool import carry_out
from ssl_lightning.data.manifest.schema import as_bytes
from ssl_lightning.data.manifest.units import Unit, described, plan
from ssl_lightning.data.options import SourceOptions
from ssl_lightning.engines import Engine, Job
from ssl_lightning.errors import DataError
from ssl_lightning.words import counted

_IN_WORDS = {"label": "a label", "metadata": "metadata"}


@dataclass
class BuildReport:
    """What a build did.

    Attributes:
        changes: Against the previous manifest; None if there was no merge.
        parts: Number of parts of the manifest.
        made: Number of parts that this build made.
        read: Files that were read.
        decoded: Files that were decoded.
        unopened: Files that could not be opened.
    """

    changes: Changes | None = None
    parts: int = 0
    made: int = 0
    read: int = 0
    decoded: int = 0
    unopened: int = 0


def build(
    sources: Sequence[str],
    out: Path,
    options: SourceOptions,
    workers: int,
    job: Job | None = None,
    engine: Engine | None = None,
) -> BuildReport:
    """Build a manifest, or continue a build that was interrupted.

    Args:
        sources: Folders, tar files and patterns of them.
        out: The manifest. Its parts are kept in a folder beside it.
        options: How files are chosen and decoded.
        workers: Number of processes.
        job: Make the parts of one job only, without a merge; None for all.
        engine: Makes the parts; None for processes of this machine.

    Raises:
        DataError: If a source is missing, or shards are damaged; the parts of the others are finished and kept.
        OSError: If the disk is full.
    """
    units, recorded = plan(sources, out, options)
    folder = parts_folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    earlier = _start(folder, units, {"options": described(options), "sources": recorded})
    chosen = units if job is None else job.share(units)
    work = [(unit, earlier.get(unit.name, [])) for unit in chosen if not part_path(folder, unit.name).exists()]
    finished, errors = carry_out(work, options, folder, workers, engine)
    report = _summed(len(units), finished)
    if errors:
        more = f"; {len(errors) - 1} more shards are damaged" if len(errors) > 1 else ""
        raise DataError(f"{errors[0]}{more}; the parts of the others are kept, and the manifest is unchanged")
    if job is None:
        report.changes = merge_parts(folder, out)
    return report


def merge_parts(folder: Path, out: Path) -> Changes:
    """Merge the parts of a folder to a manifest.

    Args:
        folder: Of the parts.
        out: The manifest.

    Raises:
        DataError: If there is no plan, or parts are missing.
    """
    planned = Plan.read(folder)
    if planned is None:
        raise DataError(f"found no parts in {folder}; expected those of `data build SOURCE... --part i/n`")
    paths = {name: existing_part(folder, name) for name in planned.parts}
    missing = [name for name, path in paths.items() if path is None]
    if missing:
        raise DataError(
            f"found {len(planned.parts) - len(missing)} of {len(planned.parts)} parts in {folder}; {len(missing)} are "
            f"missing, the first of {' '.join(planned.places[missing[0]]).strip()}: build them with --part i/n"
        )
    changes = merge([path for path in paths.values() if path is not None], out, planned.described)
    planned.sweep(folder)
    requested = planned.described["options"]
    changes.annotated = {name: changes.annotated.get(name, 0) for name in ANNOTATIONS if requested[name]}
    if changes.statuses.get(OK):
        mapped(out)  # now, so that training starts at once
    return changes


def _start(folder: Path, units: list[Unit], description: dict[str, Any]) -> dict[str, list[Earlier]]:
    """Write the plan, and return the parts of earlier builds of each unit's shard or folder."""
    before = Plan.read(folder)
    own = {unit.name: [unit.source, unit.shard] for unit in units}
    planned = Plan(description, list(own), dict(own))
    if before is not None and before.described["options"] == planned.described["options"]:
        planned.places = before.places | own
    planned.write(folder)
    usable = {
        name: place
        for name, place in planned.places.items()
        if name not in own or part_path(folder, name, finished=False).exists()
    }
    by_place: dict[tuple[str, str], list[Path]] = {}
    for name, place in usable.items():
        if (path := existing_part(folder, name)) is not None:
            by_place.setdefault((place[0], place[1]), []).append(path)
    return {
        unit.name: _spans(by_place[unit.source, unit.shard])
        for unit in units
        if (unit.source, unit.shard) in by_place and not part_path(folder, unit.name).exists()
    }


def _spans(paths: list[Path]) -> list[Earlier]:
    spans = [Earlier(str(path), as_bytes(last_member(path))) for path in paths]
    return sorted(spans, key=lambda span: span.last)


def _summed(parts: int, finished: dict[int, Built]) -> BuildReport:
    made = list(finished.values())
    return BuildReport(
        None,
        parts,
        len(made),
        sum(each.read for each in made),
        sum(each.decoded for each in made),
        sum(each.unopened for each in made),
    )


def in_words(report: BuildReport, out: Path) -> list[str]:
    """What a build did, in lines.

    Args:
        report: Of the build.
        out: The manifest.
    """
    lines = [
        f"{counted(report.parts, 'part')}, {report.made} made now: {counted(report.read, 'file')} read, "
        f"{report.decoded:,} decoded"
    ]
    if report.unopened:
        lines.append(f"{report.unopened:,} files could not be opened; the next build tries them again")
    changes = report.changes
    if changes is None:
        return lines
    usable = changes.statuses.get(OK, 0)
    lines.append(f"{out}: {changes.rows:,} rows, {usable:,} usable{_left_out(changes)}")
    names = ("new", "changed", "vanished", "renamed", "unchanged")
    lines.append(", ".join(f"{getattr(changes, name):,} {name}" for name in names))
    if changes.annotated:
        annotated = ", ".join(f"{count:,} with {_IN_WORDS[name]}" for name, count in changes.annotated.items())
        lines.append(f"{annotated}, of {changes.rows - changes.statuses.get(MISSING, 0):,} files")
    if changes.annotated.get("label") == 0:
        lines.append("no file has a label: give another --label if there are some")
    return lines


def _left_out(changes: Changes) -> str:
    counts = sorted((-count, status) for status, count in changes.statuses.items() if status != OK)
    return "".join(f", {-count:,} {status.removeprefix(QUARANTINED)}" for count, status in counts)
