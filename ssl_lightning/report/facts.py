"""Facts about a run for its page: command, length, machine, time by phase, results, and next commands."""

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ssl_lightning.report.experts import subset_of
from ssl_lightning.report.intervals import READ_AS as INTERVALS
from ssl_lightning.report.metrics_file import EPOCH, STEP, read_table
from ssl_lightning.report.page import Section
from ssl_lightning.report.run_json import RECIPE, facts_of, sessions_of
from ssl_lightning.report.verdict import failing, not_better
from ssl_lightning.words import counted

LAST = "last.ckpt"
"""The link to the newest checkpoint."""
READ_AS = {
    "linear": "logistic regression on frozen features",
    "ridge": "ridge regression on frozen features",
    "k-NN": "the classes of the nearest training images by cosine similarity vote",
    "5-way": "the class among five, of which one or five labeled images are known",
    "% labels": "logistic regression with this share of the labels",
    "NMI": "agreement of k-means clusters with the classes",
}
"""Beginnings of headings of the table of results, and how to read the numbers."""
OF_THE_RUN = "The command of the last session: given again, it resumes the run, or reports that the run has finished."
OF_THE_ASSESSMENT = (
    "Warnings name metrics in which the trained network is below its initial weights or below raw pixels. Training "
    "diagnostics are known failures, such as a collapse, that held at the last step."
)
OF_THE_CURVES = (
    "Evaluated metrics rise while the network learns. The loss of a method that learns from clusters jumps at each "
    "clustering, which replaces the labels: compare it within an epoch alone."
)
OF_THE_CLUSTERS = (
    "Clusters follow the classes as far as nmi_labels is above nmi_chance. They settle where nmi_previous rises and "
    "reassigned falls. Empty clusters, and an imbalance far above 1, are signs of a collapse."
)
LONGEST = 120
"""Characters of a value in the table of settings; longer ones are cut."""
PHASES = {
    "loading": "train/loading_seconds",
    "steps": "train/seconds",
    "clustering": "cluster/seconds",
    "evaluation": "eval/seconds",
}
"""Parts of the time of a run, and the metrics that hold their seconds; those of the steps contain loading."""
OF_THE_TIME = (
    "Loading is the time in which the first process waits for training images: where it is long, raise "
    "data.num_workers. Steps contain the random views. The rest is start, checkpoints, this page, and steps that an "
    "interruption lost."
)


def run_section(run: Path) -> Section:
    """What was trained by which command, when, for how long and on which machine.

    Args:
        run: Folder of the run.
    """
    facts = facts_of(run)
    sessions = sessions_of(facts)
    last = sessions[-1] if sessions else {}
    rows = read_table(run / "metrics.csv")[1] if (run / "metrics.csv").is_file() else []
    found = last.get("machine")
    machine = found if isinstance(found, dict) else {}
    versions = [f"{name} {machine[name]}" for name in ("ssl_lightning", "torch", "python") if name in machine]
    lines = {
        "command": last.get("command"),
        "method": str((facts.get("inputs") or {}).get("model.class_path") or "").rpartition(".")[2],
        "images": _images(facts.get("images")),
        "subset": subset_of(run),
        "seed": (facts.get("inputs") or {}).get("seed_everything"),
        "length": _length(rows, run / "checkpoints"),
        "started": sessions[0].get("started") if sessions else None,
        "sessions": str(len(sessions)) if len(sessions) > 1 else None,
        "machine": _machine(machine),
        "versions": ", ".join(versions),
        "checkpoint": str(run / "checkpoints" / LAST),
    }
    table = [(name, str(value)) for name, value in lines.items() if value not in (None, "")]
    return Section("Run", table=[("", ""), *table], note=OF_THE_RUN if last.get("command") else "")


def time_section(run: Path) -> Section | None:
    """Wall time by phase; None where it is unknown.

    Args:
        run: Folder of the run.
    """
    spans = [_span(each) for each in sessions_of(facts_of(run))]
    if not spans or not (run / "metrics.csv").is_file():
        return None
    rows, whole = read_table(run / "metrics.csv")[1], sum(spans)
    parts = {phase: sum(float(row[name]) for row in rows if row.get(name)) for phase, name in PHASES.items()}
    parts["steps"] = max(parts["steps"] - parts["loading"], 0.0)
    is_divided = parts["steps"] > 0
    parts = {phase: seconds for phase, seconds in parts.items() if seconds > 0}
    parts["the rest" if is_divided else "training and the rest"] = max(whole - sum(parts.values()), 0.0)
    shown = [(phase, f"{seconds:.0f}", f"{seconds / max(whole, 1e-9):.0%}") for phase, seconds in parts.items()]
    table = [("phase", "seconds", "share"), *shown, ("all", f"{whole:.0f}", "100%")]
    return Section("Time", table=table, note=OF_THE_TIME if is_divided else "")


