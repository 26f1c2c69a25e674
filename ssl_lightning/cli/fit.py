"""How a run starts, resumes and ends, on one process or on several that start alike."""

import logging
import uuid
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import lightning.pytorch as pl
import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from lightning.pytorch.utilities.seed import isolate_rng

from ssl_lightning.callbacks import Doctor
from ssl_lightning.callbacks.cluster_sections import saved_clusters
from ssl_lightning.callbacks.recluster import pseudo_labels_of
from ssl_lightning.callbacks.write_report import WriteReport
from ssl_lightning.checkpoints import read_checkpoint
from ssl_lightning.checkpoints.durable import LAST, point_last
from ssl_lightning.checkpoints.networks import backbone_of
from ssl_lightning.checkpoints.read import sidecar_path
from ssl_lightning.cli.lines import first_lines
from ssl_lightning.cli.run_facts import run_facts
from ssl_lightning.cli.start import (
    check_rows,
    compared,
    digests_of,
    from_checkpoint,
    from_weights,
    reject_misfits,
    restoring,
)
from ssl_lightning.cli.trainer_options import check_monitored
from ssl_lightning.data import ImageModule
from ssl_lightning.errors import (
    CollapseError,
    DiskError,
    NonFiniteError,
    PreemptedError,
    UsageError,
    one_line,
)
from ssl_lightning.files import sha256_of, write_text
from ssl_lightning.methods import Method
from ssl_lightning.processes import rank
from ssl_lightning.report.cluster_rows import ClusterRow, cluster_rows
from ssl_lightning.report.run_json import RECIPE, SESSIONS, sessions_of
from ssl_lightning.report.table import name_of_initial_weights
from ssl_lightning.runs import Checkpointing, ExternalLoggers, MetricsTable, RunDirectory
from ssl_lightning.runs.checkpointing import TABLE
from ssl_lightning.runs.external_loggers import Results
from ssl_lightning.runs.initial_weights import InitialWeights, find_initial_weights
from ssl_lightning.runs.record import RunRecord, recorded
from ssl_lightning.runs.resume import CONTENT, DATA_BY_NAMES, StartPlan, computed, decide
from ssl_lightning.runs.sessions import session
from ssl_lightning.runs.wandb_service import trial_of_sweep

log = logging.getLogger(__name__)
T = TypeVar("T")
AGREED = (PreemptedError, DiskError, NonFiniteError, CollapseError)
"""Ends of a run that all processes come to at the same step."""


