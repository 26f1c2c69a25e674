"""Runs side by side: numbers of their tables, settings, curves, and similarity of features."""

import pandas as pd
import pytest
import torch

from ssl_lightning.errors import DataError, UsageError
from ssl_lightning.evaluation.similarity import linear_cka
from ssl_lightning.inspect import (
    differing_settings,
    draw_curves,
    draw_similarity,
    feature_similarity,
    features,
    load_run,
    load_runs,
    results,
    run_facts,
)


def test_results_are_those_of_the_metrics_tables_in_percent(deepcluster, simclr):
    paths = [deepcluster, simclr]
    last, first, best = (results(paths, which) for which in ("last", "first", "best"))
    assert last.index.tolist() == first.index.tolist() == best.index.tolist() == ["deepcluster", "simclr"]
    for path in paths:
        logged = load_run(path).metrics["eval/knn/top1"].dropna()
        assert first.loc[path.name, "k-NN 20"] == pytest.approx(100 * logged.iloc[0])
        assert last.loc[path.name, "k-NN 20"] == pytest.approx(100 * logged.iloc[-1])
        assert best.loc[path.name, "k-NN 20"] == pytest.approx(100 * logged.iloc[1:].max())
    assert (first.step.tolist(), last.step.tolist()) == ([0, 0], [2, 2])


def test_facts_and_settings_are_those_of_the_folders(deepcluster, simclr):
    facts = run_facts([deepcluster, simclr])
    assert facts.method.tolist() == ["DeepCluster", "SimCLR"]
    assert facts.state.tolist() == ["finished", "finished"]
    assert facts.minutes.gt(0).all()
    settings = differing_settings([str(deepcluster), str(simclr)])
    assert settings.loc["model.init_args.num_clusters"].tolist() == ["12", "-"]
    assert "data.init_args.batch_size" not in settings.index
    assert len(differing_settings([simclr, simclr])) == 0


def test_curves_have_a_panel_for_each_metric_with_values(deepcluster, simclr):
    figure = draw_curves([deepcluster, simclr], ["train/loss", "eval/knn/top1", "train/none"])
    assert [axes.get_title() for axes in figure.axes] == ["train/loss", "eval/knn/top1"]
    assert draw_curves([deepcluster], ["train/none"]) == "no run has logged train/none"


def test_features_of_runs_are_compared_on_the_same_images(deepcluster, simclr, swav):
    runs = load_runs([deepcluster, simclr, swav])
    table = feature_similarity(runs, max_images=80)
    a, b = (features(runs[name], max_images=80).values for name in ("simclr", "swav"))
    assert table.loc["simclr", "swav"] == pytest.approx(linear_cka(a, b))
    other = load_run(simclr)
    other.data.training = other.data.training.select(torch.arange(200))
    with pytest.raises(UsageError, match="found a, b trained on different images"):
        feature_similarity({"a": runs["swav"], "b": other})


def test_a_folder_that_is_no_run_is_one_line(tmp_path):
    with pytest.raises(DataError, match="which is no folder of a run"):
        results([tmp_path])


def test_long_names_leave_room_for_the_numbers_of_a_map_of_similarities():
    names = ["local_aggregation-cifar10-s0", "deepcluster-cifar10-s0"]
    figure = draw_similarity(pd.DataFrame([[1.0, 0.3], [0.3, 1.0]], names, names))
    figure.draw_without_rendering()
    assert figure.axes[0].get_window_extent().width / figure.dpi > 2 * 0.35
