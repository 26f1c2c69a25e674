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
from PIL import Image

from ssl_lightning.models import Preprocessing

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
        ([11, 9, 10], [10, 9, 8], False),  # 1, 0, 2: the mean is one standard deviation
        ([3.0, 2.9, 2.0], [1.0, 1.0, 2.0], False),  # 2, 1.9, 0: the mean 1.3, the standard deviation 1.13
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

    assert beats([5.0] * 9 + [3.9], [4.0] * 10)  # 0.89 with a standard deviation of 0.35
    assert not beats([5.0] * 9 + [2.9], [4.0] * 10)  # 0.79 with one of 0.66


@pytest.mark.parametrize("steps", [6, 7, 8])
def test_a_jump_is_what_the_loss_rises_by_after_clusterings_but_the_first(steps):
    from cells import Scale
    from v2_against_v1 import K, jump

    scale = Scale(epochs=4, images=128 * steps)
    losses = [1.0 + 0.3 * (step // steps) for step in range(4 * steps)]  # a stair of 0.3 at every epoch
    rows = [{"step": str(end), "train/loss": str(sum(losses[end - 3 : end]) / 3)} for end in range(3, 4 * steps + 1, 3)]
    assert jump([*rows, {"step": "5", "train/loss": ""}], scale) == pytest.approx(30 / math.log(K))


def test_matching_finds_the_names_that_keep_most_images():
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
    larger = ["--width", "64", "--image-size", "32", "--images", "50000", "--epochs", "5", "--accelerator", "gpu"]
    monkeypatch.setattr(sys, "argv", [script, *larger, "--jobs", "3", "--minutes", "8.5", "--out", str(tmp_path)])
    folder, scale, jobs, minutes = cells.parse("", script, module.EPOCHS)
    assert (folder, jobs, minutes) == (tmp_path, 3, 8.5)
    assert scale == cells.Scale(5, 64, 32, 50_000, "gpu")
    assert scale.steps == 390
    assert scale.settings()["model"]["init_args"]["backbone"]["init_args"] == {"width": 64}
    assert scale.settings()["data"]["init_args"] == {"image_size": 32, "batch_size": 128}


def test_a_script_may_have_another_number_of_images_by_itself(monkeypatch):
    import cells
    from dnc import EPOCHS, IMAGES

    monkeypatch.setattr(sys, "argv", ["dnc"])
    assert cells.parse("", "dnc", EPOCHS, IMAGES)[1] == cells.Scale(4, 8, 16, 2560, "cpu")
    monkeypatch.setattr(sys, "argv", ["dnc", "--images", "640"])
    assert cells.parse("", "dnc", EPOCHS, IMAGES)[1].images == 640


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


def test_clusterfit_is_evaluated_at_each_noise_and_its_lead_over_all():
    from clusterfit_label_noise import outcomes

    linear = of_all_noises(
        ClusterFit={0.0: [50, 50, 50], 0.5: [50, 50, 50], 0.8: [50, 50, 50]},
        longer={0.0: [60, 60, 60], 0.5: [51, 49, 50], 0.8: [45, 46, 47]},
        distilled={0.0: [50, 50, 50], 0.5: [51, 52, 53], 0.8: [49, 49, 49]},
    )
    agreement = {("clusters", 0.5): [9, 9, 9], ("labels", 0.5): [8, 9, 8]}
    agreement |= {("clusters", 0.8): [9, 9, 9], ("labels", 0.8): [1, 2, 1]}
    claim = "clusters say more of the classes than the noisy labels do"
    assert outcomes(linear, agreement) == {
        "ClusterFit beats longer pretraining at p=0.5": "undecided at this size",
        "ClusterFit beats distillation at p=0.5": "fails",
        f"{claim} at p=0.5": "fails",  # not on the second seed
        "ClusterFit beats longer pretraining at p=0.8": "holds",
        "ClusterFit beats distillation at p=0.8": "holds",
        f"{claim} at p=0.8": "holds",
        "its lead over longer pretraining grows with the noise": "holds",
    }
    level = linear | {"longer p=0.5": [60, 60, 60]}
    assert outcomes(level, agreement)["its lead over longer pretraining grows with the noise"] == "fails"


def test_the_source_has_five_classes_for_training_and_the_target_the_others_for_evaluating(tmp_path, monkeypatch):
    from clusterfit_label_noise import SOURCE, split_images

    names = [*SOURCE, "dog", "frog"]
    with tarfile.open(tmp_path / "cifar10.tar.xz", "w:xz") as pack:
        for split, name, place in product(("train", "test"), names, range(4)):
            member = tarfile.TarInfo(f"{split}/{name}/{place:04d}.jpg")
            member.size = 3
            pack.addfile(member, io.BytesIO(b"abc"))
    monkeypatch.setenv("SSL_LIGHTNING_DATA", str(tmp_path))
    split_images(tmp_path, 6)
    with tarfile.open(tmp_path / "source.tar") as source, tarfile.open(tmp_path / "target.tar") as target:
        trained, evaluations = source.getnames(), target.getnames()
        assert target.extractfile(evaluations[0]).read() == b"abc"
    assert len(trained) == 6
    assert {name.split("/")[0] for name in trained} == {"train"}
    assert {name.split("/")[1] for name in trained} <= set(SOURCE)
    assert sum(name.startswith("train/") for name in evaluations) == 6
    assert sum(name.startswith("test/") for name in evaluations) == 8  # all of them
    assert {name.split("/")[1] for name in evaluations} == {"dog", "frog"}


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


DNC_ARMS = ("base long", "DnC", "random parts", "full data", "base only")


def dnc_numbers(*means, base=30):
    arms = dict(zip(DNC_ARMS, means, strict=True)) | {"base": base}
    return {name: [mean - 0.5, mean, mean + 0.5] for name, mean in arms.items()}


def measured(experts=50, long=45, nmi=(0.9, 0.85, 0.81), hidden=30, pooled=25, most_steps=300):
    from dnc import STEPS
    from dnc_probes import HIDDEN, NMI, OWN, POOLED, SAME

    numbers = {OWN: experts, SAME: long, HIDDEN: hidden, POOLED: pooled}
    steps = {STEPS: [[200, 250, 1040], [most_steps, 100, 1040], [200, 200, 1040]]}
    return {name: [value - 0.5, value, value + 0.5] for name, value in numbers.items()} | {NMI: list(nmi)} | steps


def test_divide_and_contrast_is_evaluated_by_the_papers_order_and_by_its_sub_claims():
    from dnc import outcomes

    assert set(outcomes(dnc_numbers(40, 38, 34, 37, 39), measured()).values()) == {"fails", "holds"}  # DnC is behind
    assert set(outcomes(dnc_numbers(40, 42, 38, 39, 41), measured()).values()) == {"holds"}
    unlearned = outcomes(dnc_numbers(40, 38, 34, 37, 39, base=38), measured())  # not better than its own base
    assert unlearned["DnC beats the long base"] == "undecided at this size"
    slow = outcomes(dnc_numbers(40, 42, 38, 39, 41), measured(most_steps=1040))
    assert {name for name, outcome in slow.items() if outcome != "holds"} == {
        "experts beat the long base on their own parts, in fewer steps"
    }
    level = outcomes(dnc_numbers(40, 42, 40, 40, 41), measured())
    assert level["the long base is not behind experts of all images"] == "holds"
    assert level["experts of all images beat those of random parts"] == "undecided at this size"
    assert level["the paper's order"] == "undecided at this size"
    lost = outcomes(dnc_numbers(40, 42, 38, 41, 43), measured(experts=44, nmi=(0.9, 0.9, 0.79), hidden=25))
    assert lost == {
        "experts beat the long base on their own parts, in fewer steps": "fails",
        "clusters of the base separate domains": "fails",  # not on the third seed
        "hidden-layer clusters vote better than pooled ones": "undecided at this size",
        "DnC beats the long base": "holds",
        "the long base is not behind experts of all images": "fails",
        "experts of all images beat those of random parts": "holds",
        "the paper's order": "fails",
        "DnC beats random parts": "holds",
        "DnC beats learning from the base alone": "fails",
    }


def test_experts_begin_alike_in_every_arm_and_students_like_no_teacher(tmp_path, monkeypatch):
    import cells
    import dnc

    from ssl_lightning.clustering import Clustering

    scale = cells.Scale(4, 8, 16, 2560)
    (tmp_path / "runs").mkdir()
    for kind in dnc.CLUSTERERS:
        for seed in cells.SEEDS:
            labels = torch.arange(40) % dnc.K
            found = Clustering(labels, torch.zeros(40), torch.zeros(dnc.K, 2), labels.bincount())
            found.save(tmp_path / "runs" / f"{kind}-s{seed}.safetensors", {})
    trained = []
    monkeypatch.setattr(dnc, "run_cells", lambda arms, *rest, **options: trained.extend(arms) or 1.0)
    monkeypatch.setattr(dnc, "pool_settings", lambda folder: {})
    monkeypatch.setattr(dnc, "divide", lambda *given: True)
    assert dnc.train(tmp_path, scale, 1, 1e18, {"epochs": 32})
    seeds = {arm.name: arm.seeds_after for arm in trained}
    for k in range(dnc.K):
        assert len({seeds[f"expert {k} of {kind}"] for kind in ("all", "clusters", "random")}) == 1
    students = {seeds.pop(name) for name in (dnc.DNC, dnc.RANDOM, dnc.FULL, dnc.ALONE)}
    assert len(students) == 1
    assert students.isdisjoint(seeds.values())
    assert len(set(seeds.values())) == 1 + dnc.K


@pytest.mark.parametrize(
    ("ours", "theirs", "outcome"),
    [
        ([41, 42, 43], [40, 41, 42], "holds"),
        ([40, 41, 42], [41, 42, 43], "fails"),
        ([40, 41, 42], [41, 42, 41], "holds"),  # no one wins, a third of a point behind
        ([40, 40, 43], [43, 43, 42], "undecided at this size"),  # no one wins, 1.7 points behind
    ],
)
def test_an_arm_is_not_behind_unless_another_wins_or_its_mean_is_a_point_lower(ours, theirs, outcome):
    from dnc import not_behind

    assert not_behind(ours, theirs) == outcome


def test_operations_are_those_of_passes_through_the_network():
    from cells import Scale
    from dnc import BASE, EXPERTS, STUDENT, K, flops, of_glance, of_moclr, of_student

    scale = Scale(4)
    step, student, glance = of_moclr(scale), of_student(scale), of_glance(scale)
    layer = 2 * 128 * 512
    forward = glance + layer  # the hidden layer is clustered, not the embedding
    first = 2 * 16 * 16 * 8 * 3 * 9  # a network learns nothing about the pixels: no gradient goes through this layer
    products = 2 * 2 * 2 * 64 * 128  # of both directions, forward and backward, with 64 images of 128 numbers
    assert step == 2 * (4 * forward - first) + products
    assert student == 2 * (5 * forward - first + 3 * (1 + K) * 2 * layer)
    costs = flops(scale)
    whole = (BASE + EXPERTS) * 4 * step + glance + STUDENT * 4 * student
    assert costs["DnC"] == costs["random parts"] == costs["full data"] == whole
    assert costs["base only"] == BASE * 4 * step + STUDENT * 4 * (student - 2 * forward)  # no expert computes
    assert costs["base long"] == costs["epochs"] * step
    assert 0 <= costs["base long"] - whole < step


@pytest.mark.parametrize(("learn_from", "teachers"), [("both", 2), ("base", 1)])
def test_the_operations_of_a_student_are_those_of_its_step(learn_from, teachers):
    from cells import Scale
    from dnc import BATCH, HEADS, K, counted, images, of_student

    from ssl_lightning.clustering import Clustering
    from ssl_lightning.methods import Distill, MoCLR
    from ssl_lightning.models import Experts, ResNet18
    from ssl_lightning.types import Batch

    scale = Scale(1, image_size=8)
    student = Distill("", [""] * K, "", ResNet18(8), **HEADS, learn_from=learn_from)
    finished = [MoCLR(ResNet18(8), **HEADS).eval().requires_grad_(False) for _ in range(1 + K)]
    networks = [torch.nn.Sequential(teacher.backbone, teacher.projector) for teacher in finished]
    student._teachers = [networks[0], Experts(networks[1:])]
    labels = torch.arange(BATCH) % K
    none = torch.zeros(BATCH)
    student.pseudo_labels.assign([Clustering(labels, none, torch.zeros(K, 2), labels.bincount())])
    batch = Batch(torch.arange(BATCH), [images(scale)] * 2, labels)
    assert of_student(scale, teachers) == counted(lambda: student.training_step(batch, 0)["loss"].backward())


def test_a_long_tail_ends_at_a_tenth_and_has_as_many_images_as_requested():
    from dnc_pool import at_random, long_tail

    few, most, middle = long_tail([100, 300, 200], 222)
    assert (most, middle, few) == (157, 49, 16)  # 1 : 0.316 : 0.1
    with pytest.raises(SystemExit, match=r"300 images of a class; expected 353.* --images"):
        long_tail([100, 300, 200], 500)
    counts = at_random([100, 300, 200], 60)
    assert sum(counts) == 60
    assert max(counts) == counts[1]
    with pytest.raises(SystemExit, match="600 images"):
        at_random([100, 300, 200], 601)


def image(shade, side):
    content = io.BytesIO()
    Image.new("L", (side, side + 1), shade).save(content, "PNG")
    return content.getvalue()


def test_the_pool_keeps_its_domains_apart_and_probes_by_other_images_of_them(tmp_path, monkeypatch):
    from cells import write_tar
    from dnc_pool import SHARES, open_probes, write_images

    from ssl_lightning.data import CuratedImages

    monkeypatch.setenv("SSL_LIGHTNING_DATA", str(tmp_path))
    for number, pack in enumerate(("cifar10", "flowers", "omniglot")):
        splits = {"train": 30, "test": 5} if pack != "omniglot" else {"train": 30}
        cells = [(split, name, place) for split in splits for name in "ab" for place in range(splits[split])]
        shades = {"train": 60 * number, "test": 60 * number + 1}
        write_tar(tmp_path / f"{pack}.tar.xz", {f"{s}/{n}/{i}.png": image(shades[s], 40) for s, n, i in cells})
    uncurated = {}
    for place in range(40):
        kind = json.dumps({"kind": "chart" if place < 10 else "photo"}).encode()
        uncurated |= {f"{place:06d}.jpg": image(200, 50), f"{place:06d}.json": kind}
    write_tar(tmp_path / "uncurated-000000.tar", uncurated)
    write_images(tmp_path, 40)
    pool = CuratedImages(path=str(tmp_path / "pool.tar")).training
    assert pool.classes == sorted(SHARES)
    assert pool.labels.bincount().tolist() == [16, 6, 6, 12]
    assert pool.size == (32, 32)
    tail = [name.rsplit("/", 1)[1][0] for name in pool.names if "cifar10" in name]
    assert (tail.count("a"), tail.count("b")) == (15, 1)
    probes = open_probes(tmp_path)
    assert list(probes) == list(SHARES)
    sizes = {domain: (len(train[1]), len(test[1]), classes) for domain, (train, test, classes) in probes.items()}
    assert sizes == {"cifar10": (60, 10, 2), "uncurated": (32, 8, 2), "flowers": (60, 10, 2), "omniglot": (48, 12, 2)}
    (trained, _), (evaluated, _), _ = probes["flowers"]
    assert (trained.unique().tolist(), evaluated.unique().tolist()) == ([60], [61])
    before = (tmp_path / "pool.tar").stat().st_mtime_ns
    write_images(tmp_path, 10)
    assert (tmp_path / "pool.tar").stat().st_mtime_ns == before


class OneChannel:
    """A stand-in for a network that takes one channel as input, or none."""

    preprocessing = Preprocessing(4, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

    def __init__(self, channel):
        self.channel = channel

    def to(self, device):
        return self

    def embed(self, images, layer):
        brightness = images[:, self.channel].mean((1, 2)) if self.channel is not None else torch.zeros(len(images))
        return torch.stack([brightness, brightness.square()], dim=1)


def test_an_expert_is_evaluated_on_the_images_of_its_own_part_alone():
    from dnc_probes import own_parts

    labels, homes = torch.arange(40) % 2, torch.arange(40) // 30  # 30 images of the first part, 10 of the second
    images = torch.zeros(40, 3, 4, 4, dtype=torch.uint8)
    images[torch.arange(40), homes] = (200 * labels.view(40, 1, 1)).to(torch.uint8)  # each part in a channel of its own
    splits, cpu = [(images, labels)] * 2, torch.device("cpu")
    assert own_parts([OneChannel(0), OneChannel(1)], splits, [homes] * 2, 2, cpu) == 100
    assert own_parts([OneChannel(0), OneChannel(None)], splits, [homes] * 2, 2, cpu) == 87.5  # half of the second part
    assert own_parts([OneChannel(0), OneChannel(1)], splits, [homes * 0, homes], 2, cpu) == 75  # no training images


def test_clusters_vote_by_their_commonest_class():
    from dnc_probes import vote

    directions = torch.eye(3)[torch.arange(30) % 3]
    assert vote(directions, torch.arange(30) % 3, 3, seed=0) == 100
    assert vote(directions, torch.arange(30) // 15, 3, seed=0) == pytest.approx(50)


def curation_numbers(**arms):
    """What `evaluate_all` finds, with the linear accuracies given and head and tail beside them."""
    numbers = {"uniform": [40, 41, 42], "flat": [42, 43, 44], "hierarchical": [43, 44, 45], "oracle": [44, 45, 46]}
    numbers = {"pool": [45, 45, 45], **numbers} | arms
    return {
        name: {
            "linear": linear,
            "head": [60 + value / 10 for value in linear],
            "tail": [value - 10 for value in linear],
        }
        for name, linear in numbers.items()
    }


@pytest.mark.parametrize(
    ("arms", "order", "tail"),
    [
        ({}, "holds", "holds"),
        ({"flat": [39, 40, 41]}, "fails", "holds"),  # uniform beats flat
        ({"flat": [44, 45, 46]}, "fails", "holds"),  # flat beats hierarchical
        ({"flat": [39, 42, 43]}, "undecided at this size", "holds"),
        ({"flat": [41.5, 44, 44], "hierarchical": [41, 44.5, 44]}, "holds", "holds"),  # a sixth of a point lower
        ({"hierarchical": [39, 40, 41], "flat": [41, 42, 43]}, "fails", "fails"),
    ],
)
def test_the_order_of_curation_follows_its_two_comparisons(arms, order, tail):
    from curation import outcomes

    found = outcomes(curation_numbers(**arms))
    assert found["the order: hierarchical >= flat > uniform"] == order
    assert found["the tail gains most"] == tail


def test_choices_have_equal_sizes_and_are_made_once_for_the_pool(tmp_path, monkeypatch):
    import curation
    from cells import Scale

    from ssl_lightning.clustering import Clustering
    from ssl_lightning.data import Subset
    from ssl_lightning.data.dataset import InMemoryImages

    labels = torch.arange(3).repeat_interleave(torch.tensor([200, 60, 20]))
    images = InMemoryImages(torch.zeros(280, 3, 2, 2, dtype=torch.uint8), labels, ["a", "b", "c"])
    data = type("Data", (), {"training": images, "fingerprint": images.fingerprint})()
    features = torch.nn.functional.one_hot(labels).float() + 0.1 * torch.randn(
        280, 3, generator=torch.Generator().manual_seed(0)
    )
    monkeypatch.setattr(curation, "load_model", lambda path: None)
    monkeypatch.setattr(curation, "embed_images", lambda *given, **options: (torch.arange(280), features))
    base = curation.arm(curation.POOL, Scale(1), 1)
    curation.choose(tmp_path, Scale(1, images=100), 0, data, base)
    counts = {}
    for name in curation.CHOICES:
        chosen = Subset(str(curation.chosen_file(tmp_path, name, 0))).of(images)
        assert len(chosen) == 100
        counts[name] = chosen.labels.bincount(minlength=3).tolist()
        assert 0 < curation.evenness(tmp_path, name, 0, data) < 100
    assert counts["oracle"] == [40, 40, 20]
    assert counts["uniform"][0] > 60
    assert counts["flat"][2] > counts["uniform"][2]
    monkeypatch.setattr(curation, "embed_images", None)
    curation.choose(tmp_path, Scale(1, images=100), 0, data, base)  # the files are kept
    assert isinstance(Clustering.load(curation.chosen_file(tmp_path, "flat", 0))[0], Clustering)


def test_arms_of_curation_take_equal_steps():
    import curation
    from cells import BATCH, Scale

    scale = Scale(curation.EPOCHS, images=curation.IMAGES)
    times = (12406 // BATCH) / (scale.images // BATCH)
    steps = round(times * scale.epochs) * (scale.images // BATCH)
    assert (steps, scale.epochs * (12406 // BATCH)) == (961, 960)
    settings = curation.arm("flat", scale, times, "flat-SEED.safetensors").settings
    assert settings["data"]["init_args"]["subset"] == {"path": "flat-SEED.safetensors"}
    assert settings["model"]["init_args"]["schedule"]["init_args"]["warmup_epochs"] == pytest.approx(3.1)