class Fitting:
    """Train a method in the folder of a run: from the start, from where it stopped, or not at all.

    Args:
        run: The folder.
        trainer: With the run's checkpoints, metrics table, report and external loggers.
        model: What is trained.
        datamodule: On what, set up to fit.
        options: The command line: where the run begins and how it resumes.
        config: The same as plain values: what the run computes.
        command: The command line as typed.
        used: Artifacts of Weights & Biases that the command names.

    Attributes:
        recipe: Settings that differ from the packaged configurations, for the report; see `recipe_of`.
    """

    def __init__(
        self,
        run: RunDirectory,
        trainer: pl.Trainer,
        model: pl.LightningModule,
        datamodule: ImageModule,
        options: Namespace,
        config: dict[str, Any],
        command: str = "",
        used: Sequence[str] = (),
    ) -> None:
        self.run, self.trainer, self.model, self.datamodule = run, trainer, model, datamodule
        self.options, self.config, self.command = options, config, command
        self.external_loggers = ExternalLoggers(trainer.loggers, run)
        self.used = used
        self.recipe: dict[str, Any] = {}
        _ours(trainer, Doctor).listeners.append(self.external_loggers.alert)

    @property
    def _method(self) -> Method:
        return cast(Method, self.model)

    def inputs(self) -> dict[str, Any]:
        """All that decides what the run computes, as plain values."""
        by_names = self.datamodule.training.fingerprint_by_names
        data = {"data_fingerprint": self.datamodule.fingerprint, DATA_BY_NAMES: by_names}
        files = self.model.stage_files() if isinstance(self.model, Method) else {}
        if self.datamodule.balance is not None:
            data[f"balance{CONTENT}"] = sha256_of(Path(self.datamodule.balance.path).resolve())
        return computed(self.config) | data | digests_of(files)

    def carry_out(self) -> None:
        """Train, evaluate at the end, and leave a run that is finished, or that the same command finishes."""
        if rank() == 0:
            self._lead()
        else:
            self._follow()

    def _lead(self) -> None:
        """Rank 0 decides how to start, broadcasts it, and holds the lock of the folder."""
        with ExitStack() as held:
            try:
                if isinstance(self.model, Method):  # set-up would say so too, after the untrained network was evaluated
                    self.model.reject_few(self.datamodule.num_samples)
                inputs = self.inputs()
                record = self._known()
                initial_weights = find_initial_weights(
                    self.run, self.options.ckpt_path, self.options.run.start_from, record.initial_weights
                )
                start = self._settle(inputs, initial_weights, record)
                if start.go:
                    held.enter_context(self.run.lock())
                    self._record(inputs, initial_weights)
            except BaseException:
                self._agree(StartPlan(go=False))  # the other processes would wait forever
                raise
            start = self._agree(start)
            if start.go:
                held.enter_context(self.external_loggers.until_the_end())
                for line in first_lines(self._method, self.datamodule, self.trainer, self.run.path):
                    log.info(line)
                if start.checkpoint is not None:
                    table = cast(MetricsTable, self.trainer.loggers[0])  # before what a YAML file adds
                    checkpoint = read_checkpoint(start.checkpoint)
                    own = Path(start.checkpoint).parent == self.run.checkpoints.resolve()
                    check_rows(checkpoint, start.checkpoint, self.datamodule.num_samples)
                    step = int(checkpoint.get("global_step", 0))
                    table.cut_after(step, checkpoint.get(TABLE) if own else None)
                    self.external_loggers.resume_after(step)
                with session(self.run, self.command, lambda: self.trainer.global_step):
                    self._loops(start)
                    self._reject_nothing_learned(start)
                    self.run.finish(self.trainer.global_step)
                    self._hand_out(inputs)

    def _follow(self) -> None:
        """What every other process does."""
        start = self._agree(StartPlan())
        if start.weights is not None:
            from_weights(start.weights, self._method)
        if start.go:
            # the first process leaves with the code; Lightning would kill it where another one left with one before
            with suppress(*AGREED):
                self._loops(start)

    def _agree(self, start: StartPlan) -> StartPlan:
        """The decision of rank 0 on every process, for processes of Lightning, torchrun or a scheduler."""
        strategy: Any = self.trainer.strategy
        if self.trainer.world_size == 1 or isinstance(strategy.launcher, _MultiProcessingLauncher):
            return start
        if not start.go and not strategy.cluster_environment.creates_processes_externally:
            return start  # Lightning has started no others

        def tell() -> StartPlan:
            strategy.connect(self.model)
            strategy.setup_environment()
            return strategy.broadcast(start)

        if strategy.launcher is None:  # some strategies have none where others start the processes
            return tell()
        return strategy.launcher.launch(tell, trainer=self.trainer)

    def _known(self) -> RunRecord:
        """What an earlier run in the folder was started with."""
        if not self.run.path.is_dir():
            return RunRecord()
        self.run.open()
        with self.run.lock():  # or a living run could remove the checkpoint while it is read
            return recorded(self.run)

    def _settle(self, inputs: dict[str, Any], initial_weights: InitialWeights, record: RunRecord) -> StartPlan:
        """What the folder of the run and the command say together."""
        resume, start_from, ckpt_path = self.options.resume, self.options.run.start_from, self.options.ckpt_path
        self.run.open()
        with self.run.lock():
            wanted = inputs | initial_weights.inputs
            decision = decide(self.run, resume.policy, resume.allow_config_change, wanted, record)
            if decision.action == "restart":
                aside = self.run.archive()
                (aside / "LOCK").unlink(missing_ok=True)
                log.info(f"{decision.why}; the old run is {aside}")
            elif decision.why:
                log.info(decision.why)
        if decision.action == "finished":
            self.run.renew()
            return StartPlan(go=False)
        if decision.action == "resume" and resume.allow_config_change:
            earlier = str(decision.checkpoint)
            reject_misfits(earlier, *compared(earlier, inputs), self._method)
        self.run.open()
        (self.run.path / "done.json").unlink(missing_ok=True)
        if decision.action == "resume":
            point_last(cast(Path, decision.checkpoint))  # what a kill or a hand has left there may be another one
            return StartPlan(checkpoint=str(decision.checkpoint))
        (self.run.path / "metrics.csv").unlink(missing_ok=True)
        if start_from:
            plan = from_weights(start_from, self._method)
            log.info(f"starting with the weights of {start_from}")
            return plan
        if ckpt_path:
            return from_checkpoint(ckpt_path, inputs, self._method, resume.allow_config_change)
        return StartPlan()

    def _record(self, inputs: dict[str, Any], initial_weights: InitialWeights) -> None:
        """Write config.yaml and run.json, and send folder, name and id of the run to the external loggers."""
        write_text(self.run.path / "config.yaml", yaml.safe_dump(self.config, sort_keys=False))
        known = self.run.read("run.json") or {}
        facts = {
            "name": self.run.name,
            "seed": self.options.seed_everything,
            "wandb_id": _wandb_id(known.get("wandb_id")),
            "inputs": inputs | initial_weights.inputs,
            "initial_weights": initial_weights.noted(),
            "images": [report.plain() for report in self.datamodule.source_reports],
            RECIPE: self.recipe,
            SESSIONS: sessions_of(known),
        }
        self.run.write("run.json", facts)
        checkpointing = _ours(self.trainer, Checkpointing)
        checkpointing.config, checkpointing.initial_weights = facts["inputs"], facts["initial_weights"]
        facts_of_run = run_facts(self.config, self._method, self.datamodule, self.options)
        self.external_loggers.introduce(facts["wandb_id"], type(self.model).__name__, facts_of_run, self.used)

    def _loops(self, start: StartPlan) -> None:
        """Evaluate, train, evaluate: every process goes through the same loops, or they would wait for each other."""
        if start.checkpoint is None:
            if rank() == 0 and self.datamodule.probes:
                is_untrained = name_of_initial_weights(self.run.path) == "untrained"
                log.info(f"evaluating the {'untrained network' if is_untrained else 'starting weights'}")
            with isolate_rng():  # evaluating the untrained network must not change the random numbers of training
                self.trainer.validate(self.model, datamodule=self.datamodule, verbose=False)
        check_monitored(self.trainer)
        resumes = nullcontext() if start.checkpoint is None else restoring(self.trainer, start.checkpoint)
        with resumes:
            self.trainer.fit(self.model, datamodule=self.datamodule, ckpt_path=start.checkpoint)
        self.trainer.validate(self.model, datamodule=self.datamodule, verbose=False)

    def _reject_nothing_learned(self, start: StartPlan) -> None:
        """A checkpoint of another run may lie at the end of its training, so that no step is left to take.

        Raises:
            UsageError: If so.
        """
        if not (self.run.checkpoints / LAST).exists():
            raise UsageError(
                f"found --ckpt_path {start.checkpoint}, after which no step is left under these settings; give a "
                "larger --trainer.max_epochs or max_steps with --resume.allow_config_change, or begin with its weights "
                "alone: --run.start_from"
            )

    def _hand_out(self, inputs: dict[str, Any]) -> None:
        images = [report.plain() for report in self.datamodule.source_reports]
        self.run.write("run.json", (self.run.read("run.json") or {}) | {"images": images})
        last = (self.run.checkpoints / LAST).resolve()
        facts = {"data_fingerprint": inputs["data_fingerprint"], "step": self.trainer.global_step}
        if self.external_loggers:
            labels, clusters = self._clusters()
            backbone, described = backbone_of(read_checkpoint(last))
            self.external_loggers.hand_out(
                Results(
                    images=_ours(self.trainer, WriteReport).images,
                    checkpoint=[last, sidecar_path(last)],
                    backbone=backbone,
                    described=described,
                    labels=labels,
                    clusters=clusters,
                    probe_sets=list(self.datamodule.probes),
                    facts=facts,
                )
            )

    def _clusters(self) -> tuple[torch.Tensor | None, list[ClusterRow]]:
        """Labels of all images, and the rows of the table of clusters; those of the newest file of the run.

        Without a file, the pseudo-labels of the method. No rows where images cannot be read or written.
        """
        saved, learned = saved_clusters(self.run.path), pseudo_labels_of(self.model)
        newest = saved[-1][0] if saved else None
        labels = None if learned is None or learned.is_empty else learned.rows.cpu().long()
        if labels is None and newest is not None:
            labels = newest.labels.long().unsqueeze(1)
        if labels is None:
            return None, []
        of_newest = newest is not None and torch.equal(newest.labels.long(), labels[:, 0])
        data, folder = self.datamodule, self.run.path / "wandb" / "clusters"
        distances = newest.distances if newest is not None and of_newest else None
        try:
            return labels, cluster_rows(folder, labels[:, 0], data.training, data.labels, distances)
        except (OSError, ValueError) as error:
            log.warning("could not write the table of clusters for external loggers (%s)", one_line(str(error)))
            return labels, []


def _wandb_id(known: Any) -> str:
    """The one that run.json holds, which a resumed run takes up again there; that of `wandb agent`, or a new one."""
    return known if isinstance(known, str) and known.isalnum() else trial_of_sweep() or uuid.uuid4().hex[:8]


def _ours(trainer: pl.Trainer, kind: type[T]) -> T:
    """Of a kind of callback the last one: what every run has comes after what a YAML file adds."""
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
    return [callback for callback in callbacks if isinstance(callback, kind)][-1]
