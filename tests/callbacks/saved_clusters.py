"""What the saved clusters of a finished run must be, by slow references on its last checkpoint."""

import numpy as np
import torch
from sklearn.cluster import KMeans as SklearnKMeans
from torch.nn import functional as F

from ssl_lightning import load_model
from ssl_lightning.callbacks.cluster_sources import filled_bank, prototypes_of
from ssl_lightning.clustering import Clustering
from ssl_lightning.clustering.list_file import read_list
from ssl_lightning.clustering.saved import cluster_files
from ssl_lightning.commands.stage_images import images_of
from ssl_lightning.types import UNLABELLED


def check_newest(run):
    """Compare the newest clusters of a run with a reference, and return their source."""
    file = cluster_files(run)[-1]
    clustering, metadata = Clustering.load(file)
    model = load_model(run / "checkpoints" / "last.ckpt").eval()
    data = images_of(metadata, str(file), None)
    data.setup("predict")
    assert metadata["data"] == data.fingerprint
    assert len(clustering.labels) == data.num_samples
    columns, made_for = read_list(file.with_suffix(".parquet"), ["row", "cluster"], data.num_samples)
    assert columns["cluster"].tolist() == clustering.labels.tolist()
    assert made_for == metadata["data"]
    checks = {
        "pseudo-labels": check_labels,
        "file": check_labels,
        "prototypes": check_prototypes,
        "memory-bank": check_bank,
        "features": check_features,
    }
    checks[metadata["source"]](clustering, model, data)
    return metadata["source"]


def embedded(model, data, layer):
    """Features of the center views, image by image; of readable images."""
    rows, features = [], []
    with torch.no_grad():
        for raw in data.predict_dataloader():
            batch = data.center(raw)
            rows.append(batch.index)
            features += [model.embed(image[None], layer) for image in batch.views[0]]
    return torch.cat(rows), torch.cat(features)


def check_labels(clustering, model, data):
    labels = model.pseudo_labels.rows[:, 0].long()
    assert torch.equal(clustering.labels, labels)
    assert len(clustering.sizes) == model.num_clusters


def check_prototypes(clustering, model, data):
    rows, embeddings = embedded(model, data, "projector")
    prototypes = prototypes_of(model).weight.detach()
    assert torch.equal(clustering.centroids, prototypes)
    found = clustering.labels[rows]
    for label, distance, embedding in zip(found, clustering.distances[rows], embeddings, strict=True):
        cosines = [float(F.cosine_similarity(embedding, prototype, dim=0)) for prototype in prototypes]
        # the best one up to the order of sums in batches
        assert cosines[label] >= max(cosines) - 1e-4
        assert abs(1 - cosines[label] - float(distance)) < 1e-3
    others = torch.ones(data.num_samples, dtype=torch.bool)
    others[rows] = False
    assert (clustering.labels[others] == UNLABELLED).all()


def check_bank(clustering, model, data):
    bank = filled_bank(model)
    check_objective(clustering, bank.valid.nonzero().squeeze(1), bank.rows[bank.valid])


def check_features(clustering, model, data):
    check_objective(clustering, *embedded(model, data, "backbone"))


def check_objective(clustering, rows, features):
    """The labels are as good as those of scikit-learn, in the sum of squares around the means of unit rows."""
    unit, found = F.normalize(features.double(), dim=1).numpy(), clustering.labels[rows].numpy()
    assert (found != UNLABELLED).all()
    known = torch.zeros(len(clustering.labels), dtype=torch.bool)
    known[rows] = True
    assert (clustering.labels[~known] == UNLABELLED).all()
    k = len(clustering.sizes)
    own = sum(np.square(unit[found == cluster] - unit[found == cluster].mean(0)).sum() for cluster in np.unique(found))
    theirs = SklearnKMeans(k, n_init=1, random_state=0).fit(unit).inertia_
    assert own <= 1.1 * theirs + 1e-6
