"""The classes that a configuration or a checkpoint may name, and their use, as tables.

The tables hold dotted names that are resolved when they are needed. `places` compares a description with them.
"""

import inspect
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec

from ssl_lightning.checkpoints.plain import class_path
from ssl_lightning.errors import UsageError

OURS = "ssl_lightning"
VARIABLE = "SSL_LIGHTNING_PLUGINS"


@dataclass(frozen=True)
class Kind:
    """A base class; its strict subclasses may be named where a value of this type is declared.

    Attributes:
        base: Import path of the base class.
        modules: Modules of libraries with admitted public classes of this kind.
        ours: Whether classes of this package are admitted. Those of plugins always are.
        factory: Whether such a class may also stand for a `Callable[..., base]`: optimizers and schedulers.
    """

    base: str
    modules: tuple[str, ...] = ()
    ours: bool = True
    factory: bool = False

    @property
    def cls(self) -> type:
        """The base class."""
        module, _, name = self.base.rpartition(".")
        return getattr(import_module(module), name)

    def admits(self, cls: type) -> bool:
        """Whether a class is of this kind and from a listed package.

        Classes of this package that need no subclass, such as `View`, may be named themselves.
        """
        base, package = self.cls, cls.__module__.partition(".")[0]
        listed = (
            {module.partition(".")[0] for module in self.modules}
            | ({OURS} if self.ours else set())
            | set(plugin_packages())
        )
        itself = cls is base and (not self.base.startswith(f"{OURS}.") or inspect.isabstract(cls))
        return issubclass(cls, base) and not itself and package in listed


KINDS = (
    *(
        Kind(f"{OURS}.{name}")
        for name in (
            "methods.method.Method",
            "data.module.ImageModule",
            "data.balance.Balance",
            "data.decode.Limits",
            "data.probe_sets.ProbeSet",
            "data.subset.Subset",
            "data.views.View",
            "models.backbones.Backbone",
            "models.preprocessing.Preprocessing",
            "clustering.clusterer.Clusterer",
            "clustering.whitening.FeatureTransform",
            "optim.schedules.Schedule",
            "evaluation.probe.Probe",
        )
    ),
    Kind("torch.optim.Optimizer", ("torch.optim", "timm.optim"), factory=True),
    Kind("torch.optim.lr_scheduler.LRScheduler", ("torch.optim.lr_scheduler",), ours=False, factory=True),
    Kind("torch.nn.Module", ("torch.nn", "torchvision.transforms.v2"), ours=False),
    Kind("torchmetrics.Metric", ("torchmetrics",), ours=False),
    Kind("lightning.pytorch.callbacks.Callback", ("lightning.pytorch.callbacks",)),
    Kind("lightning.pytorch.loggers.Logger", ("lightning.pytorch.loggers",)),
    Kind("lightning.pytorch.profilers.Profiler", ("lightning.pytorch.profilers",)),
    Kind("lightning.pytorch.strategies.Strategy", ("lightning.pytorch.strategies",)),
    Kind("lightning.pytorch.accelerators.Accelerator", ("lightning.pytorch.accelerators",)),
    Kind("lightning.pytorch.plugins.Precision", ("lightning.pytorch.plugins",)),
    Kind("lightning.pytorch.plugins.LayerSync", ("lightning.pytorch.plugins",)),
    Kind("lightning.fabric.plugins.CheckpointIO", ("lightning.pytorch.plugins",)),
    Kind("lightning.fabric.plugins.ClusterEnvironment", ("lightning.pytorch.plugins.environments",)),
)

OUR_MODULES = ("methods", "data", "models", "clustering", "evaluation", "callbacks", "optim", "runs")
"""Packages of this project with classes that files may name; no other is imported for a configuration."""

