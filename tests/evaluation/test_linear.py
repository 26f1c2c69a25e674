"""The linear probe against scikit-learn's ridge and logistic regression, by hand, and what it may not look at."""

import math

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ssl_lightning.evaluation import LabelledFeatures, LinearProbe, LowShot
from ssl_lightning.evaluation import linear as module
from ssl_lightning.evaluation.columns import Columns
from tests.evaluation.test_knn import random_split

NAMES = {"ridge": "ridge", "logistic": "linear"}
"""The name in metrics of each classifier."""
both = pytest.mark.parametrize("classifier", ["ridge", "logistic"])


@both
def test_one_hot_features_are_classified_without_a_mistake(classifier):
    labels = torch.arange(10).repeat(20)
    split = LabelledFeatures(torch.eye(10)[labels], labels, 10)
    name = NAMES[classifier]
    assert LinearProbe(classifier=classifier)(split, split) == {f"{name}/top1": 1.0, f"{name}/top5": 1.0}


@pytest.mark.parametrize("penalty", [1e-3, 0.1, 10.0])
def test_its_scores_are_those_of_scikit_learn_with_the_same_penalty(penalty):
    train, test = random_split(300, width=8), random_split(50, width=8, seed=1)
    scaler = StandardScaler().fit(train.features.numpy())
    theirs = Ridge(alpha=penalty * 300)  # the mean eigenvalue of standardized features is 1; they do not divide by N
    theirs.fit(scaler.transform(train.features.numpy()), torch.nn.functional.one_hot(train.labels, 5).numpy())
    expected = torch.from_numpy(theirs.predict(scaler.transform(test.features.numpy()))).float()
    sums = module._Sums.of(train.features, train.labels, 5)
    found = module._scores(module._Ridge(sums).weights(penalty), test.features)
    assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("penalty", [1e-3, 0.1, 10.0])
def test_its_logits_are_those_of_scikit_learns_logistic_regression(penalty, monkeypatch):
    train, test = random_split(300, width=8), random_split(50, width=8, seed=1)
    scaler = StandardScaler().fit(train.features.numpy())
    theirs = LogisticRegression(C=1 / (penalty * 300), tol=1e-8, max_iter=1000)  # of the sum over rows, not the mean
    theirs.fit(scaler.transform(train.features.numpy()), train.labels.numpy())
    expected = torch.from_numpy(theirs.decision_function(scaler.transform(test.features.numpy()))).float()
    solver = module._Ridge(module._Sums.of(train.features, train.labels, 5))

    def logits():
        scores = module._scores(solver.logistic_weights(train.features, train.labels, penalty), test.features)
        return scores - scores.mean(1, keepdim=True)  # one number for all classes means nothing

    assert (logits() - expected).abs().max() < 0.05 * expected.abs().max()
    monkeypatch.setattr(module, "AT_REST", 0.0)
    monkeypatch.setattr(module, "MOST_STEPS", 3000)
    assert torch.allclose(logits(), expected, atol=5e-3)


def test_the_logistic_classifier_reads_digits_better_than_squares_do():
    images, classes = load_digits(return_X_y=True)
    features, labels = torch.tensor(images).float(), torch.tensor(classes)
    rows = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, test = (LabelledFeatures(features[part], labels[part], 10) for part in (rows[:1400], rows[1400:]))
    ridge, logistic = (
        LinearProbe(classifier=name)(train, test)[f"{NAMES[name]}/top1"] for name in ("ridge", "logistic")
    )
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
    theirs.fit(train.features.numpy(), train.labels.numpy())
    assert logistic > ridge + 0.005
    assert logistic > theirs.score(test.features.numpy(), test.labels.numpy()) - 0.01


def test_sums_of_a_part_taken_away_leave_the_sums_of_the_rest():
    train = random_split(100)
    rest = module._Sums.of(train.features, train.labels, 5) - module._Sums.of(train.features[:30], train.labels[:30], 5)
    expected = module._Sums.of(train.features[30:], train.labels[30:], 5)
    assert rest.rows == 70
    for name in ("x", "y", "xx", "xy"):
        assert torch.allclose(getattr(rest, name), getattr(expected, name), atol=1e-3)


