"""fit, validate, test, predict: LightningCLI with a folder for every run."""

import json
import logging
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, cast

import lightning.pytorch as pl
import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ssl_lightning.callbacks import SaveClusters, WriteClusters
from ssl_lightning.callbacks.write_report import WriteReport
from ssl_lightning.checkpoints import load_model
from ssl_lightning.checkpoints.allowlist import restrict_imports
from ssl_lightning.checkpoints.durable import LAST
from ssl_lightning.checkpoints.places import signature_of
from ssl_lightning.cli.checks import (
    check_policy,
    reject_trained_folder,
    reject_two_checkpoints,
)
from ssl_lightning.cli.class_changes import start_from_defaults
from ssl_lightning.cli.explanations import Call
from ssl_lightning.cli.fit import Fitting
from ssl_lightning.cli.instantiate import TRAINERS_REJECTIONS, Instantiation, place_in_trainer, rejects_settings
from ssl_lightning.cli.lines import last_lines
from ssl_lightning.cli.parser import OneLineParser, prepare_arguments
from ssl_lightning.cli.precedence import written_by_user
from ssl_lightning.cli.quiet import quieten
from ssl_lightning.cli.recipe import recipe_of
from ssl_lightning.cli.seeds import check_seed
from ssl_lightning.cli.suggestions import NO_OPTIONS
from ssl_lightning.cli.trainer import DEFAULTS, RunComponents, default_name, tell_counts_from_fractions
from ssl_lightning.cli.trainer_options import check_interval, check_options
from ssl_lightning.data import ImageModule
from ssl_lightning.errors import ParsingError
from ssl_lightning.files import sha256_of
from ssl_lightning.methods import Method, RawPixels
from ssl_lightning.models.preprocessing import Preprocessing
from ssl_lightning.processes import rank
from ssl_lightning.report.table import evaluations, name_of_initial_weights, results_table
from ssl_lightning.runs import ExternalLoggers, RunDirectory
from ssl_lightning.runs.artifacts import fetch_all, references
from ssl_lightning.runs.resume import Policy

log = logging.getLogger(__name__)
OPTIONS: dict[str, tuple[Any, Any, str]] = {
    "run.name": (str | None, None, "default <config>-<data>-s<seed>"),
    "run.dir": (str, "runs", "folder of all runs"),
    "run.save_every_n_epochs": (int, 1, "checkpoints at ends of epochs"),
    "run.save_every_n_steps": (int | None, None, "checkpoints within epochs"),
    "run.save_clusters": (bool, True, "clusters of the training images as files of the run"),
    "run.start_from": (
        str | None,
        None,
        "initialize the weights from this checkpoint; optimizer, memory banks and epoch start anew. To resume from a "
        "checkpoint, give --ckpt_path",
    ),
    "ckpt_path": (
        str | None,
        None,
        "checkpoint of a run, a file or wandb:...: fit resumes from it; validate, test and predict take its network "
        "and, unless others are named, its images",
    ),
    "resume.policy": (Policy, "auto", "what to do with an earlier run"),
    "resume.allow_config_change": (bool, False, "resume with other settings"),
    "doctor.on_collapse": (Literal["warn", "stop"], "warn", "what to do on collapse"),
}
"""Options of every run, beside those of the trainer, the method and the data: type, default, help."""


def main(arguments: list[str]) -> None:
    """Carry out a subcommand that LightningCLI parses.

    Args:
        arguments: Subcommand and options.
    """
    CommandLine(arguments)


