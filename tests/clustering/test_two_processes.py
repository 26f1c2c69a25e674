"""Two gloo processes find what one finds. One pair serves all cases."""

import json
import os
from itertools import product

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing

from ssl_lightning.clustering import FaissKMeans, HierarchicalKMeans, KMeans, PCAWhitening, RandomPartition
from ssl_lightning.processes import share_buffers
from tests.clustering.test_kmeans import mixture

CLUSTERERS = {
    **{
        f"KMeans {metric} {init} {empty}": KMeans(metric=metric, init=init, empty=empty)
        for metric, init, empty in product(("l2", "cosine"), ("random", "k-means++"), ("split", "keep"))
    },
    "KMeans on a sample": KMeans(max_points=300),
    "FaissKMeans l2": FaissKMeans(),
    "FaissKMeans cosine": FaissKMeans(metric="cosine", init="k-means++"),
    "HierarchicalKMeans": HierarchicalKMeans(levels=(40,), rounds=2),
    "RandomPartition l2": RandomPartition(),
    "RandomPartition cosine": RandomPartition(metric="cosine"),
}
pytestmark = pytest.mark.slow
ROWS, SHARES = 901, {0: slice(0, 550), 1: slice(550, 901)}
K = 12


def features():
    return mixture(ROWS, 10)


def bad_features(rank):
    """Something is wrong on the second process only."""
    rows = features()[SHARES[rank]]
    if rank == 1:
        rows[3, 0] = torch.nan
    return rows


def work(rank, folder):
    """All cases in one process of the pair."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    group = dist.group.WORLD
    own = features()[SHARES[rank]]
    found = {name: clusterer(own, K, 3, group) for name, clusterer in CLUSTERERS.items()}
    torch.save({name: vars(clustering) for name, clustering in found.items()}, f"{folder}/clusters-{rank}.pt")
    torch.save(PCAWhitening(6)(own, group), f"{folder}/white-{rank}.pt")
    nothing = features() if rank == 0 else features()[:0]
    torch.save(vars(KMeans()(nothing, K, 3, group)), f"{folder}/lopsided-{rank}.pt")
    layer = torch.nn.BatchNorm1d(4)
    layer(torch.full((6, 4), float(rank)) + torch.arange(6.0).unsqueeze(1) * (rank + 1))  # each by a batch of its own
    before = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    share_buffers(layer)
    torch.save({"before": before, "after": dict(layer.named_buffers())}, f"{folder}/buffers-{rank}.pt")
    errors = {}
    for name, rows, k in (("nan", bad_features(rank), K), ("too many", own, ROWS + 1)):
        for kind in (KMeans, FaissKMeans):
            with pytest.raises(ValueError, match="found") as caught:
                kind()(rows, k, 0, group)
            errors[f"{name} {kind.__name__}"] = str(caught.value)
    with open(f"{folder}/errors-{rank}.json", "w") as file:
        json.dump(errors, file)
    dist.barrier()  # neither leaves while the other still reads
    os._exit(0)  # gloo's threads may outlive the group, and abort a process that unwinds on a busy machine


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    context = multiprocessing.spawn(work, (str(folder),), nprocs=2, join=False)
    for _ in range(2):  # each call waits for one of them to end
        context.join(timeout=240)
    assert not any(process.is_alive() for process in context.processes), "the pair did not end"
    return folder


def read(folder, name):
    return [torch.load(folder / f"{name}-{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("name", CLUSTERERS)
def test_two_processes_cluster_as_one(pair, name):
    first, second = (part[name] for part in read(pair, "clusters"))
    alone = CLUSTERERS[name](features(), K, 3)
    for shared in ("centroids", "sizes"):
        assert torch.equal(first[shared], second[shared])
    assert first["objective"] == second["objective"]
    assert torch.allclose(first["centroids"], alone.centroids, atol=1e-5)
    assert torch.equal(torch.cat([first["labels"], second["labels"]]), alone.labels)
    assert torch.allclose(torch.cat([first["distances"], second["distances"]]), alone.distances, atol=1e-4)
    assert first["sizes"].tolist() == alone.sizes.tolist()
    assert first["objective"] == pytest.approx(alone.objective, rel=1e-5)


def test_two_processes_whiten_as_one(pair):
    assert torch.allclose(torch.cat(read(pair, "white")), PCAWhitening(6)(features()), atol=1e-5)


def test_a_process_may_have_no_rows(pair):
    first, second = read(pair, "lopsided")
    alone = KMeans()(features(), K, 3)
    assert torch.equal(first["labels"], alone.labels)
    assert len(second["labels"]) == 0
    assert torch.equal(second["centroids"], first["centroids"])


def test_what_is_wrong_on_one_process_is_rejected_on_both(pair):
    first, second = (json.loads((pair / f"errors-{rank}.json").read_text()) for rank in (0, 1))
    assert set(first) == set(second)
    assert all("in 1 rows" in errors[f"nan {kind}"] for errors in (first, second) for kind in ("KMeans", "FaissKMeans"))
    assert "on other processes" in first["nan KMeans"]
    assert "[553]" in second["nan KMeans"]
    assert first["too many KMeans"] == second["too many KMeans"]


def test_both_processes_have_the_running_statistics_of_the_first(pair):
    """Or a run that is resumed from its checkpoint, which holds those of the first, would find other clusters."""
    first, second = read(pair, "buffers")
    assert not torch.equal(first["before"]["running_mean"], second["before"]["running_mean"])
    for name, buffer in first["before"].items():
        assert torch.equal(first["after"][name], buffer)
        assert torch.equal(second["after"][name], buffer)
