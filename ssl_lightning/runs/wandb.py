"""WandbRun: Weights & Biases as an external logger that never stops or delays a run."""

import json
import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from safetensors.torch import save_file

from ssl_lightning.runs.background import Background
from ssl_lightning.runs.best_checkpoint import BestCheckpoint
from ssl_lightning.runs.external_logger import ExternalLogger, RunIdentity
from ssl_lightning.runs.last_rows import last_rows
from ssl_lightning.runs.row_numbers import RowNumbers
from ssl_lightning.runs.wandb_service import end_service, forget_attempt, trial_of_sweep

log = logging.getLogger(__name__)
LOCAL_TIMEOUT = 60.0
"""Seconds for wandb's service process to start, which needs no network."""
START_WAIT = 30.0
"""Seconds after which a run no longer waits for the start of its Weights & Biases run."""
FINISH_TIMEOUT = 30.0
"""Seconds to wait at the end for remaining uploads."""
STEP = "trainer/global_step"
"""The step of a row: a value, so that rows that are repeated after a resume are not dropped."""


class WandbRun(ExternalLogger):
    """Log rows to Weights & Biases, offline by default; `metrics.csv` is written in any case.

    All calls of the client are made in another thread. Any failure (missing package or key, no network, full disk) is
    one warning; the run is then logged offline or not at all, and training continues.
    `wandb sync runs/*/wandb/offline-run-*` uploads later.

    Args:
        mode: "offline" needs neither account nor network; "online" falls back to it; "auto" is online if there is a
            key, or in a trial of `wandb agent`.
        project: Project of the run.
        entity: User or team; null for the default of the account.
        group: Name of the experiment. null for the name of the run without its seed or stage, so that seeds and stages
            of one experiment are a group.
        job_type: Role in the group; null for the stage or the method.
        tags: Labels to filter by.
        notes: A description.
        timeout: Seconds to wait for a connection at the start.
        artifacts: Log the last checkpoint (`checkpoint-<run>:last`), the best one by the primary evaluated metric
            (`:best`), the backbone alone (`backbone-<run>`) and the assignments (`assignments-<run>`) of a finished run
            as artifacts; offline they are kept in the folder of the run.
    """

    def __init__(
        self,
        mode: Literal["offline", "online", "auto"] = "offline",
        project: str = "ssl_lightning",
        entity: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        tags: list[str] | None = None,
        notes: str | None = None,
        timeout: float = 20.0,
        artifacts: bool = True,
    ) -> None:
        super().__init__()
        self.mode, self.project, self.entity, self.timeout, self.artifacts = mode, project, entity, timeout, artifacts
        self.group, self.job_type, self.tags, self.notes = group, job_type, tags, notes
        self.identity: RunIdentity | None = None
        self._best: BestCheckpoint | None = None
        self._rows: RowNumbers | None = None
        self._background: Background | None = None
        self._run: Any = None
        self._broken = False
        self._variables: list[str] = []
        """Environment variables that this object has set."""

    @property
    def name(self) -> str:
        """The project."""
        return self.project

    @property
    def version(self) -> str | None:
        """The id, which a resumed run keeps."""
        return self.identity.id if self.identity else None

    @property
    def folder(self) -> Path:
        """`<run>/wandb`, where all files are."""
        return (self.identity.folder if self.identity else Path()) / "wandb"

    @rank_zero_only
    def settle(self, identity: RunIdentity) -> None:
        """Set folder, name and id of the run, before training."""
        self.identity = identity
        self._rows = RowNumbers(self.folder / "rows")
        if self.artifacts:
            self._best = BestCheckpoint(identity.folder, self.folder / "best")

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Log a row."""
        if self._best is not None:
            self._best.update(metrics, step)
        self._send(lambda run: self._log(run, {**metrics, STEP: step}))

    @rank_zero_only
    def resume_after(self, step: int) -> None:
        """Log the last rows of metrics.csv before a step again, after a kill: the client loses what it has not written.

        The client writes blocks of 32 KB. A point that is logged twice is the same point of the curve.
        """
        if self._rows is None or not self._rows.was_killed:
            return
        for at, metrics in last_rows(self.folder.parent / "metrics.csv", step):
            self._send(lambda run, row={**metrics, STEP: at}: self._log(run, row))

    @rank_zero_only
    def log_config(self, config: dict[str, Any]) -> None:
        """Log the configuration."""
        self._send(lambda run: run.config.update(config, allow_val_change=True), "the configuration")

    @rank_zero_only
    def use_artifacts(self, references: Sequence[str]) -> None:
        """Record the artifacts that the run takes as input, which needs a connection."""
        for reference in references:
            self._send(
                lambda run, name=reference: None if run.offline else run.use_artifact(name), f"the use of {reference}"
            )

    @rank_zero_only
    def log_summary(self, values: dict[str, float]) -> None:
        """Log values of the whole run."""
        self._send(lambda run: run.summary.update(values), "the summary")

    @rank_zero_only
    def log_image(self, key: str, path: Path) -> None:
        """Log an image of the report."""

        def send(run: Any) -> None:
            import wandb

            self._log(run, {key: wandb.Image(str(path))})

        self._send(send, f"the image {key}")

    @rank_zero_only
    def log_table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Log a table; a cell that is a path is an image file."""

        def send(run: Any) -> None:
            import wandb

            def cell(value: Any) -> Any:
                return wandb.Image(str(value)) if isinstance(value, Path) else value

            data: list[Any] = [[cell(value) for value in row] for row in rows]
            self._log(run, {key: wandb.Table(columns=list(columns), data=data, allow_mixed_types=True)})

        self._send(send, f"the table {key}")

    @rank_zero_only
    def log_files(
        self, kind: str, files: Sequence[Path], facts: dict[str, Any], aliases: Sequence[str] = ("last",)
    ) -> None:
        """Log files as the newest version of the artifact `<kind>-<run>`.

        Args:
            kind: "checkpoint", "backbone" or "assignments". The best checkpoint is logged before the last one.
            files: The files, which are not moved or changed later.
            facts: Metadata, as plain values.
            aliases: Names of this version.
        """
        best = self._best.files if kind == "checkpoint" and self._best is not None else []
        if best and best[0].name != files[0].name:
            self._log_artifact(kind, best, facts | {"step": self._best.step if self._best else None}, ["best"])
        elif best:
            aliases = [*aliases, "best"]
        self._log_artifact(kind, files, facts, aliases)

    def _log_artifact(self, kind: str, files: Sequence[Path], facts: dict[str, Any], aliases: Sequence[str]) -> None:
        name = f"{kind}-{self.identity.name if self.identity else self.project}"

        def send(run: Any) -> None:
            import wandb

            artifact = wandb.Artifact(name, type=kind, metadata=facts)
            for file in files:
                artifact.add_file(
                    str(file.absolute()), policy="immutable"
                )  # without a copy, since the files no longer change
            run.log_artifact(artifact, aliases=list(aliases))

        if self.artifacts:
            self._send(send, f"the artifact {name}")

    @rank_zero_only
    def log_array(self, kind: str, array: np.ndarray, facts: dict[str, Any]) -> None:
        """Log an array as `<kind>.npy`, like `log_files`."""
        file = self.folder / f"{kind}.npy"

        def write(_: Any) -> None:
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, array)

        if self.artifacts:
            self._send(write, f"the file {file.name}")
            self.log_files(kind, [file], facts)

    @rank_zero_only
    def log_tensors(self, kind: str, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        """Log tensors as `<kind>.safetensors`, like `log_files`; the file has the facts as JSON in its metadata."""
        file = self.folder / f"{kind}.safetensors"

        def write(_: Any) -> None:
            file.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, file, {"facts": json.dumps(facts)})

        if self.artifacts:
            self._send(write, f"the file {file.name}")
            self.log_files(kind, [file], facts)

    @rank_zero_only
    def alert(self, title: str, text: str) -> None:
        """Notify people of a failure, once for each title and run, also after resumes."""

        def send(run: Any) -> None:
            known = self.folder / "alerts"
            if known.is_file() and title in known.read_text().splitlines():
                return
            run.alert(title=f"{title} in {self.identity.name}" if self.identity else title, text=text, level="WARN")
            with known.open("a") as file:
                file.write(f"{title}\n")

        self._send(send, "an alert")

    def close(self, succeeded: bool) -> None:
        """End the run; without a network, wandb would wait indefinitely."""
        if self._background is not None:
            done = self._background.submit(lambda: self._finish(succeeded))
            if done is None or not done.wait(FINISH_TIMEOUT):
                log.warning(
                    "Weights & Biases was still sending after %.0f s; `wandb sync` sends the rest", FINISH_TIMEOUT
                )
                self._broken = True
                end_service()
            self._broken, self._background = True, None  # nothing follows
        for name in self._variables:
            os.environ.pop(name, None)
        self._variables = []

    def _finish(self, succeeded: bool) -> None:
        """End the run, also after a failure: wandb would do it at the end of the program, and wait."""
        if self._run is None:
            return
        try:
            self._run.finish(exit_code=0 if succeeded else 1)
            if self._rows is not None and not self._broken:
                self._rows.release()
        except BaseException as error:
            self._give_up(_first_line(error))

    def _log(self, run: Any, row: dict[str, Any]) -> None:
        """Log a row with the next number, which continues over resumes: offline, wandb would begin again with 0."""
        run.log(row, step=None if self._rows is None else self._rows.take(at_least=run.step), commit=True)

    def _send(self, send: Callable[[Any], object], extra: str = "") -> None:
        """Make a call of the client in the other thread.

        Args:
            send: The call, with the run of the client.
            extra: What is sent, if rows are logged also after its failure; empty for a row.
        """
        if self._broken:
            return
        if self._background is None:
            self._begin()
        if not self._broken and self._submit(send, extra) is None:
            self._give_up("too many calls are waiting")

    def _submit(self, send: Callable[[Any], object], extra: str = "") -> threading.Event | None:
        return self._background.submit(lambda: self._attempt(send, extra)) if self._background else None

    def _attempt(self, send: Callable[[Any], object], extra: str) -> None:
        if self._broken:
            return
        try:
            send(self._run)
        except BaseException as error:  # wandb raises exceptions of several kinds, even SystemExit
            if self._broken:
                return
            if extra and isinstance(error, Exception):
                log.warning("Weights & Biases did not take %s (%s)", extra, _first_line(error))
            else:
                self._give_up(_first_line(error))

    def _give_up(self, reason: str) -> None:
        if not self._broken:
            self._broken = True
            log.warning("Weights & Biases stopped working (%s); training continues", reason)

    def _begin(self) -> None:
        """Import the client here, since another thread must not hold the locks of imports when workers are forked."""
        try:
            import wandb  # noqa: F401  # slow to import, and not on every machine
        except BaseException as error:
            self._give_up(_first_line(error))
            return
        self._set_environment()
        self._background = Background("wandb")

        def start(_: Any) -> None:
            self._run = self._start()

        started = self._submit(start)
        if started is not None and not started.wait(START_WAIT):
            log.warning("Weights & Biases has not started after %.0f s; training starts without it", START_WAIT)

    def _set_environment(self) -> None:
        """Keep the cache and the copies of files of artifacts in the folder of the run."""
        for name, folder in (("WANDB_CACHE_DIR", "cache"), ("WANDB_DATA_DIR", "data")):
            if self.identity is not None and name not in os.environ:
                os.environ[name] = str((self.folder / folder).absolute())
                self._variables.append(name)

    def _start(self) -> Any:
        has_account = bool(os.environ.get("WANDB_API_KEY") or trial_of_sweep())
        if self.mode == "offline" or (self.mode == "auto" and not has_account):
            return self._init("offline")
        try:
            return self._init("online")
        except BaseException as error:
            log.warning("no connection to Weights & Biases (%s); logging offline", _first_line(error))
            forget_attempt()
            return self._init("offline")

    def _init(self, mode: Literal["offline", "online"]) -> Any:
        import wandb

        identity = self.identity
        timeout = self.timeout if mode == "online" else max(self.timeout, LOCAL_TIMEOUT)
        run = wandb.init(
            project=self.project,
            entity=self.entity,
            name=identity.name if identity else None,
            id=identity.id if identity else None,
            group=self.group or (identity.group if identity else None),
            job_type=self.job_type or (identity.job if identity else None),
            tags=self.tags,
            notes=self.notes,
            dir=str(identity.folder) if identity else None,
            mode=mode,
            resume="allow",  # offline too: `wandb sync` then appends the rows of a resumed run
            settings=wandb.Settings(init_timeout=timeout, silent=True, console="off", git_root=str(Path.cwd())),
        )
        run.define_metric("*", step_metric=STEP)
        return run


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__
