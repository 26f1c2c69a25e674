"""fit, validate, test, predict: LightningCLI, and what it adds in code to every run."""

import json
import logging
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import lightning.pytorch as pl
import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from ssl_lightning.callbacks import (
    DiagnosticSignals,
    Doctor,
    ImagesProgressBar,
    NeighborPurity,
    Operations,
    SyncBatchNorm,
    Throughput,
    WriteClusters,
)
from ssl_lightning.callbacks.write_report import WriteReport
from ssl_lightning.checkpoints import DurableCheckpointIO, load_model
from ssl_lightning.checkpoints.allowlist import reject, restrict_imports
from ssl_lightning.checkpoints.kinds import rejection
from ssl_lightning.checkpoints.places import check_arguments, check_call, leave_out_default_functions
from ssl_lightning.command_line import missing_package, reject_addresses_in, short_print_config, with_its_place
from ssl_lightning.data import ImageModule
from ssl_lightning.errors import UsageError
from ssl_lightning.files import sha256_of
from ssl_lightning.fitting import Fitting, rank
from ssl_lightning.methods import Method
from ssl_lightning.quiet import NoProfiler, quieten
from ssl_lightning.report.table import evaluations, name_of_initial_weights, results_table
from ssl_lightning.runs import (
    Checkpointing,
    ExternalLoggers,
    MetricsTable,
    NewOptions,
    Preemption,
    RunDirectory,
    StopBetweenBatches,
)
from ssl_lightning.runs.artifacts import fetch_all
from ssl_lightning.runs.outputs import given_values, keep_inside
from ssl_lightning.runs.resume import Policy, computed

log = logging.getLogger(__name__)
TRAINER_DEFAULTS: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "use_distributed_sampler": False,
    "log_every_n_steps": 10,
    "max_epochs": 20,
}


class OneLineParser(LightningArgumentParser):
    """A parser whose errors are one line: what was found, what was expected."""

    started_in = Path()
    """The current folder when the program was called: the parser moves to that of the file it reads."""

    def error(self, message: str, ex: Exception | None = None) -> None:  # type: ignore[override]  # NoReturn there
        """Say it and leave with exit code 2."""
        reject(with_its_place(str(message), sys.argv[1:], self.started_in))


