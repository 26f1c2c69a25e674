"""compare: results, settings, time and curves of several runs, side by side, from their folders alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ssl_lightning.errors import UsageError
from ssl_lightning.files import reject_unwritable, write_text
from ssl_lightning.progress import in_words
from ssl_lightning.report.curves import draw_comparison
from ssl_lightning.report.intervals import READ_AS as INTERVALS
from ssl_lightning.report.intervals import with_intervals
from ssl_lightning.report.page import Figure, Section, write_page
from ssl_lightning.report.single_file import single_file
from ssl_lightning.report.table import PRIMARY, of_pixels, percent_table, probe_set_prefixes
from ssl_lightning.runs.summary import MISSING, RunSummary, differing_inputs, named, summarize

LONGEST = 48
"""Characters of a setting in the table; longer ones are cut."""
SUFFIXES = (".html", ".htm")
CURVES = ("eval/knn/top1", "eval/linear/top1", "eval/ridge/top1", "train/loss", "cluster/nmi_labels")
"""Metrics with a panel of curves."""

BEST = "The best evaluation is chosen on the test images, so it is too high as an estimate: report the last one."


def main(runs: list[str], html: str | None = None) -> None:
    """Print the results of runs side by side, with the settings in which they differ, their time and machine.

    Args:
        runs: Folders of runs, such as runs/a runs/b.
        html: Folder for a page with the tables and curves, or a file such as comparison.html for all in one file.

    Raises:
        DataError: If one is no folder of a run.
        UsageError: For fewer than two.
    """
    if len(runs) < 2:
        raise UsageError(f"found {len(runs)} run; expected at least two folders to compare")
    summaries = named([summarize(path) for path in runs])
    sections = [
        *_evaluations(summaries),
        Section("Runs", _aligned(_facts(summaries))),
        Section("Settings that differ", _aligned(_differences(summaries)) or "none"),
    ]
    for section in sections:
        print(f"{section.title}\n{section.text}\n")
    if any("±" in section.text for section in sections):
        print(f"{INTERVALS}.\n")
    if html is not None:
        _write_page(Path(html), summaries, sections)


def _evaluations(runs: Mapping[str, RunSummary]) -> list[Section]:
    """For every probe set the first and last evaluation of each run, and the best of each metric."""
    last = {name: with_intervals(run.evaluations[-1][1]) for name, run in runs.items() if run.evaluations}
    prefixes = sorted({prefix for numbers in last.values() for prefix in probe_set_prefixes(numbers)})
    sections = []
    for prefix in prefixes:
        rows: dict[str, Mapping[str, float]] = {}
        for name, run in runs.items():
            step, found = run.evaluations[0] if run.evaluations else (1, {})
            numbers = with_intervals(found)
            if pixels := _within(of_pixels(numbers), prefix):
                rows.setdefault("raw pixels", pixels)
            if step == 0 and len(run.evaluations) > 1:
                rows[f"{name}, step 0"] = _within(numbers, prefix)
        rows |= {f"{name}, step {runs[name].evaluations[-1][0]}": _within(last[name], prefix) for name in last}
        table = percent_table({name: numbers for name, numbers in rows.items() if numbers})
        note = f"{INTERVALS}." if "±" in table else ""
        sections.append(Section(f"Last evaluation on {prefix}, in percent", table, note=note))
        title = f"Best evaluation on {prefix}, in percent, and its step"
        sections.append(Section(title, _best(runs, prefix), note=BEST))
    return sections or [Section("Last evaluation", "nothing was evaluated")]


def _best(runs: Mapping[str, RunSummary], prefix: str) -> str:
    best = {name: numbers for name, run in runs.items() if (numbers := _within(run.best(), prefix))}
    columns = [metric for metric in PRIMARY if any(metric in numbers for numbers in best.values())]
    cells = [
        (name, *(_at_step(*numbers[metric]) if metric in numbers else "" for metric in columns))
        for name, numbers in best.items()
    ]
    return _aligned([("", *(PRIMARY[metric] for metric in columns)), *cells])


def _at_step(step: int, value: float) -> str:
    return f"{100 * value:.1f} at {step}"


def _within(numbers: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The metrics of a probe set, without its prefix."""
    return {name.removeprefix(f"{prefix}/"): value for name, value in numbers.items() if name.startswith(f"{prefix}/")}


def _facts(runs: Mapping[str, RunSummary]) -> list[tuple[str, ...]]:
    lines = [("", "state", "method", "epochs", "steps", "FLOPs", "time", "machine")]
    for name, run in runs.items():
        flops = [float(row["train/flops"]) for row in run.rows if row.get("train/flops")]
        cost = f"{flops[-1]:.3g}" if flops else ""
        time = "" if run.seconds is None else in_words(run.seconds)
        lines.append((name, run.state, run.method, str(run.epoch), f"{run.step:,}", cost, time, run.machine))
    return lines


def _differences(runs: Mapping[str, RunSummary]) -> list[tuple[str, ...]]:
    """A line for each setting that is not equal in all runs; one that a run does not have is a dash."""
    lines = [
        (place, *("-" if value is MISSING else _short(value) for value in values))
        for place, values in differing_inputs(list(runs.values())).items()
    ]
    return [("", *runs), *lines] if lines else []


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    """Lines with columns of equal width."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))] if lines else []
    padded = ("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(line.rstrip() for line in padded)


def _write_page(place: Path, runs: Mapping[str, RunSummary], sections: Sequence[Section]) -> None:
    """Write a folder, or one file for a name with the suffix of a page."""
    if place.suffix.lower() not in SUFFIXES:
        reject_unwritable(place / "index.html", "give --html")
        _fill(place, runs, sections)
        print(f"page: {place / 'index.html'}")
        return
    reject_unwritable(place, "give --html")
    with TemporaryDirectory() as folder:
        _fill(Path(folder), runs, sections)
        write_text(place, single_file(Path(folder) / "index.html"))
    print(f"page in one file: {place}")


def _fill(folder: Path, runs: Mapping[str, RunSummary], sections: Sequence[Section]) -> None:
    """Write a page with its images."""
    tables = {name: run.rows for name, run in runs.items()}
    if draw_comparison(tables, folder / "curves.png", CURVES):
        curves = Section("Curves", "", [Figure("curves.png", "from metrics.csv")])
        sections = [sections[0], curves, *sections[1:]]
    write_page(folder / "index.html", " and ".join(runs), sections)
