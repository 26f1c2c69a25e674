"""The rules of benchmarks/claims/ in closed cases, and which options reach which cell."""

import io
import json
import math
import sys
import tarfile
from itertools import permutations, product
from pathlib import Path

import pytest
import torch

CLAIMS = Path(__file__).parents[2] / "benchmarks" / "claims"


@pytest.fixture(autouse=True)
def claims(monkeypatch):
    monkeypatch.syspath_prepend(str(CLAIMS))


@pytest.mark.parametrize(
    ("ours", "theirs", "wins"),
    [
        ([2, 3, 4], [1, 2, 3], True),  # on every seed
        ([1, 2, 3], [2, 3, 4], False),
        ([1, 2, 3], [1, 2, 3], False),  # no difference at all
        ([11, 9, 10], [10, 9, 8], False),  # 1, 0, 2: the mean is one deviation
        ([3.0, 2.9, 2.0], [1.0, 1.0, 2.0], False),  # 2, 1.9, 0: the mean 1.3, the deviation 1.13
        ([10, 10, 10], [10, 8, 8], False),  # 0, 2, 2: 1.33 against 2 x 1.15
        ([10.0, 10.0, 10.1], [9.0, 9.0, 9.0], True),
    ],
)
def test_an_arm_wins_on_every_seed_or_by_two_deviations(ours, theirs, wins):
    from cells import beats

    assert beats(ours, theirs) is wins
    assert not (wins and beats(theirs, ours))


def test_two_deviations_win_where_one_seed_of_many_is_lost():
    from cells import beats

    assert beats([5.0] * 9 + [3.9], [4.0] * 10)  # 0.89 with a deviation of 0.35
    assert not beats([5.0] * 9 + [2.9], [4.0] * 10)  # 0.79 with one of 0.66


