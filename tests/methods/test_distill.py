"""Distill: its step as a loop in float64, who learns, what stays as it is, and what is rejected before a step."""

import re
from dataclasses import replace

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ssl_lightning import load_model
from ssl_lightning.checkpoints import DurableCheckpointIO
from ssl_lightning.clustering import Clustering
from ssl_lightning.data import Digits, View
from ssl_lightning.methods import BYOL, Distill, MoCLR, SimCLR, Supervised
from ssl_lightning.models import Preprocessing, ResNet18
from tests.methods.quiet import QUIET

N, K, D = 1438, 3, 12
PLAIN = {"backbone": ResNet18(8), "preprocessing": Preprocessing(8)}
TEACHER = {**PLAIN, "hidden": (24,), "projection": D}
STUDENT = {**PLAIN, "hidden": (16,), "projection": D}


def digits(**options):
    return Digits(batch_size=32, views=[View(count=2, scale=(0.5, 1.0), horizontal_flip=0.0)], image_size=8, **options)


@pytest.fixture(scope="module")
def labels():
    drawn = torch.randint(K, (N,), generator=torch.Generator().manual_seed(0))
    drawn[::7] = -1  # that the second stage could not read
    return drawn


@pytest.fixture(scope="module")
def whole():
    return digits().training


@pytest.fixture(scope="module")
def parts(whole, labels):
    return [whole.select((labels == k).nonzero().flatten()).fingerprint for k in range(K)]


def saved(method, path, data=""):
    """A checkpoint as a run leaves it, of a network with statistics of its own."""
    method.train()
    for projector in (method.projector, *([method.teacher.network[1]] if method.keeps_average else [])):
        for _ in range(3):
            projector(method.backbone(torch.randn(16, 3, 8, 8)))
    checkpoint = {"state_dict": method.state_dict(), "global_step": 1, "epoch": 0, "config": {"data_fingerprint": data}}
    method.on_save_checkpoint(checkpoint)
    path.parent.mkdir(exist_ok=True)
    DurableCheckpointIO().save_checkpoint(checkpoint, path)
    return str(path)


def write_clusters(path, labels, data, k=K):
    sizes = labels[labels >= 0].bincount(minlength=k)
    Clustering(labels, torch.zeros(len(labels)), torch.zeros(k, 4), sizes).save(path, {"data": data})
    return str(path)


@pytest.fixture(scope="module")
def stages(tmp_path_factory, whole, labels, parts):
    """The files of the three stages before: arguments of `Distill`."""
    folder = tmp_path_factory.mktemp("stages")
    torch.manual_seed(1)
    kinds = (MoCLR, BYOL, SimCLR)
    experts = [saved(kind(**TEACHER), folder / f"expert-{k}" / "step-1.ckpt", parts[k]) for k, kind in enumerate(kinds)]
    return {
        "base": saved(MoCLR(**TEACHER), folder / "base" / "step-1.ckpt", whole.fingerprint),
        "experts": experts,
        "clusters": write_clusters(folder / "clusters.safetensors", labels, whole.fingerprint),
    }


@pytest.fixture(scope="module")
def alike(tmp_path_factory, stages, parts):
    """The same with experts of one architecture."""
    folder = tmp_path_factory.mktemp("alike")
    torch.manual_seed(2)
    experts = [saved(MoCLR(**TEACHER), folder / f"expert-{k}" / "step-1.ckpt", parts[k]) for k in range(K)]
    return stages | {"experts": experts}


class Spy(pl.Callback):
    """Keeps what every step saw and told, and the student as it was before the first."""

    def __init__(self):
        self.steps, self.before = [], {}

    def on_train_start(self, trainer, pl_module):
        self.before = {name: value.clone() for name, value in pl_module.named_parameters()}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps.append((batch, outputs["loss"].item()))


