"""Runs of every method and stage: uninterrupted ones to compare with, and how an interrupted one may differ: not."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.runs.conftest import DEMO, OPTIONS, Runs, differences
from tests.runs.test_methods_resume import (
    INTERVALS,
    METHODS,
    SMALL,
    classes_to_learn,
    clusters_to_fit,
    edge,
    files_to_distill,
)

from .faults import Fault
from .forks import LIMIT, Done, Forks, Reaction

FITS = {name: options for name, (options, _) in METHODS.items()}
FITS |= {
    "deepcluster": DEMO,
    "divide_contrast_base": ("--config", "configs/divide_contrast/1_base.yaml", *SMALL),
    "divide_contrast_expert": ("--config", "configs/divide_contrast/3_expert.yaml", *SMALL),
}
"""Every method and every stage that trains."""
METHODS = sorted(FITS)
_IN_FILES = (
    *("--config", "configs/swav.yaml", "--config", "configs/data/folder.yaml"),
    *("--model.hidden", "[24]", "--model.projection", "12", "--model.num_prototypes", "20"),
    *("--data.image_size", "16", "--data.num_workers", "2"),
)
OTHERS = {
    "in_files": _IN_FILES,
    "hostile_files": _IN_FILES,
    "pair": (*DEMO, *("--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu")),
}
"""Runs that read images in worker processes, and one on two processes."""
CLUSTERING = ("deepcluster", "deepcluster_v2", "local_aggregation", "predict")
"""What has a phase of clustering."""
FILES = {"distill": files_to_distill, "clusterfit": clusters_to_fit, "soft_distillation": classes_to_learn}
"""How to make the files of earlier stages."""


class Bench(Runs):
    """Starts runs in one folder, as `tests/runs/conftest.py` does, but as children of this process.

    Args:
        folder: For all runs, and for the files of earlier stages.
        forks: Starts the children.
    """

    def __init__(self, folder: Path, forks: Forks) -> None:
        super().__init__(folder)
        self.forks = forks

    def start(
        self,
        name: str,
        method: str,
        fault: Fault | None = None,
        faulty: str = "none",
        reactions: Sequence[Reaction] = (),
        extra: Sequence[str] = (),
        limit: float = LIMIT,
    ) -> Done:
        """One command of a run."""
        environment = {"FAULTY_LOSSES": str(self.folder / f"{name}.txt"), "TMPDIR": "/dev/shm"}
        arguments = self._predict(name) if method == "predict" else self._fit(name, method)
        arguments = [*arguments, *extra]
        if method == "pair":
            both = self.forks.pair(arguments, environment, fault, reactions, limit)
            return next((done for done in both if done.is_hung), both[0])
        return self.forks.command(arguments, environment, fault, faulty, reactions, limit=limit)

    def _fit(self, name: str, method: str) -> list[str]:
        where = ("--run.dir", str(self.folder), "--run.name", name)
        return ["fit", *self._options(method), *OPTIONS, *INTERVALS.get(method, ()), *where]

    def _predict(self, name: str) -> list[str]:
        options = ["predict", "--config", "configs/clusters.yaml", "--model", "RawPixels"]
        options += [
            "--trainer.callbacks.path",
            str(self.folder / f"{name}-stage"),
            "--trainer.callbacks.num_clusters",
            "12",
        ]
        options += ["--trainer.enable_progress_bar", "false"]
        return [*options, "--run.dir", str(self.folder), "--run.name", name]

    def _options(self, method: str) -> tuple[str, ...]:
        """The method's options, with the files of earlier stages, which are made when they are first needed."""
        if method == "divide_contrast_expert":
            file = self._made(method, lambda folder: (edge(folder, 2),))[0]
            return (*FITS[method], "--data.subset.path", file, "--data.subset.value", "1")
        options = FITS[method] if method in FITS else OTHERS[method]
        return (*options, *(self._made(method, FILES[method]) if method in FILES else ()))

    def _made(self, method: str, make) -> tuple[str, ...]:
        folder = self.folder / "files" / method
        known = folder / "options.txt"
        if not known.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            options, _ = self.forks.call(lambda: list(make(folder)))  # torch computes in the child
            known.write_text("\n".join(options))
        return tuple(known.read_text().splitlines())

    def whole(self, method: str, extra: Sequence[str] = ()) -> str:
        """The name of a run that nothing interrupted."""
        name = f"whole-{method}"
        if not (self.folder / f"{name}.ok").exists():
            self.forget(name)
            done = self.start(name, method, extra=extra)
            if done.code:
                raise RuntimeError(f"the uninterrupted run of {method} ended with {done.code}:\n{done.output[-2000:]}")
            (self.folder / f"{name}.ok").touch()
        return name

    def differs(self, name: str, method: str, apart_from: tuple[str, ...] = ()) -> list[str]:
        """How a finished run differs from the uninterrupted one, in the first places.

        Args:
            name: Of the run.
            method: What it trains.
            apart_from: Beginnings of names in the checkpoint that need not be equal.
        """
        whole = self.whole(method)
        if method == "predict":
            stages = [(self.folder / f"{run}-stage.safetensors").read_bytes() for run in (name, whole)]
            return [] if stages[0] == stages[1] else ["stage files differ"]
        problems = []
        if not (self.folder / name / "done.json").exists():
            problems.append("no done.json")
        steps, expected = self.steps(name), self.steps(whole)
        if steps != expected:
            wrong = [step for step in expected.keys() | steps.keys() if steps.get(step) != expected.get(step)]
            problems.append(f"losses or rows differ at steps {sorted(map(int, wrong))[:5]}")
        try:
            saved = self.checkpoint(name)
        except Exception as error:
            problems.append(f"last.ckpt does not load: {' '.join(str(error).split())[:150]}")
        else:
            changed = differences(saved, self.checkpoint(whole))
            problems += [line for line in changed if not line.startswith(apart_from)][:3]
        if self.rows(name) != self.rows(whole):
            problems.append("rows of metrics.csv differ")
        return problems

    def leftovers(self, name: str) -> list[str]:
        """Temporary files and locks that are still there."""
        folder = self.folder / name
        found = [path.name for path in folder.rglob("*") if ".tmp" in path.name or "LOCK" in path.name]
        found += [path.name for path in self.folder.glob(f".{name}-stage*tmp*")]
        return [f"left behind: {', '.join(found)}"] if found else []

    def trained(self, name: str) -> int:
        """The last step that a run has noted a loss of; 0 for none."""
        file = self.folder / f"{name}.txt"
        lines = file.read_text().splitlines() if file.exists() else []
        return int(lines[-1].split()[0]) if lines else 0

    def forget(self, name: str) -> None:
        """Remove all of a run."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        for path in [*self.folder.glob(f"{name}.*"), *self.folder.glob(f"*{name}-stage*")]:
            path.unlink()


def complaint(done: Done, codes: Sequence[int]) -> list[str]:
    """What is wrong with the end of a command that was to end with one of some codes, in one line if not with 0."""
    if done.is_hung:
        return [f"hung for {done.seconds:.0f} s"]
    problems = [] if done.code in codes else [f"exit code {done.code}, expected {' or '.join(map(str, codes))}"]
    if "Traceback" in done.output:
        problems.append("a traceback: " + done.output.strip().splitlines()[-1][:200])
    elif done.code not in codes:
        problems.append((done.output.strip().splitlines() or ["no output"])[-1][:200])
    return problems