@pytest.mark.parametrize("steps", [6, 7, 8])
def test_a_jump_is_what_the_loss_rises_by_after_clusterings_but_the_first(steps):
    from cells import Scale
    from v2_against_v1 import K, jump

    scale = Scale(epochs=4, pictures=128 * steps)
    losses = [1.0 + 0.3 * (step // steps) for step in range(4 * steps)]  # a stair of 0.3 at every epoch
    rows = [{"step": str(end), "train/loss": str(sum(losses[end - 3 : end]) / 3)} for end in range(3, 4 * steps + 1, 3)]
    assert jump([*rows, {"step": "5", "train/loss": ""}], scale) == pytest.approx(30 / math.log(K))


def test_matching_finds_the_names_that_keep_most_pictures():
    from arms import matching

    names = torch.tensor([3, 0, 4, 1, 2])
    before = torch.arange(5).repeat_interleave(4)
    now = names.argsort()[before]  # the same clusters with other numbers
    assert matching(before, now, 5).tolist() == names.tolist()
    generator = torch.Generator().manual_seed(0)
    before, now = (torch.randint(4, (50,), generator=generator) for _ in range(2))
    found = matching(before, now, 4)
    kept = {order: int((torch.tensor(order)[now] == before).sum()) for order in permutations(range(4))}
    assert sorted(found.tolist()) == [0, 1, 2, 3]
    assert int((found[now] == before).sum()) == max(kept.values())


@pytest.mark.parametrize("script", ["v2_against_v1", "swav_parts"])
def test_both_scripts_take_the_scale_from_their_options(script, monkeypatch, tmp_path):
    import cells

    module = __import__(script)
    monkeypatch.setattr(sys, "argv", [script])
    _, scale, jobs, minutes = cells.parse("", script, module.EPOCHS)
    assert scale == cells.Scale(module.EPOCHS, 8, 16, 10_000, "cpu")
    assert (jobs, minutes) == (2, math.inf)
    larger = ["--width", "64", "--image-size", "32", "--pictures", "50000", "--epochs", "5", "--accelerator", "gpu"]
    monkeypatch.setattr(sys, "argv", [script, *larger, "--jobs", "3", "--minutes", "8.5", "--out", str(tmp_path)])
    folder, scale, jobs, minutes = cells.parse("", script, module.EPOCHS)
    assert (folder, jobs, minutes) == (tmp_path, 3, 8.5)
    assert scale == cells.Scale(5, 64, 32, 50_000, "gpu")
    assert scale.steps == 390
    assert scale.settings()["model"]["init_args"]["backbone"]["init_args"] == {"width": 64}
    assert scale.settings()["data"]["init_args"] == {"image_size": 32, "batch_size": 128}


def test_a_folder_keeps_its_scale_and_finished_cells_are_not_begun_again(tmp_path):
    import cells

    arm, small = cells.Arm("base", "swav.yaml", {}), cells.Scale(1)
    cells.keep_scale(tmp_path / "scale.json", small)
    cells.keep_scale(tmp_path / "scale.json", small)
    with pytest.raises(SystemExit, match=r"another scale.*--out"):
        cells.keep_scale(tmp_path / "scale.json", cells.Scale(2))
    assert json.loads((tmp_path / "scale.json").read_text())["epochs"] == 1
    done = tmp_path / "runs" / cells.cell_name(arm, 0)
    done.mkdir(parents=True)
    (done / "done.json").write_text("{}")
    assert cells.run_cell(arm, 0, tmp_path, small)
    assert not cells.run_cell(arm, 1, tmp_path, small, end=0.0)  # no time is left to begin it


def of_all_noises(**kinds):
    return {f"{kind} p={noise:g}": values for kind, row in kinds.items() for noise, values in row.items()}


def test_clusterfit_is_judged_at_each_noise_and_its_lead_over_all():
    from clusterfit_label_noise import outcomes

    linear = of_all_noises(
        ClusterFit={0.0: [50, 50, 50], 0.5: [50, 50, 50], 0.8: [50, 50, 50]},
        longer={0.0: [60, 60, 60], 0.5: [51, 49, 50], 0.8: [45, 46, 47]},
        distilled={0.0: [50, 50, 50], 0.5: [51, 52, 53], 0.8: [49, 49, 49]},
    )
    agreement = {("clusters", 0.5): [9, 9, 9], ("labels", 0.5): [8, 9, 8]}
    agreement |= {("clusters", 0.8): [9, 9, 9], ("labels", 0.8): [1, 2, 1]}
    told = "clusters say more of the classes than the noisy labels do"
    assert outcomes(linear, agreement) == {
        "ClusterFit beats longer pretraining at p=0.5": "undecided at this size",
        "ClusterFit beats distillation at p=0.5": "fails",
        f"{told} at p=0.5": "fails",  # not on the second seed
        "ClusterFit beats longer pretraining at p=0.8": "holds",
        "ClusterFit beats distillation at p=0.8": "holds",
        f"{told} at p=0.8": "holds",
        "its lead over longer pretraining grows with the noise": "holds",
    }
    level = linear | {"longer p=0.5": [60, 60, 60]}
    assert outcomes(level, agreement)["its lead over longer pretraining grows with the noise"] == "fails"


def test_the_source_has_five_classes_for_training_and_the_target_the_others_for_judging(tmp_path, monkeypatch):
    from clusterfit_label_noise import SOURCE, split_pictures

    names = [*SOURCE, "dog", "frog"]
    with tarfile.open(tmp_path / "cifar10.tar.xz", "w:xz") as pack:
        for split, name, place in product(("train", "test"), names, range(4)):
            member = tarfile.TarInfo(f"{split}/{name}/{place:04d}.jpg")
            member.size = 3
            pack.addfile(member, io.BytesIO(b"abc"))
    monkeypatch.setenv("SSL_LIGHTNING_DATA", str(tmp_path))
    split_pictures(tmp_path, 6)
    with tarfile.open(tmp_path / "source.tar") as source, tarfile.open(tmp_path / "target.tar") as target:
        trained, judged = source.getnames(), target.getnames()
        assert target.extractfile(judged[0]).read() == b"abc"
    assert len(trained) == 6
    assert {name.split("/")[0] for name in trained} == {"train"}
    assert {name.split("/")[1] for name in trained} <= set(SOURCE)
    assert sum(name.startswith("train/") for name in judged) == 6
    assert sum(name.startswith("test/") for name in judged) == 8  # all of them
    assert {name.split("/")[1] for name in judged} == {"dog", "frog"}


def test_arms_of_label_noise_differ_in_what_they_are_taught_alone(tmp_path):
    import cells
    from clusterfit_label_noise import NOISES, arms

    first, second = arms(tmp_path)
    assert len(first) == len(second) == 2 * len(NOISES)
    assert [arm.times for arm in first] == [1, 2] * len(NOISES)
    assert {arm.config for arm in [*first, *second]} == {"supervised.yaml"}
    data = [arm.settings["data"] for arm in [*first, *second]]
    assert all(part == data[0] for part in data)
    teacher = second[0].settings["model"]["init_args"]["teacher"].replace("SEED", "2")
    assert teacher == str(tmp_path / "runs" / cells.cell_name(first[0], 2) / "checkpoints" / "last.ckpt")