def fit(stages, steps=1, data=None, precision="32-true", **options):
    pl.seed_everything(0, verbose=False)
    optimizer = {"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.05)}
    method, spy = Distill(**stages, **(STUDENT | optimizer | options)), Spy()
    trainer = pl.Trainer(
        **QUIET,
        max_steps=steps,
        precision=precision,
        callbacks=[spy],
    )
    trainer.fit(method, data or digits())
    return method, spy


def unit(rows):
    return rows / rows.norm(dim=1, keepdim=True)


def one_by_one(student, base, experts, batch, clusters, learn_from="both"):
    """Section 3.3 image by image: half the squared distance to each teacher, over views and images."""
    total = 0.0
    for view in batch.views:
        view = view.double()
        z = student.projector(student.backbone(view))
        predictions = [regressor(z) for regressor in (student.base_regressor, *student.expert_regressors)]
        for row, k in enumerate(clusters.tolist()):
            image = view[row : row + 1]
            distance = 0 * predictions[0][row].sum()
            if learn_from != "experts":
                target = unit(base.projector(base.backbone(image)))[0]
                distance = distance + (predictions[0][row] - target).square().sum() / 2
            if k >= 0 and learn_from != "base":
                target = unit(experts[k].projector(experts[k].backbone(image)))[0]
                distance = distance + (predictions[1 + k][row] - target).square().sum() / 2
            total = total + distance / (len(clusters) * len(batch.views))
    return total


@pytest.fixture(scope="module")
def wide(tmp_path_factory, stages, whole):
    """The same with a base whose embeddings are wider than the experts'."""
    path = tmp_path_factory.mktemp("wide") / "base" / "step-1.ckpt"
    path.parent.mkdir()
    torch.manual_seed(3)
    return stages | {"base": saved(SimCLR(**(TEACHER | {"projection": 20})), path, whole.fingerprint)}


@pytest.mark.parametrize(
    ("learn_from", "base_projection"), [("both", None), ("base", None), ("experts", None), ("both", 20)]
)
def test_a_step_is_the_papers_distance_to_the_teachers_of_the_same_view(
    stages, wide, labels, learn_from, base_projection
):
    stages, options = (
        wide if base_projection else stages,
        {"learn_from": learn_from, "base_projection": base_projection},
    )
    method, spy = fit(stages, **options)
    pl.seed_everything(0, verbose=False)
    student = Distill(**stages, **STUDENT, base_projection=base_projection).double().train()
    base, *experts = (load_model(path).double() for path in (stages["base"], *stages["experts"]))
    ((batch, loss),) = spy.steps
    clusters = labels[batch.index]
    assert set(clusters.tolist()) == {-1, 0, 1, 2}
    expected = one_by_one(student, base, experts, batch, clusters, learn_from)
    assert loss == pytest.approx(float(expected.detach()), abs=1e-5)
    expected.backward()
    for name, parameter in student.named_parameters():
        gradient = 0.0 if parameter.grad is None else parameter.grad.float()
        moved = spy.before[name] - 0.05 * gradient
        assert torch.allclose(method.get_parameter(name), moved, atol=1e-5), name


def gradients(method, batch):
    method.zero_grad()
    method.training_step(batch, 0)["loss"].backward()
    regressors = (method.base_regressor, *method.expert_regressors)
    return [sum(float(weight.grad.abs().sum()) for weight in regressor.parameters()) for regressor in regressors]


def test_only_the_regressors_of_the_base_and_of_the_images_own_clusters_learn(stages, labels):
    method, spy = fit(stages)
    ((batch, _),) = spy.steps
    for wanted in ([1], [0, 2], []):
        rows = torch.cat([(labels == k).nonzero().flatten()[:6] for k in (*wanted, -1)])
        given = batch._replace(index=rows, views=[view[: len(rows)] for view in batch.views])
        base, *experts = gradients(method, given)
        assert base > 0
        assert [gradient > 0 for gradient in experts] == [k in wanted for k in range(K)]
        assert all(weight.grad is not None for weight in method.parameters())  # several processes wait for all


def test_a_student_begins_with_other_weights_than_a_base_of_its_seed(stages):
    def first_weights(kind, **options):
        pl.seed_everything(0, verbose=False)
        return [weight.detach() for weight in kind(**options).backbone.parameters() if weight.dim() > 1]

    base, student, again = (
        first_weights(MoCLR, **TEACHER),
        *(first_weights(Distill, **stages, **STUDENT) for _ in range(2)),
    )
    assert not any(torch.equal(theirs, ours) for theirs, ours in zip(base, student, strict=True))
    assert all(torch.equal(once, twice) for once, twice in zip(student, again, strict=True))


def test_the_student_comes_near_its_teachers(stages):
    method, spy = fit(stages, steps=25, optimizer=lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9))
    assert spy.steps[-1][1] < 0.6 * spy.steps[0][1]
    suggestions = {failure.name: failure.suggestion for failure in method.failures()}
    assert suggestions["rank_one"].startswith("--model.base and --model.experts that discriminate images")
    assert stages["base"] in suggestions["equal_embeddings"]
    assert "--data.mean" in suggestions["unnormalized_inputs"]


