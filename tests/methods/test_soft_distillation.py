"""SoftDistillation: what it learns from its teacher, and that it can do without it afterwards."""

import lightning.pytorch as pl
import pytest
import torch
from torch.nn import functional as F

from ssl_lightning import load_model
from ssl_lightning.checkpoints import DurableCheckpointIO
from ssl_lightning.data import Digits, View
from ssl_lightning.methods import DeepCluster, RotationPrediction, SoftDistillation, Supervised
from ssl_lightning.models import Preprocessing, ResNet18
from tests.methods.quiet import QUIET

MEAN, STD = (0.3, 0.3, 0.3), (0.32, 0.32, 0.32)
SAME = {"backbone": ResNet18(4), "preprocessing": Preprocessing(16, MEAN, STD)}


class Spy(pl.Callback):
    """Keeps what every step saw and told."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps.append((batch.views[0].clone(), outputs["scores"], outputs["loss"].item()))


def saved(model, path):
    checkpoint = {"state_dict": model.state_dict(), "global_step": 1, "epoch": 0}
    model.on_save_checkpoint(checkpoint)
    DurableCheckpointIO().save_checkpoint(checkpoint, path)
    return str(path)


@pytest.fixture
def teacher(tmp_path):
    torch.manual_seed(1)
    method = Supervised(num_classes=10, **SAME)
    torch.nn.init.normal_(method.head.weight)
    return saved(method, tmp_path / "step-1.ckpt")


def fit(path, steps=2, **options):
    pl.seed_everything(0, verbose=False)
    method, spy = SoftDistillation(path, **(SAME | {"backbone": ResNet18(8)} | options)), Spy()
    trainer = pl.Trainer(
        **QUIET,
        max_steps=steps,
        callbacks=[spy],
    )
    trainer.fit(method, Digits(batch_size=64, views=[View(horizontal_flip=0.0)], image_size=16))
    return method, spy, trainer


def test_the_loss_is_the_softened_divergence_from_the_teacher_in_eval_mode_on_the_same_view(teacher):
    _, spy, _ = fit(teacher, temperature=3.0)
    known = load_model(teacher)
    for views, scores, loss in spy.steps:
        with torch.no_grad():
            p, q = (known.logits(views) / 3).softmax(1), (scores / 3).softmax(1)
        assert loss == pytest.approx(float(9 * (p * (p / q).log()).sum(1).mean()), rel=1e-4)


def test_the_student_comes_near_its_teacher(teacher):
    _, spy, _ = fit(teacher, steps=15, optimizer=lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9))
    assert spy.steps[-1][-1] < 0.7 * spy.steps[0][-1]


def test_the_teacher_stays_as_it_was_and_is_no_part_of_the_student(teacher):
    method, _, trainer = fit(teacher)
    (kept,) = method._teachers
    before = load_model(teacher).state_dict()
    assert all(torch.equal(value, before[name]) for name, value in kept.state_dict().items())
    assert not kept.training
    assert not any(parameter.requires_grad for parameter in kept.parameters())
    learned = {id(parameter) for group in trainer.optimizers[0].param_groups for parameter in group["params"]}
    assert learned == {id(parameter) for parameter in method.parameters()}
    assert learned.isdisjoint({id(parameter) for parameter in kept.parameters()})
    assert {name.partition(".")[0] for name in method.state_dict()} == {"backbone", "head"}


def test_a_finished_student_is_loaded_without_its_teacher(teacher, tmp_path):
    method, _, _ = fit(teacher)
    path = saved(method, tmp_path / "step-2.ckpt")
    for file in tmp_path.glob("step-1.*"):
        file.unlink()
    loaded = load_model(path)
    views = torch.randn(3, 3, 16, 16)
    assert torch.equal(loaded.embed(views), method.eval().embed(views))
    assert loaded.stage_files() == {"teacher": teacher}


def test_making_one_reads_no_file():
    assert SoftDistillation("nowhere.ckpt", **SAME).stage_files() == {"teacher": "nowhere.ckpt"}
    assert Supervised(**SAME).stage_files() == {}


def test_rotation_prediction_teaches_by_what_it_reports_of_images_as_they_are(tmp_path):
    path = saved(RotationPrediction(**SAME), tmp_path / "step-1.ckpt")
    _, spy, _ = fit(path, steps=1, num_classes=4, temperature=1.0)
    ((views, scores, loss),) = spy.steps
    with torch.no_grad():
        targets = load_model(path).logits(views)
    expected = F.kl_div(scores.log_softmax(1), targets.softmax(1), reduction="batchmean")
    assert loss == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_classes": 7}, r"num_classes=7 .* of 10 classes.*--model\.num_classes 10"),
        ({"preprocessing": Preprocessing(32, MEAN, STD)}, r"image_size=32 .* 16.*--data\.image_size"),
        ({"preprocessing": Preprocessing(16, (0.5, 0.5, 0.5), STD)}, r"mean=\(0\.5.*--data\.mean"),
        ({"preprocessing": Preprocessing(16, MEAN, (0.5, 0.5, 0.5))}, r"std=\(0\.5.*--data\.std"),
    ],
)
def test_a_teacher_of_other_images_or_classes_is_rejected(teacher, options, words):
    with pytest.raises(ValueError, match=words):
        fit(teacher, **options)


def test_a_missing_teacher_names_the_flag(tmp_path):
    with pytest.raises(ValueError, match=r"nothing\.ckpt.*--model\.teacher"):
        fit(str(tmp_path / "nothing.ckpt"))


def test_a_method_without_logits_cannot_teach(tmp_path):
    path = saved(DeepCluster(7, **SAME), tmp_path / "step-1.ckpt")
    with pytest.raises(ValueError, match=r"found a DeepCluster .* expected a method with logits"):
        fit(path)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"num_classes": 1}])
def test_numbers_out_of_range_are_rejected(options):
    with pytest.raises(ValueError, match="expected a positive temperature"):
        SoftDistillation("nowhere.ckpt", **SAME, **options)