def verdict_section(run: Path) -> Section:
    """Whether training helped, and which known failures last.

    Args:
        run: Folder of the run.
    """
    found = failing(run)
    diagnostics = f"Training diagnostics: {', '.join(found)}." if found else "Training diagnostics: no failure."
    warnings = [f"Warning: {line}." for line in not_better(run)]
    return Section("Assessment", note=OF_THE_ASSESSMENT, table=[("",), *((line,) for line in [*warnings, diagnostics])])


def reading(text: str) -> str:
    """How to read the columns of a table of results, in one paragraph."""
    known = [f"{name}: {meaning}" for name, meaning in READ_AS.items() if name in text]
    intervals = f" {INTERVALS}." if "±" in text else ""
    return f"Accuracy on test images that training never used. {'; '.join(known)}.{intervals}" if known else ""


def next_section(run: Path) -> Section:
    """Commands that use the result.

    Args:
        run: Folder of the run.
    """
    checkpoint = run / "checkpoints" / "last.ckpt"
    lines = [
        f"ssl-lightning validate --config eval --ckpt_path {checkpoint}",
        f"ssl-lightning embed {checkpoint} {run}-features.safetensors",
        f"ssl-lightning predict --config clusters --ckpt_path {checkpoint}",
        f"ssl-lightning compare {run} OTHER_RUN",
    ]
    return Section("Next commands", "\n".join(lines))


def recipe_section(run: Path) -> Section | None:
    """Settings that differ from the packaged configurations of the run; None where they are unknown.

    Args:
        run: Folder of the run.
    """
    recipe = facts_of(run).get(RECIPE)
    names, changed = (recipe.get("of"), recipe.get("changed")) if isinstance(recipe, dict) else (None, None)
    if not isinstance(names, list) or not isinstance(changed, list):
        return None
    note = (
        f"What the command line or further files set otherwise than {' and '.join(map(str, names))}. Settings that "
        "change no result, such as the device, are left out; (none) is null, or a setting that does not exist there."
    )
    rows = [tuple(map(_setting, row)) for row in changed if isinstance(row, list) and len(row) == 3]
    head = ("setting", "recipe", "this run")
    return Section(
        "Settings that differ from the recipe", "" if rows else "none", table=[head, *rows] if rows else (), note=note
    )


def settings_section(run: Path) -> Section | None:
    """The complete configuration, folded; None without one.

    Args:
        run: Folder of the run.
    """
    try:
        text = (run / "config.yaml").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return Section("All settings", text, is_folded=True)


def _images(reports: Any) -> str:
    """Number and place of the images of each source."""
    known = [each for each in reports if isinstance(each, dict)] if isinstance(reports, list) else []
    return "; ".join(f"{each['found']:,} in {each.get('path')}" for each in known if isinstance(each.get("found"), int))


def _length(rows: Sequence[Mapping[str, str]], checkpoints: Path) -> str:
    """Epochs and steps by the metrics, and by the last checkpoint: a short run logs no row of its last step."""
    last = re.fullmatch(r"step-(\d+)\.ckpt", (checkpoints / LAST).resolve().name)
    steps = max([int(row[STEP]) for row in rows] + [int(last[1]) if last else 0])
    epochs = next((float(row[EPOCH]) for row in reversed(rows) if row.get(EPOCH)), 0.0)
    parts = [counted(number, noun) for number, noun in ((epochs, "epoch"), (steps, "step")) if number]
    return ", ".join(parts)


def _setting(value: Any) -> str:
    text = "(none)" if value is None else str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _machine(found: Mapping[str, Any]) -> str:
    devices = found.get("devices")
    processor = f"{found.get('cores')} cores of {found.get('processor')}" if found else ""
    return f"{len(devices)} x {devices[0]}, {processor}" if isinstance(devices, list) and devices else processor


def _span(session: Mapping[str, Any]) -> float:
    """Seconds of a session; one without an end lasts until now."""
    try:
        started = datetime.fromisoformat(str(session.get("started")))
        ended = datetime.fromisoformat(str(session["ended"])) if "ended" in session else datetime.now(UTC)
        seconds = (ended - started).total_seconds()
    except (TypeError, ValueError):
        return 0.0
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0
