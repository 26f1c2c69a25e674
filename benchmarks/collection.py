"""The walk-through of docs/uncurated.md on real images: a pool raw, without duplicates, and curated, at equal steps.

    SSL_LIGHTNING_DATA=<folder of the shards, cifar10, flowers, tinyimagenet and omniglot.tar.xz> \
        python benchmarks/collection.py --out FOLDER [--steps 920] [--seeds 0 1] [--help]

1. Manifest of the six shards, with their kinds as labels.
2. SwAV on the whole pool, each seed (`pool`).
3. Duplicates (`kept`), and features of seed 0 of the pool, from which a subset of 2,000 images without duplicates is
   sampled evenly over clusters (`curated`) and at random (`uniform`).
4. SwAV on each subset, for equally many steps of equal batches, each seed.
5. Linear probe, k-NN and few-shot of all networks on the four evaluation sets, and how far k-means clusters of the
   features of all images agree with the kinds: NMI and purity with 18 clusters, untrained and trained.

Each step is a command of the package, and a finished step is not repeated. Writes `collection.json`.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from pyarrow import parquet

from ssl_lightning import load_model
from ssl_lightning.callbacks.embed import embed_images
from ssl_lightning.clustering import KMeans, normalized_mutual_info
from ssl_lightning.clustering.feature_file import FeatureFile
from ssl_lightning.data import UncuratedImages

ARMS = ("pool", "kept", "curated", "uniform")
SIZE, BATCH = 2_000, 128


def command(folder: Path, done: Path, *words: str) -> None:
    """Run a command of the package, unless its result is there."""
    if done.exists():
        return
    log = folder / "logs" / f"{done.parent.name if done.name == 'done.json' else done.name}.txt"
    log.parent.mkdir(exist_ok=True)
    with log.open("w") as file:
        line = [sys.executable, "-m", "ssl_lightning", *words]
        code = subprocess.run(line, cwd=folder, stdout=file, stderr=subprocess.STDOUT, env=environment()).returncode
    if code:
        sys.exit(f"{' '.join(words)} ended with {code}: {log.read_text()[-1500:]}")


def environment() -> dict[str, str]:
    root = str(Path(__file__).parents[1])
    data = str(Path(os.environ["SSL_LIGHTNING_DATA"]).resolve())
    return os.environ | {"PYTHONPATH": root, "SSL_LIGHTNING_DATA": data}


def fit(folder: Path, arm: str, seed: int, steps: int, epochs: int) -> None:
    subset = [] if arm == "pool" else ["--data.subset.path", f"{arm}.parquet"]
    name = f"{arm}-s{seed}"
    recipe = ["--config", "swav", "--config", "data/pool", "--config", "scale/cpu", "--data.batch_size", str(BATCH)]
    length = ["--trainer.max_steps", str(steps), "--trainer.max_epochs", str(epochs)]
    rare = ["--trainer.check_val_every_n_epoch", str(epochs), "--trainer.enable_progress_bar", "false"]
    own = ["--seed_everything", str(seed), "--run.name", name]
    command(folder, folder / "runs" / name / "done.json", "fit", *recipe, *subset, *length, *rare, *own)


def prepare(folder: Path, steps: int, epochs: int) -> None:
    shards = str(Path(os.environ["SSL_LIGHTNING_DATA"]).resolve() / "uncurated-*.tar")
    labels = ["--label", "json:kind", "--metadata", "true"]
    command(folder, folder / "pool.parquet", "data", "build", shards, "--out", "pool.parquet", *labels)
    fit(folder, "pool", 0, steps, epochs)
    command(folder, folder / "kept.parquet", "data", "dedup", "pool.parquet", "--out", "kept.parquet")
    command(
        folder, folder / "pool-s0.safetensors", "embed", "runs/pool-s0/checkpoints/last.ckpt", "pool-s0.safetensors"
    )
    for method, name in (("hierarchical", "curated"), ("uniform", "uniform")):
        given = ["--features", "pool-s0.safetensors", "--size", str(SIZE), "--subset", "kept.parquet"]
        command(
            folder, folder / f"{name}.parquet",
            "data", "curate", "pool.parquet", *given, "--method", method, "--out", f"{name}.parquet",
        )  # fmt: skip


def accuracies(run: Path) -> dict[str, dict[str, float]]:
    """The first and the last evaluation of a run."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if any(row[name] for name in row if name.startswith("eval/"))]
    first, last = (
        {name: float(row[name]) for name in row if name.startswith("eval/") and row[name]}
        for row in (rows[0], rows[-1])
    )
    return {"untrained": first, "trained": last}


