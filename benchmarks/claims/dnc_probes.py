"""What the claim of Divide and Contrast asks of finished networks."""

import statistics
from itertools import accumulate

import torch
from torch.nn import functional as F

from ssl_lightning.clustering import KMeans, normalized_mutual_info, purity
from ssl_lightning.data.views import center_view
from ssl_lightning.evaluation import KNN, LabelledFeatures, LinearProbe

OWN, SAME = "experts on their own parts, %", "the long base on the same, %"
NMI = "NMI of the clusters to the domains"
HIDDEN, POOLED = "vote of hidden-layer clusters, %", "vote of pooled clusters, %"


def evaluate(model, probes, device):
    """Percent of each domain and of their mean, by linear probe and k-NN."""
    answers = {"linear": {}, "k-NN 20": {}}
    for domain, (train, test, num_classes) in probes.items():
        seen = [LabelledFeatures(embed(model, images, device), labels, num_classes) for images, labels in (train, test)]
        answers["linear"][domain] = 100 * LinearProbe()(*seen)["linear/top1"]
        answers["k-NN 20"][domain] = 100 * KNN()(*seen)["knn/top1"]
    return {evaluate: values | {"mean": statistics.mean(values.values())} for evaluate, values in answers.items()}


@torch.inference_mode()
def embed(model, images, device, layer=None):
    """Features of the center views."""
    model = model.to(device)
    preprocessing = model.preprocessing
    views = (center_view(part.to(device), preprocessing.image_size) for part in images.split(512))
    return torch.cat([model.embed(preprocessing.normalize_(view), layer).cpu() for view in views])


def evaluate_clusters(base, long, experts, clusters, domains, probes, seed, device):
    """What the sub-claims ask for, of one seed.

    Args:
        base: Whose hidden layer was clustered.
        long: The base for the whole compute.
        experts: One a cluster.
        clusters: Of the pool.
        domains: Of each image of the pool.
        probes: As `dnc_pool.open_probes` gives them; classes of all domains are told apart in one list.
        seed: Of the clusterings that vote.
        device: Where the networks compute.
    """
    classes = [num_classes for _, _, num_classes in probes.values()]
    starts = list(accumulate(classes, initial=0))
    splits = []
    for split in (0, 1):
        images, labels = zip(*(probe[split] for probe in probes.values()), strict=True)
        numbered = [own + start for own, start in zip(labels, starts, strict=False)]
        splits.append((torch.cat(images), torch.cat(numbered)))
    hidden = [embed(base, images, device, "hidden") for images, _ in splits]
    homes = [(F.normalize(features, dim=1) @ clusters.centroids.T).argmax(1) for features in hidden]
    images, labels = splits[0]
    pooled = embed(base, images, device)
    return {
        OWN: own_parts(experts, splits, homes, sum(classes), device),
        SAME: own_parts([long] * len(experts), splits, homes, sum(classes), device),
        NMI: round(normalized_mutual_info(clusters.labels, domains), 4),
        HIDDEN: vote(hidden[0], labels, sum(classes), seed),
        POOLED: vote(pooled, labels, sum(classes), seed),
        "images of the clusters": clusters.sizes.tolist(),
        "test images of the clusters": homes[1].bincount(minlength=len(experts)).tolist(),
    }


def own_parts(models, splits, homes, num_classes, device):
    """Percent of all test images that a linear probe within their part, on the features of its model, gets right."""
    right = 0
    for part, model in enumerate(models):
        rows = [(home == part).nonzero().flatten() for home in homes]
        if min(len(own) for own in rows) < 2:
            continue
        seen = [
            LabelledFeatures(embed(model, images[own], device), labels[own], num_classes)
            for (images, labels), own in zip(splits, rows, strict=True)
        ]
        right += len(rows[1]) * LinearProbe()(*seen)["linear/top1"]
    return round(100 * right / len(homes[1]), 2)


def vote(features, labels, k, seed):
    """Percent of the images that have the commonest class of their cluster, in as many clusters as classes."""
    found = KMeans(metric="cosine", init="k-means++", iterations=50)(features, k, seed)
    shares = purity(found.labels, labels, k).nan_to_num()
    return round(100 * float((shares * found.sizes).sum() / len(labels)), 2)