class CommandLine(LightningCLI):
    """Any `Method` with any `ImageModule`, both by class path, and a folder for every run.

    Every run has the metrics table, durable checkpoints, preemption, the progress bar, throughput, the training
    diagnostics and the report, whatever its configuration. `callbacks` in YAML hold what is a choice: when to cluster,
    and which probes to evaluate with.
    """

    def __init__(self, arguments: list[str], quiet: bool = False) -> None:
        self.quiet, self.typed = quiet, arguments
        restrict_imports()
        tell_counts_from_fractions()
        quieten()
        sys.argv[1:] = prepare_arguments(arguments)  # where Lightning reads a command line without a warning
        start_from_defaults(written_by_user(sys.argv[1:]))
        OneLineParser.called = Call(tuple(sys.argv[1:]), declared_types())
        self.run: RunDirectory
        self.components: RunComponents
        self.instantiation: Instantiation
        super().__init__(
            Method,
            ImageModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            seed_everything_default=0,
            trainer_defaults=DEFAULTS,
            parser_class=OneLineParser,
            auto_configure_optimizers=False,
            parser_kwargs={"allow_abbrev": False},  # the start of an option's name is a misspelled option
            load_from_checkpoint_support=False,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Subcommands, and the arguments of Lightning's functions that are no options; `--ckpt_path` is our own."""
        return {name: skipped | {"ckpt_path", *NO_OPTIONS} for name, skipped in LightningCLI.subcommands().items()}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add where a run lives, how it resumes, and what the model learns from the data."""
        for name, (declared, default, text) in OPTIONS.items():
            parser.add_argument(f"--{name}", type=declared, default=default, help=text)
        parser.link_arguments("seed_everything", "data.init_args.seed", compute_fn=int)
        parser.link_arguments("data.preprocessing", "model.init_args.preprocessing", asdict, apply_on="instantiate")

    @property
    def options(self) -> Namespace:
        """What was parsed for this subcommand."""
        return self.config[str(self.subcommand)]

    @property
    def report(self) -> WriteReport:
        """Report of the run."""
        return self.components.report

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and reject configurations that include themselves, and seeds out of range."""
        try:
            super().parse_arguments(parser, args)
        except RecursionError:
            raise ParsingError("found configuration files that include themselves; expected files that end") from None
        subcommand = self.config.subcommand
        check_seed(self.config[subcommand].seed_everything, sys.argv[1:] if subcommand == "fit" else [])

    def _parse_ckpt_path(self) -> None:
        """Lightning would let a checkpoint overwrite the command line, and import what it names; see `fit`."""

    def before_instantiate_classes(self) -> None:
        """Find the folder of the run, and check the configuration before anything is made of it.

        Paths that name files in Weights & Biases are those of fetched files from here on.
        """
        subcommand = str(self.subcommand)
        self.run = RunDirectory(self.options.run.dir, self.options.run.name or default_name(subcommand, self.options))
        described = check_policy(self.options, self.run, sys.argv[1:])
        reject_two_checkpoints(subcommand, self.options)
        check_options(subcommand, self.options.trainer)
        reject_trained_folder(subcommand, self.run)
        self.used = references(self.options)
        fetch_all(self.options, self.run.root / ".artifacts")
        self.components = RunComponents(self.run, self.options, self.typed)
        self.instantiation = Instantiation(self.parser, described)

    def instantiate_classes(self) -> None:
        """Make the model, the data and the trainer of the configuration.

        Raises:
            UsageError: One of them rejects its settings, or needs a package that is not installed.
        """
        self.config_init = self.instantiation(self.config)
        self.datamodule = self._get(self.config_init, "data")
        self.model = self._get(self.config_init, "model")
        self.trainer = self.instantiate_trainer()

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Build the trainer with what every run has."""
        config = self.config_init[str(self.subcommand)].trainer
        arguments = self.components.trainer_arguments(config, fits=self.subcommand == "fit")
        with rejects_settings(place_in_trainer(self.options.trainer), "Lightning", *TRAINERS_REJECTIONS):
            return super().instantiate_trainer(**arguments, **kwargs)

    # fit: the run finds out how to start or resume, or that there is nothing to do

    def fit(self, model: pl.LightningModule, datamodule: ImageModule, **_: Any) -> None:
        """Train, evaluate at the end, and leave a run that is finished, or that the same command finishes."""
        datamodule.setup("fit")
        check_interval(self.options.trainer, datamodule)
        config = self._plain_config()
        self._describe_data(config)
        cast(Method, model).described_arguments = config["model"].get("init_args") or {}
        command = self.components.preemption.resuming
        fitting = Fitting(
            self.run, self.trainer, model, datamodule, self.options, config, command=command, used=self.used
        )
        if rank() == 0:
            fitting.recipe = recipe_of(self._parser("fit"), sys.argv[1:], config)
        if self.options.resume.allow_config_change:
            self.components.new_options.config = fitting.inputs()
        with self._loops():
            fitting.carry_out()
            if rank() == 0:
                self._print_results()

    def results(self) -> dict[str, dict[str, float]]:
        """Metrics of the network before and after training, on the primary probe set."""
        rows = evaluations(self.run.path / "metrics.csv")
        ends = {name_of_initial_weights(self.run.path): rows[0][1], "trained": rows[-1][1]} if rows else {}
        return {name: {key.removeprefix("eval/"): value for key, value in row.items()} for name, row in ends.items()}

    def _print_results(self) -> None:
        if not self.quiet:
            table = results_table(self.run.path / "metrics.csv", probe_sets=list(self.datamodule.probes))
            lines = last_lines(self.run.path, self.run.checkpoints / LAST, self.components.doctor.failing)
            sys.stdout.write("\n".join(["", table, "", *lines, ""]))

    @contextmanager
    def _loops(self) -> Iterator[None]:
        """Signals are watched, and settings that Lightning rejects in its loops are a mistake of the user."""
        place = place_in_trainer(self.options.trainer)
        with self.components.preemption.watched(), rejects_settings(place, "Lightning", MisconfigurationException):
            yield

    # validate, test, predict: the method comes from the checkpoint where one is given

    def validate(self, model: pl.LightningModule, datamodule: ImageModule, **_: Any) -> None:
        """Evaluate with all rows of every probe set and print the numbers."""
        self._evaluate(self._method(model, datamodule), datamodule)

    def test(self, model: pl.LightningModule, datamodule: ImageModule, **_: Any) -> None:
        """The same as `validate`."""
        self._evaluate(self._method(model, datamodule), datamodule)

    def predict(self, model: pl.LightningModule, datamodule: ImageModule, **_: Any) -> None:
        """Embed the training images; callbacks such as `WriteClusters` keep what they need."""
        self._describe_data(self._plain_config())
        with self._session():
            method = self._method(model, datamodule)
            self.trainer.predict(method, datamodule=datamodule, return_predictions=False)

    def _evaluate(self, model: pl.LightningModule, datamodule: ImageModule) -> None:
        results = self.run.path / "results.json"
        if rank() == 0 and results.exists():
            log.info(f"{results} exists and will be replaced")
        with self._session():
            self.trainer.validate(model, datamodule=datamodule, verbose=False)
        if rank() != 0:
            return
        numbers = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        if numbers:  # else the folder is not there
            results.write_text(json.dumps(numbers, indent=1, sort_keys=True))
        table = results_table(self.run.path / "metrics.csv", type(model).__name__, list(datamodule.probes))
        sys.stdout.write(f"{table}\n")

    @contextmanager
    def _session(self) -> Iterator[None]:
        """Signals are watched, and the first of all processes keeps the folder and the loggers."""
        with self._loops(), ExitStack() as held:
            if rank() == 0:
                self.run.open(trains=False)
                held.callback(self._close)  # after the lock
                held.enter_context(self.run.lock())
                external_loggers = ExternalLoggers(self.trainer.loggers, self.run)
                held.enter_context(external_loggers.until_the_end())
                external_loggers.introduce(uuid.uuid4().hex[:8], str(self.subcommand), self._plain_config(), self.used)
                (self.run.path / "metrics.csv").unlink(missing_ok=True)
            yield

    def _close(self) -> None:
        """Remove a folder in which nothing was written, or log where predict leaves metrics."""
        with suppress(OSError):  # of a folder that is not empty
            self.run.path.rmdir()
        table = self.run.path / "metrics.csv"
        if self.subcommand == "predict" and table.is_file():
            log.info(f"metrics of the clusters: {table}")

    def _method(self, model: pl.LightningModule, datamodule: ImageModule) -> pl.LightningModule:
        ckpt_path: str | None = self.options.ckpt_path
        if ckpt_path is None:
            return model
        loaded = load_model(ckpt_path)
        _log_other_method(loaded, model, ckpt_path)
        _log_other_preprocessing(loaded.preprocessing, datamodule.preprocessing, ckpt_path)
        loaded.fingerprint = sha256_of(Path(ckpt_path).resolve())
        return loaded

    def _describe_data(self, config: dict[str, Any]) -> None:
        """Give the configuration of the data to callbacks that write clusters, so that the images are found again."""
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]  # set by a connector
            if isinstance(callback, WriteClusters | SaveClusters):
                callback.data_config = json.dumps(config["data"])

    def _plain_config(self) -> dict[str, Any]:
        dumped = self.parser.dump(self.config, skip_link_targets=False, skip_none=False, format="yaml")
        return yaml.safe_load(dumped)[self.subcommand]


def _log_other_method(trained: Method, given: pl.LightningModule, checkpoint: str) -> None:
    """Log a method of the command that is not that of the checkpoint; the packaged files for this name raw pixels."""
    own, other = type(trained).__name__, type(given).__name__
    if own != other and not isinstance(given, RawPixels):
        log.warning(
            f"found the method {other} and {own} in {checkpoint}: the method of the checkpoint is used, and no "
            f"setting of {other}"
        )


def _log_other_preprocessing(trained: Preprocessing, given: Preprocessing, checkpoint: str) -> None:
    """Log what the data sets otherwise than the network was trained with: it counts for the size alone."""
    if trained.image_size != given.image_size:
        log.warning(
            "found data.image_size=%d and %s trained at %d pixels: it embeds images of %d; give --data.image_size %d "
            "to embed them as in training",
            *(given.image_size, checkpoint, trained.image_size, given.image_size, trained.image_size),
        )
    for name, own, other in (("mean", trained.mean, given.mean), ("std", trained.std, given.std)):
        if tuple(own) != tuple(other):
            log.warning(
                "found data.%s=%s and %s trained with %s: images are normalized as in training",
                name,
                other,
                checkpoint,
                own,
            )


def declared_types() -> dict[str, Any]:
    """Types of all options by their names, those of the method and the data aside."""
    trainer = {f"trainer.{name}": hint for name, hint in signature_of(pl.Trainer)[0].items()}
    own = {name: hint for name, (hint, _, _) in OPTIONS.items()}
    parts = {"model": Method | None, "data": ImageModule | None}
    return {"seed_everything": bool | int, **parts, **trainer, **own}
