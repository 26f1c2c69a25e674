"""The learning rate of a run that is shorter than its warm-up."""

import pytest
import torch

from ssl_lightning.optim import MultiStep, WarmupCosine
from ssl_lightning.optim.steps import with_schedule


@pytest.mark.parametrize(
    ("schedule", "epochs", "reached"),
    [
        (WarmupCosine(warmup_epochs=10.0), 5, "to 1 of"),  # a warm-up is cut at the end of the run
        (WarmupCosine(warmup_epochs=10.0), 20, None),
        (WarmupCosine(), 1, None),
        (MultiStep(epochs=(3.0,)), 2, None),
        (MultiStep(epochs=(30.0,), warmup_epochs=10.0), 5, "to 0.5 of"),
        (MultiStep(epochs=(30.0,), warmup_epochs=10.0), 50, None),
    ],
)
def test_a_run_that_is_shorter_than_its_warm_up_is_reported(schedule, epochs, reached, caplog):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    with_schedule(optimizer, schedule, epochs * 98, 98)
    assert bool(caplog.text) == (reached is not None)
    assert (reached or "") in caplog.text