@pytest.mark.parametrize("vectorized", [False, True])
def test_teachers_stay_as_they_were_and_are_no_part_of_the_student(alike, vectorized):
    method, _ = fit(alike, steps=2, vectorized=vectorized)
    base, experts = method._teachers
    files = [load_model(path) for path in (alike["base"], *alike["experts"])]
    known = [nn.Sequential(file.backbone, file.projector).state_dict() for file in files]
    assert all(torch.equal(value, known[0][name]) for name, value in base.state_dict().items())
    kept = experts.networks[0].state_dict() if vectorized else None
    for k, state in enumerate(known[1:]):
        network = {name: value[k] for name, value in kept.items()} if vectorized else experts.networks[k].state_dict()
        assert network.keys() == state.keys()
        assert all(torch.equal(network[name], value) for name, value in state.items())
    modules = [*base.modules(), *experts.modules()]
    assert not any(module.training for module in modules)
    teachers = {id(weight) for teacher in method._teachers for weight in teacher.parameters()}
    learned = {id(weight) for group in method.trainer.optimizers[0].param_groups for weight in group["params"]}
    assert learned == {id(weight) for weight in method.parameters()}
    assert learned.isdisjoint(teachers)
    known_parts = {"backbone", "projector", "base_regressor", "expert_regressors", "pseudo_labels"}
    assert {name.partition(".")[0] for name in method.state_dict()} == known_parts


