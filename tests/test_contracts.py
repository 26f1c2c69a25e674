"""The contract of the data: how methods reach it, and what works without it."""

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from ssl_lightning.contracts import TrainingData, data_of, has_training_data
from ssl_lightning.data import Digits, View
from ssl_lightning.errors import UsageError
from ssl_lightning.methods import InstanceRecognition, SimCLR
from ssl_lightning.models import Preprocessing, ResNet18
from ssl_lightning.optim import WarmupCosine
from ssl_lightning.types import Batch
from tests.methods.quiet import QUIET

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
SMALL = {"backbone": ResNet18(4), "projection": 8, "preprocessing": Preprocessing(8)}


class Batches(torch.utils.data.Dataset):
    """Batches of two views of noise."""

    def __len__(self):
        return 2

    def __getitem__(self, number):
        views = [torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(number + 2 * v)) for v in range(2)]
        return Batch(torch.arange(4), views, torch.full((4,), -1))


class Foreign(LightningDataModule):
    """A data module of another package."""

    def train_dataloader(self):
        return DataLoader(Batches(), batch_size=None)


def trainer(**options):
    return pl.Trainer(**QUIET, max_epochs=1, **options)


def simclr(**options):
    return SimCLR(hidden=(16,), **SMALL, **options)


def test_every_data_module_keeps_the_contract():
    run = trainer()
    data = Digits(batch_size=64, views=[View(count=2)], image_size=8)
    run.fit(simclr(schedule=WarmupCosine()), data)
    assert data_of(run) is data
    assert isinstance(data, TrainingData)
    assert has_training_data(run)
    assert data.preprocessing == Preprocessing(8, data.mean, data.std)
    assert torch.equal(data.labels, data.training.labels)


@pytest.mark.parametrize("given", ["plain loader", "data module of another package"])
def test_a_method_trains_on_other_data_as_far_as_it_needs_none_of_the_contract(given):
    run, method = trainer(), simclr()
    before = method.backbone.state_dict()["body.conv1.weight"].clone()
    run.fit(method, DataLoader(Batches(), batch_size=None) if given == "plain loader" else Foreign())
    assert run.global_step == 2
    assert method.chance_loss is None
    assert not has_training_data(run)
    assert not torch.equal(before, method.backbone.state_dict()["body.conv1.weight"])


@pytest.mark.parametrize("method", [lambda: simclr(schedule=WarmupCosine()), lambda: InstanceRecognition(**SMALL)])
@pytest.mark.parametrize(
    ("data", "found"), [(None, "found no data module in the trainer"), (Foreign(), "found the data module Foreign")]
)
def test_a_method_that_needs_the_contract_reports_what_is_missing(method, data, found):
    loader = DataLoader(Batches(), batch_size=None) if data is None else data
    with pytest.raises(UsageError, match=rf"{found}.*; expected one of ssl_lightning\.data.*: give it as datamodule"):
        trainer().fit(method(), loader)
