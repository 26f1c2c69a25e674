"""The experts of Divide and Contrast as a section of the page of their student: cluster, images and run of each."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ssl_lightning.report.metrics_file import STEP, read_table
from ssl_lightning.report.page import Section
from ssl_lightning.report.run_json import facts_of

KNN = "eval/knn/top1"
OF_THE_EXPERTS = (
    "Expert k was trained on the images of cluster k alone; its contact sheet is below. The student learns from it on "
    "these images. The number of images is that of the run of the expert. k-NN is its last evaluation, on the test "
    "images of all clusters; `ssl-lightning experts` evaluates each expert within its own cluster."
)
_EXPERT = re.compile(r"model\.init_args\.experts\.([0-9]{1,6})")


def experts_section(run: Path) -> Section | None:
    """One line for each expert, from the folders of the runs; None for a run without experts.

    Args:
        run: Folder of the run of the student.
    """
    inputs = facts_of(run).get("inputs")
    if not isinstance(inputs, Mapping):
        return None
    found = {int(match[1]): str(inputs[name]) for name in inputs if (match := _EXPERT.fullmatch(str(name)))}
    if not found:
        return None
    rows = [_row(cluster, Path(found[cluster])) for cluster in sorted(found)]
    head = ("cluster", "images", "steps", "k-NN 20, %", "run of the expert")
    return Section("Experts", table=[head, *rows], note=OF_THE_EXPERTS)


def subset_of(run: Path) -> str:
    """The subset of the images that a run has; empty for all of them.

    Args:
        run: Folder of the run.
    """
    inputs = facts_of(run).get("inputs")
    inputs = inputs if isinstance(inputs, Mapping) else {}
    subset = {name: inputs.get(f"data.init_args.subset.{name}") for name in ("path", "column", "value")}
    if subset["path"] is None:
        return ""
    rows = "images" if subset["value"] is None else f"{subset['column']} {subset['value']}"
    return f"{rows} of {subset['path']}"


def _row(cluster: int, checkpoint: Path) -> Sequence[str]:
    run = checkpoint.parent.parent
    table = run / "metrics.csv"
    if not table.is_file():
        return (str(cluster), "", "", "", f"{run} (not found)")
    rows, images = read_table(table)[1], facts_of(run).get("images")
    first = images[0] if isinstance(images, list) and images and isinstance(images[0], dict) else {}
    count = f"{first['found']:,}" if isinstance(first.get("found"), int) else ""
    steps = str(max((int(row[STEP]) for row in rows), default=0))
    knn = next((f"{100 * float(row[KNN]):.1f}" for row in reversed(rows) if row.get(KNN)), "")
    return (str(cluster), count, steps, knn, str(run))