_BASE_CLASS = "it is a base class: name a subclass of it"
_OWN_CHECKPOINTS = "every run writes checkpoints of its own: use --run.save_every_n_epochs or --run.save_every_n_steps"
_CHECKPOINT_FILES = "checkpoints are written by this package alone, whole or not at all"
_IN_EVERY_RUN = "every run has one of its own, which writes the files of the run"
_NO_TPU = "TPUs are not supported"
_CHANGES_SETTINGS = "it changes settings while the run is under way: try several values in several runs"
REJECTED = {
    "lightning.pytorch.callbacks": {
        "BaseFinetuning": _BASE_CLASS,
        "BasePredictionWriter": _BASE_CLASS,
        "Callback": _BASE_CLASS,
        "Checkpoint": _BASE_CLASS,
        "ProgressBar": _BASE_CLASS,
        "BatchSizeFinder": _CHANGES_SETTINGS,
        "LearningRateFinder": _CHANGES_SETTINGS,
        "LambdaCallback": "it takes functions, which no file may name: write a callback in a plugin",
        "ModelCheckpoint": _OWN_CHECKPOINTS,
        "OnExceptionCheckpoint": _OWN_CHECKPOINTS,
        "RichProgressBar": "every run has a progress bar: --trainer.enable_progress_bar false turns it off",
        "TQDMProgressBar": "every run has a progress bar: --trainer.enable_progress_bar false turns it off",
        "StochasticWeightAveraging": "it takes schedules that change every epoch, and those here change "
        "every step: use WeightAveraging or EMAWeightAveraging",
        "Timer": "use --trainer.max_time, which stops the run after so long",
        "ThroughputMonitor": "it takes a function, which no file may name; train/images_per_second is always logged",
    },
    "lightning.pytorch.loggers": {
        "Logger": _BASE_CLASS,
        "CometLogger": "it sends the run to an address of its own: log to Weights & Biases or TensorBoard",
        "LitLogger": "it sends the run to an address of its own: log to Weights & Biases or TensorBoard",
        "MLFlowLogger": "it writes or sends to an address that a file names: log to Weights & Biases or TensorBoard",
        "WandbLogger": "use ssl_lightning.runs.WandbRun (configs/shared/wandb.yaml), which never stops a run",
    },
    "lightning.pytorch.profilers": {
        "Profiler": _BASE_CLASS,
        "PyTorchProfiler": "it follows one loop, and a run has three (evaluation, training, evaluation): use "
        "SimpleProfiler or AdvancedProfiler",
        "XLAProfiler": _NO_TPU,
    },
    "lightning.pytorch.strategies": {
        "ParallelStrategy": _BASE_CLASS,
        "Strategy": _BASE_CLASS,
        "DeepSpeedStrategy": "it needs DeepSpeed, which this package is not tested with: use FSDPStrategy",
    },
    "lightning.pytorch.accelerators": {"Accelerator": _BASE_CLASS, "XLAAccelerator": _NO_TPU},
    "lightning.pytorch.plugins": {
        "CheckpointIO": _BASE_CLASS,
        "LayerSync": _BASE_CLASS,
        "Precision": _BASE_CLASS,
        "AsyncCheckpointIO": _CHECKPOINT_FILES,
        "TorchCheckpointIO": _CHECKPOINT_FILES,
        "XLACheckpointIO": _CHECKPOINT_FILES,
        "BitsandbytesPrecision": "networks are trained from scratch, which quantized weights cannot be",
        "DeepSpeedPrecision": "it needs DeepSpeed, which this package is not tested with",
        "DoublePrecision": "views are float32: leave it out, or give --trainer.precision bf16-mixed for less",
        "FSDPPrecision": "use --trainer.precision, which FSDPStrategy follows",
        "HalfPrecision": "unit vectors and memory banks lose their length in half: use --trainer.precision bf16-mixed",
        "TransformerEnginePrecision": "it takes a dtype, which no file may name",
        "XLAPrecision": _NO_TPU,
        "TorchSyncBatchNorm": "use --trainer.sync_batchnorm true",
    },
    "lightning.pytorch.plugins.environments": {
        "ClusterEnvironment": _BASE_CLASS,
        "LSFEnvironment": "it is found by itself where it is: leave it out",
        "MPIEnvironment": "it is found by itself where it is: leave it out",
        "XLAEnvironment": _NO_TPU,
    },
    f"{OURS}.runs": {"Checkpointing": _IN_EVERY_RUN, "MetricsTable": _IN_EVERY_RUN},
    f"{OURS}.callbacks.write_report": {"WriteReport": _IN_EVERY_RUN},
    f"{OURS}.callbacks.sample_features": {"SampleFeatures": _IN_EVERY_RUN},
    f"{OURS}.callbacks.sample_training": {"SampleTrainingImages": _IN_EVERY_RUN},
}
"""Public classes of Lightning and this package that are not admitted, each with an alternative."""

