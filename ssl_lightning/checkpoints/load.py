"""load_model, load_data: from the files of a run to its method, without data, and to the data it was trained on."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentError, ArgumentParser
from torch.nn.modules import module as torch_module

from ssl_lightning.checkpoints.addresses import reject_addresses
from ssl_lightning.checkpoints.allowlist import explain_rejection, restrict_imports
from ssl_lightning.checkpoints.kinds import OURS, Kind
from ssl_lightning.checkpoints.places import check_arguments, leave_out_default_functions
from ssl_lightning.checkpoints.plain import reject_unbounded
from ssl_lightning.checkpoints.read import CorruptCheckpointError, read_checkpoint
from ssl_lightning.errors import DataError
from ssl_lightning.safe_yaml import read_yaml

MOST_PARTS, PARTS_PER_TENSOR = 10_000, 10
"""Modules, parameters and buffers that are registered while a network is built. Those of admitted backbones alone have
up to some thousand; a network is allowed more where its file holds more tensors."""
METHOD, DATA = Kind(f"{OURS}.methods.method.Method"), Kind(f"{OURS}.data.module.ImageModule")


def load_model(path: str | Path) -> Any:
    """The method in a checkpoint, in eval mode on the CPU, weights and memories restored.

    Class and constructor arguments come from the checkpoint, through the import policy (SECURITY.md): a method of this
    package or of one in `SSL_LIGHTNING_PLUGINS`, with arguments of the declared types. Nothing is downloaded.

    Args:
        path: A `.ckpt` file of a run, for example `runs/<name>/checkpoints/last.ckpt`.

    Raises:
        DataError: If the file is missing or damaged, or names a class that is not admitted.
    """
    checkpoint = read_checkpoint(path)
    described = checkpoint.get("hyper_parameters", {})
    if not isinstance(described, dict) or "class_path" not in described:
        raise DataError(f"found {path} without a class_path in hyper_parameters; expected a checkpoint of this package")
    _reject_larger(described, checkpoint["state_dict"], path)
    method = _build(METHOD, described, path)
    try:
        method.load_state_dict(checkpoint["state_dict"])
    except (RuntimeError, LookupError, TypeError, AttributeError, ValueError) as error:
        first = [line.strip() for line in str(error).splitlines() if line.strip()][:2]
        raise CorruptCheckpointError(f"found weights in {path} that do not fit its own description: {first}") from error
    method.data_fingerprint = str((checkpoint.get("config") or {}).get("data_fingerprint", ""))  # type: ignore[assignment]
    return method.eval()


def load_data(run: str | Path) -> Any:
    """The data module that a run was trained on, from its `config.yaml`; it reads images where that one did.

    Args:
        run: Folder of the run, for example `runs/<name>`.

    Raises:
        DataError: If there is no readable config.yaml, or it names a class that is not admitted.
    """
    path = Path(run) / "config.yaml"
    return build_data(data_section(path, "expected the folder of a run"), path)


def data_section(path: str | Path, suggestion: str) -> dict[str, Any]:
    """The data section of a configuration, a table of `class_path` and `init_args`.

    Args:
        path: A YAML file, such as a run's `config.yaml` or one of configs/data.
        suggestion: What to do where there is none, for the error.

    Raises:
        DataError: The file is not there, is not readable, or has no data section.
    """
    try:
        return dict(read_yaml(path)["data"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"found no {path} with a data section ({error}); {suggestion}") from error


def described_data(metadata: dict[str, str], path: str | Path, suggestion: str) -> Any:
    """The data module that a stage file was made with, from the description in its metadata.

    Args:
        metadata: Of the file.
        path: The file, for the error.
        suggestion: What to do where there is no description, for the error.

    Raises:
        DataError: If there is none, or it names a class that is not admitted.
    """
    try:
        described = json.loads(metadata["data_config"])
    except (KeyError, ValueError, RecursionError) as error:
        raise DataError(f"found no description of the data in {path}; {suggestion}") from error
    return build_data(described, path)


def build_data(described: Any, path: str | Path) -> Any:
    """A data module from its description, a table of `class_path` and `init_args`.

    Args:
        described: The data section of a configuration.
        path: Where it was found, for the error.

    Raises:
        DataError: If it names a class that is not admitted, or does not fit.
    """
    return _build(DATA, described, path)


def _reject_larger(described: Any, state: dict[str, Any], path: str | Path) -> None:
    """Reject a description of a network that is larger than the weights that come with it.

    A few bytes describe more memory than there is, or more layers than anyone would wait for. On the meta device
    tensors take no memory, and layers are counted as they come.

    Raises:
        DataError: If so, or the description does not pass.
    """
    with torch.device("meta"), _at_most(MOST_PARTS + PARTS_PER_TENSOR * len(state)):
        method = _build(METHOD, described, path)
    wanted = sum(value.numel() for value in method.state_dict().values() if isinstance(value, torch.Tensor))
    held = sum(value.numel() for value in state.values() if isinstance(value, torch.Tensor))
    if wanted > held:
        raise CorruptCheckpointError(
            f"found weights in {path} that do not fit its own description: {held:,} numbers for a network of {wanted:,}"
        )


@contextmanager
def _at_most(parts: int) -> Iterator[None]:
    """End the building of a network of more parts than this.

    Raises:
        CorruptCheckpointError: From the constructor that registers the first of too many.
    """
    count = 0

    def note(*_: Any) -> None:
        nonlocal count
        count += 1
        if count > parts:
            raise CorruptCheckpointError(f"a network of more than {parts:,} modules and tensors")

    with ExitStack() as hooks:
        for kind in ("module", "parameter", "buffer"):
            handle = getattr(torch_module, f"register_module_{kind}_registration_hook")(note)
            hooks.callback(handle.remove)
        yield


_FAILURES = (ArgumentError, ArithmeticError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError)
"""What constructors raise for arguments that make no sense: a width of -1, a table for a number."""


def _build(kind: Kind, described: Any, path: str | Path) -> Any:
    """What a description of a stranger describes, once it has been held against the import policy.

    Raises:
        DataError: If it does not pass, or the constructor rejects it.
    """
    restrict_imports()
    try:
        reject_unbounded(described)
        reject_addresses(described)
        parser = ArgumentParser(exit_on_error=False)
        parser.add_subclass_arguments(kind.cls, "built", required=True)
        config = parser.parse_object({"built": deepcopy(described)})  # it changes what it is given
        leave_out_default_functions(check_arguments(config, {"built": kind.cls}, "", {}))
        return parser.instantiate(config)["built"]
    except _FAILURES as error:
        reason = explain_rejection(" ".join(str(error).split()))
        raise DataError(f"found {path}, which names what is not admitted or does not fit: {reason}") from error