def against_kinds(features: torch.Tensor, kinds: np.ndarray) -> dict[str, float]:
    """Agreement of k-means clusters with the kinds: NMI, and the share of images of the main kind of their cluster."""
    k = int(kinds.max()) + 1
    labels = KMeans(metric="cosine", init="k-means++")(features, k, seed=0).labels
    counts = np.zeros((k, k), dtype=int)
    np.add.at(counts, (labels.numpy(), kinds), 1)
    nmi = normalized_mutual_info(labels, torch.from_numpy(kinds))
    return {"nmi": float(nmi), "purity": float(counts.max(1).sum() / len(kinds))}


def untrained_features(folder: Path, seed: int) -> torch.Tensor:
    """Features of all images by a network with random initial weights."""
    trained = load_model(folder / "runs" / f"pool-s{seed}" / "checkpoints" / "last.ckpt")
    torch.manual_seed(seed)
    model = type(trained)(**trained.constructor_arguments)
    data = UncuratedImages(path=str(folder / "pool.parquet"), **asdict(model.preprocessing))
    data.setup("predict")
    return embed_images(model.eval(), data)[1]


def entropy(folder: Path, arm: str, kinds: np.ndarray, ids: np.ndarray) -> float:
    """Entropy of the shares of the kinds, 1 for equal shares."""
    kept = np.ones(len(ids), dtype=bool)
    if arm != "pool":
        table = parquet.read_table(folder / f"{arm}.parquet").to_pydict()
        chosen = {sample for sample, is_kept in zip(table["sample_id"], table["kept"], strict=True) if is_kept}
        kept = np.array([sample in chosen for sample in ids.tolist()])
    shares = np.bincount(kinds[kept]) / kept.sum()
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum() / np.log(len(np.unique(kinds))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=920)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    given = parser.parse_args()
    folder, epochs = given.out.resolve(), 10_000
    folder.mkdir(parents=True, exist_ok=True)
    prepare(folder, given.steps, epochs)
    for seed in given.seeds:
        for arm in ARMS:
            fit(folder, arm, seed, given.steps, epochs)
            name = f"{arm}-s{seed}"
            command(folder, folder / f"{name}.safetensors", "embed", f"runs/{name}/checkpoints/last.ckpt",
                    f"{name}.safetensors", "--data", "data/pool")  # fmt: skip
    table = parquet.read_table(folder / "pool.parquet", columns=["sample_id", "label", "status"]).to_pandas()
    table = table[table["status"] == "ok"].sort_values("sample_id")
    _, kinds = np.unique(table["label"].to_numpy(str), return_inverse=True)
    ids = table["sample_id"].to_numpy()
    found = {
        arm: {
            "entropy": entropy(folder, arm, kinds, ids),
            **{
                f"seed {seed}": accuracies(folder / "runs" / f"{arm}-s{seed}")
                | {"kinds": against_kinds(FeatureFile.load(folder / f"{arm}-s{seed}.safetensors").features, kinds)}
                for seed in given.seeds
            },
        }
        for arm in ARMS
    }
    found["untrained"] = {
        f"seed {seed}": against_kinds(untrained_features(folder, seed), kinds) for seed in given.seeds
    }
    (folder / "collection.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
