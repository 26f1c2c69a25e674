"""State by dataset row: saved as extra state, moved with the module, written once a row."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ssl_lightning.clustering import Clustering
from ssl_lightning.sample_state import FeatureBank, FeatureQueue, PseudoLabels


def clustering(labels: list[int]) -> Clustering:
    rows = torch.tensor(labels)
    return Clustering(rows, torch.zeros(len(rows)), torch.zeros(3, 2), rows.clamp(min=0).bincount(minlength=3))


class Holder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.labels, self.bank = PseudoLabels(), FeatureBank(0.5)


def test_labels_of_several_clusterings_are_columns_by_row():
    labels = PseudoLabels()
    assert labels.is_empty
    labels.assign([clustering([0, 1, -1, 2]), clustering([2, 2, 0, 0])])
    assert labels[torch.tensor([3, 0])].tolist() == [[2, 0], [0, 2]]
    assert labels.version == 1


def test_asking_before_the_first_clustering_names_the_callback():
    with pytest.raises(ValueError, match="Recluster"):
        PseudoLabels()[torch.tensor([0])]


def test_memory_banks_travel_as_extra_state_to_a_module_that_knows_no_size():
    source, target = Holder(), Holder()
    source.labels.assign([clustering([0, 1, 2])])
    source.bank.fill(torch.randn(3, 4), torch.tensor([True, False, True]))
    assert not dict(source.named_buffers())
    target.load_state_dict(source.state_dict())
    assert torch.equal(target.labels.rows, source.labels.rows)
    assert torch.equal(target.bank.rows, source.bank.rows)
    assert target.bank.valid.tolist() == [True, False, True]


def test_memory_banks_move_with_the_module_and_keep_their_type():
    holder = Holder()
    holder.labels.assign([clustering([0, 1, 2])])
    holder.bank.fill(torch.randn(3, 4))
    holder.half()
    assert holder.labels.rows.dtype == torch.int32
    assert holder.bank.rows.dtype == torch.float32
    holder.to("meta")
    assert holder.labels.rows.device.type == "meta"
    assert holder.bank.rows.device.type == "meta"


@pytest.mark.parametrize("momentum", [0.0, 0.5, 1.0])
def test_a_write_is_a_running_average_on_the_sphere_of_the_rows_of_the_batch_alone(momentum):
    bank = FeatureBank(momentum)
    first = torch.randn(6, 5)
    bank.fill(first)
    index, z = torch.tensor([4, 1, 4]), torch.randn(3, 5)
    bank.write(index, z)
    expected = F.normalize(first, dim=1)
    for row, new in ((4, z[0]), (1, z[1])):  # of row 4, which occurs twice, the first occurrence counts
        blend = momentum * expected[row] + (1 - momentum) * F.normalize(new, dim=0)
        expected[row] = F.normalize(blend, dim=0)
    assert torch.allclose(bank.rows, expected, atol=1e-6)
    assert torch.allclose(bank.rows.norm(dim=1), torch.ones(6), atol=1e-6)


def test_a_row_that_was_never_written_takes_the_new_embedding_whole():
    bank = FeatureBank(0.9)
    bank.fill(torch.randn(2, 3), torch.tensor([False, True]))
    bank.write(torch.tensor([0]), torch.tensor([[0.0, 2.0, 0.0]]))
    assert torch.allclose(bank.rows[0], torch.tensor([0.0, 1.0, 0.0]))
    assert bank.valid.all()


def test_a_sampled_row_is_blended_into_and_counts_only_once_it_has_been_written():
    bank = FeatureBank(0.5)
    bank.initialize(4, 3, seed=0)
    initial, new = bank.rows.clone(), torch.tensor([[0.0, 2.0, 0.0]])
    assert torch.allclose(initial.norm(dim=1), torch.ones(4))
    assert not bank.valid.any()
    bank.write(torch.tensor([2]), new)
    assert bank.valid.tolist() == [False, False, True, False]
    assert torch.allclose(bank.rows[2], F.normalize(initial[2] + new[0] / 2, dim=0))


def test_a_momentum_outside_its_range_is_rejected():
    with pytest.raises(ValueError, match="from 0 to 1"):
        FeatureBank(1.5)


def rows(*numbers: int) -> torch.Tensor:
    """One embedding a number, of two views; the second view's are negative."""
    one = torch.tensor(numbers, dtype=torch.float32).view(1, -1, 1)
    return torch.cat([one, -one]).expand(2, len(numbers), 3)


def test_a_queue_holds_the_newest_first_and_is_full_at_its_length():
    queue = FeatureQueue(5)
    assert not queue.is_full
    queue.push(rows(1, 2))
    assert queue.rows.shape == (2, 2, 3)
    queue.push(rows(3, 4))
    assert not queue.is_full
    assert torch.equal(queue.rows, rows(3, 4, 1, 2))
    queue.push(rows(5, 6))
    assert queue.is_full
    assert torch.equal(queue.rows, rows(5, 6, 3, 4, 1))
    queue.push(rows(7, 8, 9, 10, 11, 12))  # more than it holds
    assert torch.equal(queue.rows, rows(7, 8, 9, 10, 11))


def test_a_queue_goes_on_from_its_state_and_keeps_no_gradient():
    whole, first, second = FeatureQueue(4), FeatureQueue(4), FeatureQueue(4)
    for queue in (whole, first):
        queue.push(rows(1, 2, 3).half().requires_grad_())
    assert not dict(first.named_buffers())
    second.load_state_dict(first.state_dict())
    assert not second.is_full
    for queue in (whole, second):
        queue.push(rows(4, 5))
    assert torch.equal(second.rows, whole.rows)
    assert (second.rows.dtype, second.rows.requires_grad) == (torch.float32, False)


def test_no_queue_is_never_full_and_less_is_rejected():
    assert not FeatureQueue(0).is_full
    with pytest.raises(ValueError, match="queue_length=-1"):
        FeatureQueue(-1)