@both
def test_test_labels_cannot_change_what_it_predicts(classifier):
    train, test = random_split(200), random_split(100, seed=1)
    shuffled = LabelledFeatures(test.features, test.labels.flip(0), 5)
    probe = LinearProbe(classifier=classifier)
    scores = probe.scores(train, test.features)
    for split in (test, shuffled):
        expected = float((scores.argmax(1) == split.labels).double().mean())
        assert probe(train, split)[f"{NAMES[classifier]}/top1"] == pytest.approx(expected)


def test_the_penalty_that_wins_on_the_held_out_fifth_is_taken(monkeypatch):
    """Few rows and many directions of noise: no penalty overfits, the largest gives up nothing."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (60,), generator=generator)
    noise = torch.randn(60, 200, generator=generator)
    train = LabelledFeatures(torch.cat([labels.float().unsqueeze(1) * 2, noise], 1), labels, 2)
    used, plain = [], module._Ridge.weights
    monkeypatch.setattr(module._Ridge, "weights", note(used, plain))
    LinearProbe(classifier="ridge").scores(train, train.features)
    assert len(used) == len(module.PENALTIES) + 1
    held = torch.randperm(60, generator=torch.Generator().manual_seed(0))[:12]
    centered = Columns.of(train.features)(train.features)
    scores = [module._scores(fitted, centered[held]) for _, fitted in used[:-1]]
    tops = [float((score.argmax(1) == labels[held]).double().mean()) for score in scores]
    best = max(range(len(tops)), key=lambda i: (tops[i], module.PENALTIES[i]))
    assert used[-1][0] == module.PENALTIES[best]


def note(used, function):
    def noted(self, penalty):
        fitted = function(self, penalty)
        used.append((penalty, fitted))
        return fitted

    return noted


@both
def test_a_constant_or_shifted_feature_does_no_harm(classifier):
    train, test = random_split(300), random_split(100, seed=1)
    probe = LinearProbe(classifier=classifier)
    name = f"{NAMES[classifier]}/top1"
    expected = probe(train, test)[name]

    def changed(split):
        constant = torch.full((len(split.labels), 1), 7.0)
        return LabelledFeatures(torch.cat([1000 + 3 * split.features, constant], 1), split.labels, 5)

    assert probe(changed(train), changed(test))[name] == pytest.approx(expected, abs=0.021)


@both
def test_features_that_are_all_equal_give_the_commonest_class(classifier):
    labels = torch.tensor([0] * 30 + [1] * 50 + [2] * 20)
    split = LabelledFeatures(torch.full((100, 6), 0.1), labels, 3)
    assert LinearProbe(classifier=classifier)(split, split)[f"{NAMES[classifier]}/top1"] == 0.5


@both
def test_a_class_without_training_rows_is_never_predicted(classifier):
    train, test = random_split(200), random_split(100, seed=1)
    wider = LabelledFeatures(train.features, train.labels, 8)
    assert int(LinearProbe(classifier=classifier).scores(wider, test.features).argmax(1).max()) < 5


def test_splits_without_a_common_class_are_undefined():
    train = random_split(50)
    strangers = LabelledFeatures(train.features, train.labels + 5, 10)
    assert math.isnan(LinearProbe()(LabelledFeatures(train.features, train.labels, 10), strangers)["linear/top1"])


@pytest.mark.parametrize("seed", range(20))
def test_odd_label_sets_give_numbers_between_none_and_all(seed):
    generator = torch.Generator().manual_seed(seed)
    rows = int(torch.randint(2, 40, (), generator=generator))
    labels = torch.randint(1, 9, (rows,), generator=generator)  # class 0 and 9 never occur, others once or not at all
    split = LabelledFeatures(torch.randn(rows, 6, generator=generator), labels, 10)
    for probe in (LinearProbe(), LinearProbe(classifier="ridge"), LowShot()):
        for name, value in probe(split, split).items():
            assert 0 <= value <= 1, name


def test_evaluating_samples_nothing_from_the_global_generator():
    train = random_split(100)
    before = torch.get_rng_state()
    first = LinearProbe(seed=3)(train, train) | LowShot(seed=3)(train, train)
    assert torch.equal(before, torch.get_rng_state())
    assert LinearProbe(seed=3)(train, train) | LowShot(seed=3)(train, train) == first


def test_low_shot_takes_its_share_of_every_class_and_at_least_one_image():
    labels = torch.cat([torch.zeros(500), torch.ones(100), torch.full((3,), 2.0)]).long()
    rows = LowShot().rows(labels, 0.1)
    assert torch.bincount(labels[rows]).tolist() == [50, 10, 1]
    assert len(set(rows.tolist())) == 61
    few = LowShot().rows(labels, 0.01)
    assert torch.bincount(labels[few]).tolist() == [5, 1, 1]
    assert set(few.tolist()) <= set(rows.tolist())


def test_low_shot_is_the_linear_probe_on_those_rows_and_reports_how_many_they_were():
    train, test = random_split(300), random_split(100, seed=1)
    probe = LowShot(shares=(0.1,))
    rows = probe.rows(train.labels, 0.1)
    part = LabelledFeatures(train.features[rows], train.labels[rows], 5)
    expected = LinearProbe()(part, test)["linear/top1"]
    assert probe(train, test) == {"lowshot/10pct": expected, "lowshot/10pct/share": len(rows) / 300}


def test_more_labels_help():
    train, test = random_split(3000), random_split(1000, seed=1)
    answers = LowShot(shares=(0.01, 1.0))(train, test)
    assert answers["lowshot/1pct"] < answers["lowshot/100pct"] == LinearProbe()(train, test)["linear/top1"]


@pytest.mark.parametrize("shares", [(), (0.0,), (0.1, 1.5)])
def test_shares_that_make_no_sense_are_rejected(shares):
    with pytest.raises(ValueError, match="expected fractions"):
        LowShot(shares=shares)


def test_logistic_regression_is_the_default_and_each_classifier_has_its_name():
    train, test = random_split(300), random_split(100, seed=1)
    logistic, ridge = LinearProbe()(train, test), LinearProbe(classifier="ridge")(train, test)
    assert LinearProbe() == LinearProbe(classifier="logistic")
    assert set(logistic) == {"linear/top1"}
    assert set(ridge) == {"ridge/top1"}
    wider = LabelledFeatures(train.features, train.labels, 8)
    assert set(LinearProbe(classifier="ridge")(wider, test)) == {"ridge/top1", "ridge/top5"}


@pytest.mark.parametrize("rows", [60, 600])
def test_the_logistic_penalty_is_chosen_on_the_held_out_fifth(rows, monkeypatch):
    """Many directions of noise: the penalty that is used is the best of those that were tried, and a large one."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (rows,), generator=generator)
    noise = torch.randn(rows, 200, generator=generator)
    train = LabelledFeatures(torch.cat([labels.float().unsqueeze(1) * 2, noise], 1), labels, 2)
    used, plain = [], module._Ridge.logistic_weights

    def noted(self, features, labels, penalty, *rest):
        fitted = plain(self, features, labels, penalty, *rest)
        used.append((penalty, len(features), fitted))
        return fitted

    monkeypatch.setattr(module._Ridge, "logistic_weights", noted)
    LinearProbe().scores(train, train.features)
    held = torch.randperm(rows, generator=torch.Generator().manual_seed(0))[: rows // 5]
    centered = Columns.of(train.features)(train.features)
    tried = {
        penalty: module._top(module._scores(fitted, centered[held]), labels[held], 1)
        for penalty, _, fitted in used[:-1]
    }
    assert all(count == rows - rows // 5 for _, count, _ in used[:-1])
    chosen, count, _ = used[-1]
    assert count == rows
    assert tried[chosen] == max(tried.values())
    assert chosen == max(penalty for penalty, top in tried.items() if top == tried[chosen])
    assert chosen >= 0.01


def test_on_digits_it_is_as_accurate_as_scikit_learn_with_the_best_of_many_penalties():
    images, classes = load_digits(return_X_y=True)
    features, labels = torch.tensor(images).float(), torch.tensor(classes)
    rows = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    train, test = (LabelledFeatures(features[part], labels[part], 10) for part in (rows[:1400], rows[1400:]))
    scores = []
    for strength in (0.001, 0.01, 0.1, 1.0):
        theirs = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500))
        theirs.fit(train.features.numpy(), train.labels.numpy())
        scores.append(theirs.score(test.features.numpy(), test.labels.numpy()))
    assert LinearProbe()(train, test)["linear/top1"] > max(scores) - 0.01