def test_experts_in_one_pass_teach_what_they_teach_one_after_the_other(alike):
    losses = [[loss for _, loss in fit(alike, steps=3, vectorized=flag)[1].steps] for flag in (False, True)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.parametrize("vectorized", [False, True])
def test_half_precision_changes_little(alike, vectorized):
    (_, exact), (_, half) = (
        fit(alike, vectorized=vectorized, precision=precision)[1].steps[0] for precision in ("32-true", "bf16-mixed")
    )
    assert half == pytest.approx(exact, rel=0.02)
    assert half != exact


def test_a_single_expert_that_is_the_base_is_plain_self_distillation(stages, tmp_path, whole):
    clusters = write_clusters(tmp_path / "c.safetensors", torch.zeros(N, dtype=torch.int64), whole.fingerprint, k=1)
    method, spy = fit({"base": stages["base"], "experts": [stages["base"]], "clusters": clusters})
    method.expert_regressors[0].load_state_dict(method.base_regressor.state_dict())
    ((batch, _),) = spy.steps
    teacher = load_model(stages["base"])
    expected = 0.0
    with torch.no_grad():
        for view in batch.views:
            prediction = method.base_regressor(method.projector(method.backbone(view)))
            target = F.normalize(teacher.projector(teacher.backbone(view)), dim=1)
            expected += float((prediction - target).square().sum(1).mean()) / 2
        assert float(method.training_step(batch, 0)["loss"]) == pytest.approx(expected, abs=1e-5)


def test_cached_targets_are_those_of_center_views(stages, labels):
    still = digits()
    still.views = [
        View(count=2, scale=(1.0, 1.0), ratio=(1.0, 1.0), horizontal_flip=0.0, color_jitter=(0.0,) * 4, grayscale=0.0)
    ]
    losses = [[loss for _, loss in fit(stages, 3, still, cached=flag)[1].steps] for flag in (False, True)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    method, _ = fit(stages, cached=True)  # and of those, whatever the views in training are
    assert method._teachers == []
    base, *experts = (load_model(path) for path in (stages["base"], *stages["experts"]))
    data = digits(mean=method.preprocessing.mean, std=method.preprocessing.std)
    images = torch.cat([data.center(raw).views[0] for raw in data.predict_dataloader()])
    for row in range(20):
        own = experts[max(labels[row], 0)]
        expected = torch.stack([teacher.embed(images[row][None], "projector")[0] for teacher in (base, own)])
        found = torch.stack([targets[row] for targets in method._center_targets])
        assert torch.allclose(F.normalize(found, dim=1), expected, atol=1e-5)


def test_what_the_teachers_cost_is_said_once_and_changes_no_step(stages, caplog, monkeypatch):
    with caplog.at_level("INFO", "ssl_lightning"):
        _, timed = fit(stages, steps=2)
        fit(stages, cached=True)
    shown, cached = (record.message for record in caplog.records if "beside the student" in record.message)
    assert re.fullmatch(r"the base and 3 experts take \d+ MB and \d+ ms for each view of 32 images beside .*", shown)
    assert " ms " not in cached
    assert re.search(r"all center views took \d+ s", caplog.text)
    monkeypatch.setattr(Distill, "_time_of_a_view", lambda _: "")
    assert [loss for _, loss in fit(stages, steps=2)[1].steps] == [loss for _, loss in timed.steps]


def test_a_step_of_adam_is_shorter_than_the_targets_are():
    torch.manual_seed(0)
    regressor = Distill("", ["", ""], "", ResNet18(8), hidden=(2048,), projection=128).base_regressor
    seen, target = torch.randn(256, 128), F.normalize(torch.randn(1, 128), dim=1)
    optimizer = torch.optim.AdamW(regressor.parameters(), lr=1e-3)
    before = regressor(seen)
    (before - target).square().sum(1).mean().backward()
    optimizer.step()
    assert (regressor(seen) - before).norm(dim=1).max() < 1


def test_averaged_weights_teach_where_requested(alike):
    _, online = fit(alike)
    method, averaged = fit(alike, teacher_weights="ema")
    assert online.steps[0][1] != averaged.steps[0][1]
    known = load_model(alike["base"]).teacher.network.state_dict()
    assert all(torch.equal(value, known[name]) for name, value in method._teachers[0].state_dict().items())


def test_a_finished_student_is_loaded_without_the_files_it_learned_from(stages, tmp_path, labels, monkeypatch):
    method, _ = fit(stages)
    method.trainer.save_checkpoint(tmp_path / "last.ckpt")
    monkeypatch.setattr("ssl_lightning.methods.distill.read_teacher", None)
    loaded = load_model(tmp_path / "last.ckpt")
    assert torch.equal(loaded.pseudo_labels.rows[:, 0].long(), labels)
    images = torch.randn(2, 3, 8, 8)
    assert loaded.layers == ("backbone", "hidden", "projector")
    for layer in loaded.layers:
        assert torch.equal(loaded.embed(images, layer), method.eval().embed(images, layer))


def test_making_one_reads_no_file_and_names_all_that_it_will_read():
    method = Distill("b.ckpt", ["0.ckpt", "1.ckpt"], "c.safetensors", **STUDENT)
    files = {"base": "b.ckpt", "clusters": "c.safetensors", "experts.0": "0.ckpt", "experts.1": "1.ckpt"}
    assert method.stage_files() == files
    assert method.num_clusters == 2
    with pytest.raises(ValueError, match="no experts"):
        Distill("b.ckpt", [], "c.safetensors", **STUDENT)


def test_as_many_experts_as_clusters_are_expected(stages):
    with pytest.raises(ValueError, match=r"2 experts and 3 clusters in .*clusters\.safetensors.*--model\.experts"):
        fit(stages | {"experts": stages["experts"][:2]})


def test_clusters_of_other_images_are_rejected(stages, tmp_path, labels):
    other = write_clusters(tmp_path / "other.safetensors", labels, "0123456789abcdef")
    with pytest.raises(ValueError, match=r"other\.safetensors made for 1438 images 0123456789ab.*in their order"):
        fit(stages | {"clusters": other})
    few = digits()
    few.training = few.training.select(torch.arange(N - 1))
    with pytest.raises(ValueError, match="expected the 1437 of this run"):
        fit(stages, data=few)


def test_experts_in_another_order_or_of_clusters_made_since_are_rejected(stages, tmp_path, labels, whole):
    first, second, third = stages["experts"]
    found = re.escape(second)
    with pytest.raises(ValueError, match=rf"found {found} trained on cluster 1 as expert 0.*--data\.subset\.value 0"):
        fit(stages | {"experts": [second, first, third]})
    again = write_clusters(tmp_path / "again.safetensors", labels.roll(1), whole.fingerprint)
    with pytest.raises(ValueError, match=r"trained on other images .* expected cluster 0 of .*again\.safetensors"):
        fit(stages | {"clusters": again})


def test_an_expert_of_all_images_or_of_unknown_ones_may_teach(stages, tmp_path):
    unknown = saved(MoCLR(**TEACHER), tmp_path / "unknown" / "step-1.ckpt")
    _, spy = fit(stages | {"experts": [stages["base"], unknown, stages["experts"][2]]})
    assert len(spy.steps) == 1


@pytest.mark.parametrize("name", ["image_size", "mean", "std"])
def test_a_teacher_of_images_of_another_kind_is_rejected(stages, name):
    other = {"image_size": 16, "mean": (0.3, 0.3, 0.3), "std": (0.3, 0.3, 0.3)}[name]
    with pytest.raises(ValueError, match=rf"found {name}=.* and the teacher .*base.*--data\.{name}"):
        fit(stages, preprocessing=replace(Preprocessing(8), **{name: other}))


def test_center_views_are_seen_by_a_base_of_another_width_too(wide):
    method, spy = fit(wide, base_projection=20, cached=True)
    assert [part.shape for part in method._center_targets] == [(N, 20), (N, D)]
    assert spy.steps[0][1] > 0


def test_teachers_without_embeddings_of_the_students_width_are_rejected(stages, wide, tmp_path):
    other = saved(MoCLR(**(TEACHER | {"projection": 20})), tmp_path / "other" / "step-1.ckpt")
    with pytest.raises(ValueError, match=r"20 numbers in .*other.* and projection=12.*--model\.projection 20"):
        fit(stages | {"experts": [other, *stages["experts"][1:]]})
    with pytest.raises(ValueError, match=r"20 numbers in .* and base_projection=12.*--model\.base_projection 20"):
        fit(wide)
    bare = Supervised(**PLAIN)
    checkpoint = {"state_dict": bare.state_dict(), "global_step": 1, "epoch": 0}
    bare.on_save_checkpoint(checkpoint)
    DurableCheckpointIO().save_checkpoint(checkpoint, tmp_path / "step-1.ckpt")
    with pytest.raises(ValueError, match=r"found a Supervised in .*step-1\.ckpt; expected a method with a projector"):
        fit(stages | {"base": str(tmp_path / "step-1.ckpt")})


def test_experts_that_cannot_be_stacked_or_keep_no_average_name_the_flag(stages, tmp_path, parts):
    narrow = TEACHER | {"backbone": ResNet18(4)}
    other = saved(MoCLR(**narrow), tmp_path / "narrow" / "step-1.ckpt", parts[0])
    with pytest.raises(ValueError, match=r"several architectures.*--model\.vectorized false"):
        fit(stages | {"experts": [other, *stages["experts"][1:]]}, vectorized=True)
    with pytest.raises(ValueError, match=r"a SimCLR in .*keeps no averaged weights.*--model\.teacher_weights online"):
        fit(stages, teacher_weights="ema")


@pytest.mark.parametrize("argument", ["base", "experts"])
def test_a_missing_teacher_names_its_flag(stages, argument):
    missing = "nowhere.ckpt" if argument == "base" else ["nowhere.ckpt", *stages["experts"][1:]]
    with pytest.raises(ValueError, match=rf"no teacher at nowhere\.ckpt.*--model\.{argument}"):
        fit(stages | {argument: missing})