class CommandLine(LightningCLI):
    """Any `Method` with any `ImageModule`, both by class path, and a folder for every run.

    Added in code, whatever the YAML says: the metrics table, durable checkpoints, preemption, the progress bar,
    throughput, the doctor and the reference set. YAML `callbacks` hold what is a choice: when to cluster, whom to ask.
    """

    def __init__(self, arguments: list[str], quiet: bool = False) -> None:
        self.quiet = quiet
        restrict_imports()
        OneLineParser.started_in = Path.cwd()
        quieten()
        sys.argv[1:] = short_print_config(arguments)  # where Lightning reads a command line without a warning
        self.run: RunDirectory
        self.preemption, self.new_options = Preemption(), NewOptions()
        super().__init__(
            Method,
            ImageModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            seed_everything_default=0,
            trainer_defaults=TRAINER_DEFAULTS,
            parser_class=OneLineParser,
            auto_configure_optimizers=False,
            parser_kwargs={"allow_abbrev": False},  # the start of an option's name is a misspelled option
            load_from_checkpoint_support=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add where a run lives, how it resumes, and what the model learns from the data."""
        parser.add_argument("--run.name", type=str | None, default=None, help="default <config>-<data>-s<seed>")
        parser.add_argument("--run.dir", type=str, default="runs", help="where runs live")
        parser.add_argument("--run.save_every_n_epochs", type=int, default=1, help="checkpoints at ends of epochs")
        parser.add_argument("--run.save_every_n_steps", type=int | None, default=None, help="checkpoints within epochs")
        parser.add_argument(
            "--run.start_from",
            type=str | None,
            default=None,
            help="checkpoint whose networks fit begins with, nothing else of it, on whatever images; to resume from "
            "one, memories and optimizer included, give --ckpt_path",
        )
        parser.add_argument("--resume.policy", type=Policy, default="auto", help="what to do with an earlier run")
        parser.add_argument("--resume.allow_config_change", type=bool, default=False, help="go on with other settings")
        parser.add_argument(
            "--doctor.on_collapse", type=Literal["warn", "stop"], default="warn", help="when training fails"
        )
        parser.link_arguments("seed_everything", "data.init_args.seed", compute_fn=int)
        for name in ("image_size", "mean", "std"):
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")

    @property
    def options(self) -> Namespace:
        """What was parsed for this subcommand."""
        return self.config[str(self.subcommand)]

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and name what would never end."""
        reject_addresses_in(sys.argv[1:])
        try:
            super().parse_arguments(parser, args)
        except RecursionError:
            reject("found configuration files that include themselves; expected files that end")

    def _parse_ckpt_path(self) -> None:
        """Lightning would let a checkpoint overwrite the command line, and import what it names; see `fit`."""

    def before_instantiate_classes(self) -> None:
        """Find the folder of the run; reject one that would take no step, or that would write into a trained run.

        Before anything is made of it, the configuration is held against the import policy, and what it writes against
        the folder of the run. Paths that name files in Weights & Biases are those of fetched files from here on.
        """
        self.run = RunDirectory(self.options.run.dir, self.options.run.name or self._default_name())
        self._hold_against_policy()
        self._reject_two_beginnings()
        for name in ("max_epochs", "max_steps") if self.subcommand == "fit" else ():
            if self.options.trainer[name] == 0:
                raise UsageError(f"found --trainer.{name} 0, with which nothing is trained: give 1 or more")
        if self.subcommand != "fit" and self.run.exists:
            raise UsageError(
                f"found {self.run.path}, the folder of a trained run, which {self.subcommand} would write into: give "
                f"another name, such as --run.name {self.run.name}-{self.subcommand}"
            )
        fetch_all(self.options, self.run.root / ".artifacts")

    def _hold_against_policy(self) -> None:
        """Reject names that no file may hold, and keep in the folder of the run what files write; see SECURITY.md.

        Raises:
            UsageError: Names the place of the first of them.
        """
        kinds = {"model": Method, "data": ImageModule}
        others = {name: value for name, value in vars(self.options).items() if name not in ("trainer", "config")}
        described = check_arguments(others, kinds, "", {})
        described += check_call(pl.Trainer, self.options.trainer, "trainer")
        leave_out_default_functions(described)
        if self.options.trainer.profiler == "pytorch":
            raise UsageError(
                f"found trainer.profiler pytorch: {rejection('lightning.pytorch.profilers.PyTorchProfiler')}"
            )
        keep_inside(described, self.run.path, sys.argv[1:])
        root = self.options.trainer.default_root_dir
        if root is not None and rank() == 0:
            log.info(f"trainer.default_root_dir {root} is not used: a run lives in {self.run.path}, see --run.dir")
        for name, default in (("dir", "runs"), ("name", None)):
            given = given_values(sys.argv[1:], f"run.{name}")
            if (value := self.options.run[name]) != default and value not in given and rank() == 0:
                log.info(f"run.{name} {value}, as a configuration file has it")

    def _reject_two_beginnings(self) -> None:
        start_from, ckpt_path = self.options.run.start_from, self.options.ckpt_path
        if start_from and self.subcommand != "fit":
            raise UsageError(
                f"found --run.start_from with {self.subcommand}, which trains nothing: give --ckpt_path {start_from}"
            )
        if start_from and ckpt_path:
            raise UsageError(
                "found --run.start_from and --ckpt_path; expected one of them: the first begins with a checkpoint's "
                "weights alone, the second resumes from a checkpoint"
            )

    def instantiate_classes(self) -> None:
        """Make the model, the data and the trainer of the configuration.

        Raises:
            UsageError: Names a package that one of them needs and that is not installed.
        """
        try:
            super().instantiate_classes()
        except Exception as error:
            missing = missing_package(error)
            if missing is None:
                raise
            raise UsageError(f"found no package for what the configuration names ({missing}); install it") from error

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Build the trainer with what every run has."""
        config = self.config_init[str(self.subcommand)].trainer
        given = config.logger if isinstance(config.logger, list) else [config.logger]
        loggers = [logger for logger in given if logger not in (None, True, False)]
        callbacks: list[pl.Callback] = [ImagesProgressBar()] if config.enable_progress_bar is not False else []
        if config.sync_batchnorm:
            callbacks.append(SyncBatchNorm())
        if self.subcommand == "fit":
            self.report = WriteReport(str(self.run.path / "report"))
            doctor = Doctor(self.options.doctor.on_collapse)
            signs = [Throughput(), Operations(), DiagnosticSignals(), NeighborPurity(), doctor]
            callbacks += [*signs, self.report, self._checkpointing()]
            callbacks += [self.new_options] if self.options.resume.allow_config_change else []
        callbacks.append(StopBetweenBatches(self.preemption))
        plugins = [*(config.plugins or []), DurableCheckpointIO()]
        table = MetricsTable(self.run.path / "metrics.csv")
        return super().instantiate_trainer(
            logger=[table, *loggers],
            plugins=plugins,
            profiler=config.profiler or NoProfiler(),
            callbacks=[*(config.callbacks or []), *callbacks],
            default_root_dir=str(self.run.path),
            sync_batchnorm=False,  # by our callback
        )

    # fit: the run knows how to start, resume, or say that there is nothing to do

    def fit(self, model: pl.LightningModule, datamodule: ImageModule, **_: Any) -> None:
        """Train, evaluate at the end, and leave a run that is finished, or that the same command finishes."""
        datamodule.setup("fit")
        config = self._plain_config()
        cast(Method, model).described_arguments = config["model"].get("init_args") or {}
        fitting = Fitting(self.run, self.trainer, model, datamodule, self.options, config)
        if self.options.resume.allow_config_change:
            self.new_options.config = fitting.inputs()
        with self.preemption.watched():
            fitting.carry_out()
            if rank() == 0:
                self._say_results()

    def results(self) -> dict[str, dict[str, float]]:
        """Evaluated numbers of the network that training began with and of the trained one on the primary probe set."""
        rows = evaluations(self.run.path / "metrics.csv")
        ends = {name_of_initial_weights(self.run.path): rows[0][1], "trained": rows[-1][1]} if rows else {}
        return {name: {key.removeprefix("eval/"): value for key, value in row.items()} for name, row in ends.items()}

    def _say_results(self) -> None:
        if not self.quiet:
            page = self.run.path / "report" / "index.html"
            sys.stdout.write(f"\n{results_table(self.run.path / 'metrics.csv')}\n\nclusters and curves: {page}\n")

    # validate, test, predict: the method comes from the checkpoint where one is given

    def validate(
        self, model: pl.LightningModule, datamodule: ImageModule, ckpt_path: str | None = None, **_: Any
    ) -> None:
        """Evaluate with all rows of every probe set and print the numbers."""
        self._evaluate(self._method(model, datamodule, ckpt_path), datamodule)

    def test(self, model: pl.LightningModule, datamodule: ImageModule, ckpt_path: str | None = None, **_: Any) -> None:
        """The same as `validate`."""
        self._evaluate(self._method(model, datamodule, ckpt_path), datamodule)

    def predict(
        self, model: pl.LightningModule, datamodule: ImageModule, ckpt_path: str | None = None, **_: Any
    ) -> None:
        """Embed the training images; callbacks such as `WriteClusters` keep what they need."""
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]  # set by a connector
            if isinstance(callback, WriteClusters):
                callback.data_config = json.dumps(self._plain_config()["data"])
        with self._session():
            method = self._method(model, datamodule, ckpt_path)
            self.trainer.predict(method, datamodule=datamodule, return_predictions=False)

    def _evaluate(self, model: pl.LightningModule, datamodule: ImageModule) -> None:
        with self._session():
            self.trainer.validate(model, datamodule=datamodule, verbose=False)
        if rank() != 0:
            return
        numbers = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        (self.run.path / "results.json").write_text(json.dumps(numbers, indent=1, sort_keys=True))
        sys.stdout.write(results_table(self.run.path / "metrics.csv", start=type(model).__name__) + "\n")

    @contextmanager
    def _session(self) -> Iterator[None]:
        """Signals are watched, and the first of all processes keeps the folder and the loggers."""
        with self.preemption.watched(), ExitStack() as held:
            if rank() == 0:
                self.run.open()
                held.enter_context(self.run.lock())
                external_loggers = ExternalLoggers(self.trainer.loggers, self.run)
                held.enter_context(external_loggers.until_the_end())
                external_loggers.introduce(uuid.uuid4().hex[:8], computed(self._plain_config()))
                (self.run.path / "metrics.csv").unlink(missing_ok=True)
            yield

    @staticmethod
    def _method(model: pl.LightningModule, datamodule: ImageModule, ckpt_path: str | None) -> pl.LightningModule:
        if ckpt_path is None:
            return model
        loaded = load_model(ckpt_path)
        if loaded.image_size != datamodule.image_size:
            log.warning(
                "found data.image_size=%d and %s trained at %d pixels: it is shown images of %d; give "
                "--data.image_size %d to show them as in training",
                *(datamodule.image_size, ckpt_path, loaded.image_size, datamodule.image_size, loaded.image_size),
            )
        loaded.fingerprint = sha256_of(Path(ckpt_path).resolve())
        return loaded

    # names and plain values

    def _default_name(self) -> str:
        """`<config>-<data>-s<seed>`, and the subcommand where it is not fit."""
        config = self.options
        files = [Path(str(file)) for file in config.get("config") or []]
        methods = [file.stem for file in files if file.parent.name not in ("data", "scale", "shared")]
        sources = [file.stem for file in files if file.parent.name == "data"]
        method = methods[0] if methods else config.model.class_path.rpartition(".")[2].lower()
        source = sources[-1] if sources else config.data.class_path.rpartition(".")[2].lower()
        subcommand = "" if self.subcommand == "fit" else f"-{self.subcommand}"
        return f"{method}-{source}-s{int(config.seed_everything)}{subcommand}"

    def _plain_config(self) -> dict[str, Any]:
        dumped = self.parser.dump(self.config, skip_link_targets=False, skip_none=False, format="yaml")
        return yaml.safe_load(dumped)[self.subcommand]

    def _checkpointing(self) -> Checkpointing:
        epochs, steps = self.options.run.save_every_n_epochs, self.options.run.save_every_n_steps
        return Checkpointing(
            self.run.checkpoints, every_n_epochs=epochs, every_n_steps=steps, preemption=self.preemption
        )
