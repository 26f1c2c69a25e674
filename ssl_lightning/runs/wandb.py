"""WandbRun: Weights & Biases as an external logger that never stops or delays a run."""

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

log = logging.getLogger(__name__)
LOCAL_TIMEOUT = 60.0
"""Seconds for wandb's service process to start, which needs no network."""
FINISH_TIMEOUT = 30.0
"""Seconds to wait at the end for remaining uploads."""


class WandbRun(Logger):
    """Log rows to Weights & Biases, offline by default; `metrics.csv` is written in any case.

    Any failure (missing package or key, no network, full disk) is one warning; the run is then logged offline or not at
    all, and training continues. `wandb sync runs/<name>/wandb/offline-*` uploads later.

    Args:
        mode: "offline" needs neither account nor network; "online" falls back to it; "auto" is online if there is a
            key.
        project: Project of the run.
        timeout: Seconds to wait for a connection at the start.
        artifacts: Log the last checkpoint (`checkpoint-<run>:last`) and the assignments (`assignments-<run>`) of a
            finished run as artifacts; offline they are kept in the folder of the run.
    """

    def __init__(
        self,
        mode: Literal["offline", "online", "auto"] = "offline",
        project: str = "ssl_lightning",
        timeout: float = 20.0,
        artifacts: bool = True,
    ) -> None:
        super().__init__()
        self.mode, self.project, self.timeout, self.artifacts = mode, project, timeout, artifacts
        self.folder: Path | None = None
        self.run_name: str | None = None
        self.run_id: str | None = None
        self._run: Any = None
        self._broken = False

    @property
    def name(self) -> str:
        """The project."""
        return self.project

    @property
    def version(self) -> str | None:
        """The id, which a resumed run keeps."""
        return self.run_id

    def settle(self, folder: Path, run_name: str, run_id: str) -> None:
        """Set the folder, name and id of the run, before training."""
        self.folder, self.run_name, self.run_id = folder, run_name, run_id

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Log a row. The step is a value of the row, so that rows that are repeated after a resume are not dropped."""
        self._guard(lambda run: run.log({**metrics, "trainer/global_step": step}))

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Log the configuration."""
        if isinstance(params, dict):
            self._guard(lambda run: run.config.update(params, allow_val_change=True))

    @rank_zero_only
    def log_image(self, key: str, path: Path) -> None:
        """Log an image of the report."""

        def send(run: Any) -> None:
            import wandb

            run.log({key: wandb.Image(str(path))})

        self._guard(send)

    @rank_zero_only
    def log_files(self, kind: str, files: list[Path], facts: dict[str, Any]) -> None:
        """Log files as the newest version of the artifact `<kind>-<run>`, alias "last".

        Args:
            kind: "checkpoint" or "assignments".
            files: The files, which are not moved.
            facts: Metadata, as plain values.
        """

        def send(run: Any) -> None:
            import wandb

            artifact = wandb.Artifact(f"{kind}-{self.run_name}", type=kind, metadata=facts)
            for file in files:
                artifact.add_file(str(file), policy="immutable")  # without a copy, since the files no longer change
            run.log_artifact(artifact, aliases=["last"])

        if self.artifacts:
            self._guard(send)

    @rank_zero_only
    def log_array(self, kind: str, array: np.ndarray, facts: dict[str, Any]) -> None:
        """Log an array as `<kind>.npy`, like `log_files`."""
        file = (self.folder or Path()) / "wandb" / f"{kind}.npy"

        def write(run: Any) -> None:
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, array)

        if self.artifacts:
            self._guard(write)
            self.log_files(kind, [file], facts)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Do nothing: Lightning calls this after every loop; `close` ends the run."""

    def close(self, succeeded: bool) -> None:
        """End the run; without a network, wandb would wait indefinitely."""
        if self._run is None:
            return

        def finish() -> None:
            self._guard(lambda run: run.finish(exit_code=0 if succeeded else 1))

        thread = threading.Thread(target=finish, daemon=True)
        thread.start()
        thread.join(FINISH_TIMEOUT)
        if thread.is_alive():
            log.warning("Weights & Biases was still sending after %.0f s; `wandb sync` sends the rest", FINISH_TIMEOUT)
        self._run = None

    def _guard(self, send: Callable[[Any], object]) -> None:
        if self._broken:
            return
        try:
            if self._run is None:
                self._run = self._start()
            send(self._run)
        except BaseException as error:  # wandb raises exceptions of several kinds, even SystemExit
            if isinstance(error, KeyboardInterrupt):
                raise
            self._broken = True
            log.warning("Weights & Biases stopped working (%s); training continues", _first_line(error))

    def _start(self) -> Any:
        if self.mode == "offline" or (self.mode == "auto" and not os.environ.get("WANDB_API_KEY")):
            return self._init("offline")
        try:
            return self._init("online")
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            log.warning("no connection to Weights & Biases (%s); logging offline", _first_line(error))
            _forget_the_attempt()
            return self._init("offline")

    def _init(self, mode: Literal["offline", "online"]) -> Any:
        import wandb  # slow to import, and not on every machine

        if self.folder is not None:
            os.environ.setdefault("WANDB_CACHE_DIR", str(self.folder / "wandb" / "cache"))
        timeout = self.timeout if mode == "online" else max(self.timeout, LOCAL_TIMEOUT)
        settings = wandb.Settings(init_timeout=timeout, silent=True, console="off")
        run = wandb.init(
            project=self.project,
            name=self.run_name,
            id=self.run_id,
            dir=str(self.folder) if self.folder else None,
            mode=mode,
            resume="allow" if mode == "online" else None,
            settings=settings,
        )
        run.define_metric("*", step_metric="trainer/global_step")
        return run


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__


def _forget_the_attempt() -> None:
    """End wandb's service, which may hold the id of a run after a timeout."""
    import wandb

    wandb.teardown()
