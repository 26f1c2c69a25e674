"""embed: write the features of all images of a source to a file."""

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ssl_lightning.callbacks.embed import embed_images
from ssl_lightning.checkpoints.load import build_data, data_section, load_model
from ssl_lightning.checkpoints.plain import to_plain
from ssl_lightning.cli.config_names import find_config
from ssl_lightning.clustering.feature_file import FeatureFile
from ssl_lightning.commands.embed_parts import FeatureParts, FeatureSource
from ssl_lightning.commands.stage_images import OTHERS
from ssl_lightning.engines import ADDRESS, LOCAL, Job, RayCluster, engine_named
from ssl_lightning.errors import DataError, UsageError
from ssl_lightning.files import reject_unwritable, sha256_of
from ssl_lightning.methods.checks import reject_sizes
from ssl_lightning.runs.data_section import data_of_run
from ssl_lightning.types import Weights
from ssl_lightning.words import counted

log = logging.getLogger(__name__)


def main(
    checkpoint: str,
    out: str,
    data: str | None = None,
    layer: str | None = None,
    weights: Weights = "online",
    device: str = "auto",
    workers: int | None = None,
    part: str | None = None,
    engine: str = LOCAL,
) -> None:
    """Embed the training images of a source with the network in a checkpoint, and write their features to a file.

    Args:
        checkpoint: For example runs/NAME/checkpoints/last.ckpt.
        out: The file to write, <name>.safetensors.
        data: A configuration with a data section, a file or a name such as data/cifar10; by default the images of the
            run, which the checkpoint describes.
        layer: One of the method's layers; by default its first.
        weights: "ema" for the averaged weights of methods that have them (BYOL, MoCLR).
        device: cpu, cuda, or auto for a GPU where there is one.
        workers: Number of processes that compute parts, which a later command does not compute again; by default this
            process computes all features, or, with another engine, one for each core or GPU does.
        part: i/n computes the parts of job i of n only, for schedulers; the same command without it writes the file.
        engine: local for processes of this machine, ray for workers of Ray on it, or ray://<host>:<port> for a Ray
            cluster; its machines need checkpoint, images and `out` under the same paths.

    Raises:
        DataError: If a file is missing or does not fit the other.
        UsageError: If `out` cannot be written, or there is no such device.
    """
    if Path(out).suffix != ".safetensors":
        raise UsageError(f"found out={out}; expected a name that ends in .safetensors")
    job, folder = Job.parsed(part) if part else None, Path(f"{out}.parts")
    in_parts = engine != LOCAL or workers is not None or job is not None or folder.exists()
    computed_on = device_on(engine, device)
    gpus = int(computed_on.type == "cuda")
    chosen = engine_named(engine, 1 if workers is None and gpus and engine == LOCAL else workers, gpus)
    model = load_model(checkpoint)
    model.embed(torch.zeros(2, 3, *[model.preprocessing.image_size] * 2), layer, weights)  # rejects other names
    described = data_section(find_config(data), OTHERS) if data else data_of_run(checkpoint, "--data")
    given, own = described.get("init_args") or {}, to_plain(asdict(model.preprocessing))
    _log_other_preprocessing(given, own, data or checkpoint)
    described["init_args"] = given | own
    images = build_data(described, data or checkpoint)
    reject_unwritable(Path(out), "give another file to write")
    images.setup("predict")
    reject_sizes(model.backbone, model.constructor_arguments, images, "predict")
    file = Path(checkpoint).resolve()
    digest = sha256_of(file)
    metadata = {
        "data": images.fingerprint,
        "checkpoint": digest,
        "layer": layer or model.layers[0],
        "weights": weights,
        "data_config": json.dumps(described),
    }
    if not in_parts:
        rows, features = embed_images(model.to(computed_on), images, layer, weights=weights)
        FeatureFile(features, rows, images.labels[rows], metadata).save(out)
    else:
        source = FeatureSource(
            str(file), digest, json.dumps(described), images.fingerprint, layer, weights, computed_on.type
        )
        parts = FeatureParts(source, images.num_samples, images.eval_batch_size, folder)
        total, made = parts.make(chosen, job)
        if job is not None:
            print(f"{counted(total, 'part')}, {made} made now; next, after all jobs: the same command without --part")
            return
        rows, features, unreadable = parts.read()
        try:
            images.note_unreadable(unreadable)
        except DataError:
            parts.remove_those_of(unreadable)  # the images may be repaired before the command is given again
            raise
        FeatureFile(features, rows, images.labels[rows], metadata).save(out)
        parts.remove()
    print(f"wrote {out}: {features.shape[1]} features of {len(rows)} images; next: ssl-lightning choose-k {out}")


def device_on(engine: str, name: str) -> torch.device:
    """The device of an option, on the machines of an engine.

    Args:
        engine: See `engine_named`.
        name: See `device_named`.

    Raises:
        UsageError: There is no such device on this machine, or no such kind of devices.
    """
    if not engine.startswith(ADDRESS):
        return device_named(name)
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"found device={name!r}; expected cpu, cuda or auto on a cluster")
    has_gpus = name == "auto" and RayCluster(engine).gpus_of_cluster() > 0
    return torch.device("cuda" if has_gpus or name == "cuda" else "cpu")


def _log_other_preprocessing(given: dict[str, Any], own: dict[str, Any], source: str) -> None:
    """Log what a description of images sets otherwise than the network was trained with: the network counts."""
    for name, value in own.items():
        other = given.get(name, value)
        if other != value:
            log.info(f"found {name}={other} in {source}: images are embedded with {name}={value}, as in training")


def device_named(name: str) -> torch.device:
    """The device of an option.

    Args:
        name: cpu, cuda, cuda:<number>, or auto for a GPU where there is one.

    Raises:
        UsageError: There is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"found device={name!r}; expected cpu, cuda or auto") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"found device={name!r} and {torch.cuda.device_count()} CUDA devices; expected cpu or auto")
    return device
