"""A probe without a defined result logs its name, what it found and what it expects, in one line for each reason."""

import math

import pytest
import torch

from ssl_lightning.evaluation import KNN, ClusterAgreement, FewShot, LabelledFeatures, LinearProbe, LowShot
from ssl_lightning.evaluation.probe import undefined


def split(labels, num_classes=6):
    features = torch.randn(len(labels), 4, generator=torch.Generator().manual_seed(0))
    return LabelledFeatures(features, torch.tensor(labels, dtype=torch.int64), num_classes)


PLENTY = split([0, 1, 2, 3, 4, 5] * 6)
CASES = {
    "linear": (LinearProbe(), split([0, 1]), split([2, 3]), "LinearProbe's linear/top1", "2 test rows, 0 of known"),
    "low-shot": (LowShot(shares=(0.5,)), split([0, 1]), split([2, 3]), "LinearProbe's linear/top1", "0 of known"),
    "knn": (KNN(), PLENTY, split([]), "KNN's knn/top1", "36 training and 0 test rows"),
    "few-shot": (FewShot(shots=(5,)), PLENTY, PLENTY, "FewShot's fewshot/5way5shot", "0 classes with 10 test rows"),
    "clusters": (ClusterAgreement(), PLENTY, split([0, 1]), "ClusterAgreement's clusters/nmi", "2 test rows"),
}


@pytest.mark.parametrize("case", CASES)
def test_an_undefined_metric_logs_its_reason_once(case, caplog):
    evaluate, train, test, name, found = CASES[case]
    undefined.cache_clear()
    answers = [evaluate(train, test), evaluate(train, test)]
    assert any(math.isnan(value) for value in answers[1].values())
    (line,) = (record.message for record in caplog.records)
    assert line.startswith(f"{name} is NaN: found ")
    assert found in line
    assert "; expected " in line


def test_answers_cost_no_line(caplog):
    for evaluate in (LinearProbe(), KNN(), FewShot(shots=(1,)), ClusterAgreement()):
        assert not any(math.isnan(value) for value in evaluate(PLENTY, PLENTY).values())
    assert not caplog.records