WRITES = {
    "lightning.pytorch.loggers.csv_logs.CSVLogger": ("save_dir", "name", "version"),
    "lightning.pytorch.loggers.tensorboard.TensorBoardLogger": ("save_dir", "name", "version", "sub_dir"),
    "lightning.fabric.loggers.tensorboard.TensorBoardLogger": ("root_dir",),
    "lightning.pytorch.profilers.profiler.Profiler": ("dirpath", "filename"),
    "lightning.pytorch.callbacks.spike.SpikeDetection": ("exclude_batches_path",),
    f"{OURS}.callbacks.write_clusters.WriteClusters": ("path",),
}
"""Arguments of a class and its subclasses that become output paths or parts of them.

The first of each starts the path; the others are parts of it. See `runs.outputs`.
"""


def plugin_packages() -> tuple[str, ...]:
    """Packages from the environment variable; no file can extend this list."""
    names = (name.strip() for name in os.environ.get(VARIABLE, "").split(","))
    return tuple(name for name in names if name)


def check_plugins() -> None:
    """Raise for a package in the environment variable that Python does not find.

    Raises:
        UsageError: With the name.
    """
    for name in plugin_packages():
        top = name.partition(".")[0]
        if top != name and top.isidentifier():
            raise UsageError(f"found {name} in {VARIABLE}; expected the name of the whole package: give {top}")
        if not name.isidentifier() or find_spec(name) is None:
            raise UsageError(
                f"found {name} in {VARIABLE} and no package of that name; expected one that Python imports: "
                "install it, or add the folder that holds it to PYTHONPATH"
            )


@cache
def library_classes() -> dict[str, type]:
    """Every admitted class of a library under all of its names: public ones, and that of its definition."""
    found: dict[str, type] = {}
    for kind in KINDS:
        for module in kind.modules:
            rejected = REJECTED.get(module, {})
            for name, cls in _public_classes(module):
                if name not in rejected and kind.admits(cls):
                    found |= dict.fromkeys(_names(cls, f"{module}.{name}"), cls)
    return found


def rejection(name: str) -> str | None:
    """The reason why a public class of Lightning or this package is not admitted; None for any other name."""
    for module, reasons in REJECTED.items():
        for public, reason in reasons.items():
            cls = getattr(import_module(module), public)
            if name in _names(cls, f"{module}.{public}"):
                return reason
    return None


def written_arguments(cls: type) -> dict[str, bool]:
    """Arguments of a class that name its output paths, and for each whether it starts the path."""
    listed = [WRITES.get(class_path(base), ()) for base in cls.__mro__]
    return {name: position == 0 for names in listed for position, name in enumerate(names)}


def _public_classes(module: str) -> Iterator[tuple[str, type]]:
    """Classes under the public names of a module that are defined in its package."""
    holder = import_module(module)
    package = module.partition(".")[0]
    for name in getattr(holder, "__all__", None) or dir(holder):
        thing = getattr(holder, name)
        if inspect.isclass(thing) and not name.startswith("_") and thing.__module__.partition(".")[0] == package:
            yield name, thing


def _names(cls: type, public: str) -> set[str]:
    """The public name, the name of the definition, and the names in packages between them that contain the class."""
    parts = cls.__module__.split(".")
    packages = (".".join(parts[:length]) for length in range(1, len(parts) + 1))
    shared = {f"{package}.{cls.__name__}" for package in packages if _has(package, cls)}
    return {public, class_path(cls)} | shared


def _has(package: str, cls: type) -> bool:
    return getattr(import_module(package), cls.__name__, None) is cls
