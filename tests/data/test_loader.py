"""The training loader: every row in its place for any workers, processes and resumes; a dead worker is named."""

import io
import math
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torch import nn

from ssl_lightning.data import CuratedImages
from ssl_lightning.data.dataset import ImageDataset, InMemoryImages
from ssl_lightning.data.loader import SequentialLoader, TrainingLoader
from ssl_lightning.data.packs import open_unlabelled
from ssl_lightning.data.reading import CropSpec, RankShard, Task, _ignore_signals, without_sigterm
from ssl_lightning.data.views import View, center_view, expand

CROP_SPEC = CropSpec([View()], 8, seed=5)


def memory(count):
    images = (torch.arange(count) % 256).to(torch.uint8)[:, None, None, None].expand(count, 3, 2, 2).contiguous()
    return InMemoryImages(images)


def loader_of(count, batch_size, **options):
    return TrainingLoader(memory(count), CROP_SPEC, batch_size, **options)


def epoch_of(loader, epoch=0):
    loader.set_epoch(epoch)
    return [batch.index.tolist() for batch in loader]


@pytest.fixture
def stored(folder, png):
    """Images of two sizes, so that they stay on disk, with a broken one."""
    files = {f"{n:03d}.png": png(n, (9, 12) if n % 2 else (14, 10)) for n in range(40)}
    return open_unlabelled(str(folder(files | {"007.png": b"broken"})))


@given(st.integers(4, 60), st.integers(2, 12), st.integers(0, 5))
def test_an_epoch_visits_no_row_twice_and_misses_only_the_last_incomplete_batch(count, batch_size, epoch):
    if count < batch_size:
        return
    batches = epoch_of(loader_of(count, batch_size), epoch)
    rows = list(chain(*batches))
    assert len(set(rows)) == len(rows) == count // batch_size * batch_size
    assert all(len(batch) == batch_size for batch in batches)


@given(st.integers(4, 60), st.integers(2, 12))
def test_without_drop_last_all_rows_come_unless_one_would_be_alone(count, batch_size):
    if count < batch_size:
        return
    loader = loader_of(count, batch_size, drop_last=False)
    batches = epoch_of(loader)
    assert sum(map(len, batches)) == count - (count % batch_size == 1)
    assert len(batches) == len(loader)


@settings(deadline=None)
@given(st.integers(2, 4), st.integers(1, 4), st.integers(0, 3), st.booleans())
def test_processes_share_each_batch_of_one_process(world, each, epoch, balanced):
    count, batch_size = 61, 2 * world * each
    alone = loader_of(count, batch_size, drop_last=False)
    parts = [loader_of(count, batch_size, drop_last=False, share=RankShard(rank, world)) for rank in range(world)]
    for loader in (alone, *parts):
        loader.labels = torch.arange(count) % 3 if balanced else None
    together = zip(*(epoch_of(part, epoch) for part in parts), strict=True)
    whole = epoch_of(alone, epoch)
    assert [list(chain(*blocks)) for blocks in together] == whole[: len(parts[0])]


@settings(deadline=None)
@given(st.integers(0, 9), st.integers(0, 3), st.booleans(), st.sampled_from([1, 2]))
def test_a_resumed_epoch_gives_exactly_the_remaining_rows(stop, epoch, balanced, world):
    first = loader_of(43, 4)
    first.labels = torch.arange(43) % 5 if balanced else None
    first.set_epoch(epoch)
    stream = iter(first)
    done = [next(stream).index.tolist() for _ in range(stop)]
    state = first.state_dict()
    if stop:  # for the next epoch: it must not change one that has begun
        first.labels = torch.arange(43) % 2
    rest = [batch.index.tolist() for batch in stream]

    resumed = [loader_of(43, 4, share=RankShard(rank, world)) for rank in range(world)]
    for loader in resumed:
        loader.load_state_dict(state)
    found = [list(chain(*blocks)) for blocks in zip(*(epoch_of(loader, epoch) for loader in resumed), strict=True)]
    assert found == rest
    assert len(done) + len(rest) == len(first)
    again = loader_of(43, 4)
    again.labels = state["labels"]
    assert epoch_of(resumed[0], epoch + 1) == [rows[: 4 // world] for rows in epoch_of(again, epoch + 1)]


def test_a_state_survives_a_checkpoint_that_holds_weights_only(tmp_path):
    loader = loader_of(20, 4)
    loader.labels = torch.arange(20) % 2
    next(iter(loader))
    torch.save(loader.state_dict(), tmp_path / "state.pt")
    other = loader_of(20, 4)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert (other.epoch, other.position) == (0, 1)


@pytest.mark.parametrize("change", ["fingerprint", "batch_size", "seed", "drop_last"])
def test_a_state_of_other_data_or_settings_is_rejected_by_name(change):
    loader = loader_of(20, 4)
    state = loader.state_dict()
    state["made_for"][change] = 3
    with pytest.raises(ValueError, match=f"data.{change}=3"):
        loader.load_state_dict(state)


def test_nothing_happens_before_the_first_batch_is_requested():
    loader = loader_of(40, 4)
    stream = iter(loader)
    loader.labels = torch.full((40,), -1)
    loader.labels[:4] = 0
    loader.set_epoch(3)
    rows = [row for batch in stream for row in batch.index.tolist()]
    assert set(rows) == {0, 1, 2, 3}
    assert len(rows) == 40


def test_labels_given_during_an_epoch_count_from_the_next_one_on():
    loader = loader_of(40, 4)
    stream = iter(loader)
    first = next(stream).index.tolist()
    loader.labels = torch.where(torch.arange(40) < 4, 0, -1)
    rows = first + [row for batch in stream for row in batch.index.tolist()]
    assert sorted(rows) == list(range(40))
    assert set(chain(*epoch_of(loader, 1))) == {0, 1, 2, 3}


def test_a_second_pass_without_a_new_epoch_starts_anew():
    loader = loader_of(12, 4)
    assert epoch_of(loader) == epoch_of(loader)
    next(iter(loader))
    assert len(epoch_of(loader)) == 3


@pytest.mark.parametrize(
    ("count", "batch_size", "share", "message"),
    [
        (100, 10, RankShard(0, 3), "batch_size=10 does not divide by 3 processes"),
        (3, 4, RankShard(), "found 3 images, fewer than one batch of 4"),
        (100, 3, RankShard(0, 3), "fewer than two rows"),
    ],
)
def test_sizes_that_cannot_work_are_rejected_in_one_line(count, batch_size, share, message):
    with pytest.raises(ValueError, match=message):
        loader_of(count, batch_size, share=share)


def test_workers_change_no_bit(stored):
    crop_spec = CropSpec(expand([View(count=2), View(size=0.5)]), 8, seed=5)
    passes = []
    for workers in (0, 1, 2):
        loader = TrainingLoader(stored, crop_spec, 6, num_workers=workers)
        batches = []
        for epoch in range(2):
            loader.set_epoch(epoch)
            batches += list(loader)
        passes.append(batches)
    for batches in passes[1:]:
        for found, expected in zip(batches, passes[0], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(found.images, expected.images, strict=True))
            assert torch.equal(found.index, expected.index)
            assert torch.equal(found.valid, expected.valid)
    assert [crops.shape[-1] for crops in passes[0][0].images] == [8, 8, 4]


def test_crops_of_different_sizes_are_those_of_each_image_alone(stored):
    views = expand([View(count=2)])
    batch = next(iter(TrainingLoader(stored, CropSpec(views, 8, seed=5), 20)))
    for number, crops in enumerate(batch.images):
        for crop, row, valid in zip(crops, batch.index.tolist(), batch.valid.tolist(), strict=True):
            image = stored.read(torch.tensor([row]))[0][0]
            alone = CropSpec(views, 8, seed=5)([image], Task(0, torch.tensor([row])))[number]
            assert torch.equal(crop, alone[0])
            assert valid == (row != 7)


def test_a_resume_between_different_numbers_of_workers_reads_the_same_images(stored):
    whole = list(TrainingLoader(stored, CROP_SPEC, 4, num_workers=0))
    first = TrainingLoader(stored, CROP_SPEC, 4, num_workers=2)
    stream = iter(first)
    for _ in range(3):
        next(stream)
    resumed = TrainingLoader(stored, CROP_SPEC, 4, num_workers=1)
    resumed.load_state_dict(first.state_dict())
    rest = list(resumed)
    assert [batch.index.tolist() for batch in rest] == [batch.index.tolist() for batch in whole[3:]]
    assert all(torch.equal(a.images[0], b.images[0]) for a, b in zip(rest, whole[3:], strict=True))


def test_unreadable_rows_are_counted_and_named_when_they_are_too_many(stored):
    loader = TrainingLoader(stored, CROP_SPEC, 8)
    list(loader)
    assert (loader.masked, loader.masked_share) == (1, 1 / 40)
    loader.set_epoch(1)
    assert loader.masked == 0
    strict = TrainingLoader(stored, CROP_SPEC, 8, max_unreadable=0.01)
    strict.set_epoch(1)
    with pytest.raises(
        ValueError, match=r"1 of 40 images of epoch 1 .*\(1 of no format that is read\); first: .*007\.png\. .*0\.01"
    ):
        list(strict)


def test_a_batch_with_fewer_than_two_readable_rows_stops(folder, png):
    files = {f"{n}.png": png(n, (6, 6 + n)) if n == 0 else b"broken" for n in range(4)}
    with pytest.raises(
        ValueError,
        match=r"fewer than two readable images in a batch of 4 \(3 of no format that is read\); first: .*1\.png",
    ):
        list(TrainingLoader(open_unlabelled(str(folder(files))), CROP_SPEC, 4, max_unreadable=1.0))


class Deadly(ImageDataset):
    """Kills the process that reads row 13, as often as there are marks on disk."""

    def __init__(self, inner, marks, main):
        self.inner, self.marks, self.main = inner, marks, main
        self.labels, self.sample_ids, self.classes, self.size = inner.labels, inner.sample_ids, [], None

    def read(self, rows):
        marks = sorted(self.marks.iterdir())
        if os.getpid() != self.main and 13 in rows.tolist() and marks:
            marks[0].unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.inner.read(rows)

    def name(self, row):
        return f"file {row}"

    def make_fingerprint(self):
        return "deadly"


@pytest.mark.parametrize("deaths", [1, 9])
def test_a_dead_worker_is_replaced_and_a_deadly_image_is_reported_by_its_row(stored, tmp_path, deaths):
    marks = tmp_path / "marks"
    marks.mkdir()
    for number in range(deaths):
        (marks / str(number)).touch()
    loader = TrainingLoader(Deadly(stored, marks, os.getpid()), CROP_SPEC, 8, num_workers=1)
    if deaths == 1:
        rows = [row for batch in loader for row in batch.index.tolist()]
        assert sorted(rows) == list(range(40))
    else:
        with pytest.raises(RuntimeError, match=r"while reading rows \[.*\b13\b.*\], the first being file"):
            list(loader)


@pytest.mark.usefixtures("threads_in_workers")
def test_workers_heed_the_main_process_alone(stored):
    loader = TrainingLoader(stored, CROP_SPEC, 4, num_workers=2)
    stream = iter(loader)
    next(stream), next(stream)  # one of each worker: a signal before a worker has begun ends it, and it is replaced
    workers = loader._read._iterator._workers
    for name in ("INT", "TERM"):
        subprocess.run(["kill", f"-{name}", *(str(worker.pid) for worker in workers)], check=True)
    assert len(list(stream)) == len(loader) - 2
    assert all(worker.is_alive() for worker in workers)
    loader.end_workers()
    assert not any(worker.is_alive() for worker in workers)


@pytest.mark.usefixtures("threads_in_workers")
def test_a_worker_ends_when_its_main_process_reports_so():
    context = multiprocessing.get_context("fork")
    is_ready = context.Event()
    worker = context.Process(target=_idle, args=(is_ready,))
    with without_sigterm():
        worker.start()
    assert is_ready.wait(60)
    worker.terminate()
    worker.join(10)
    assert worker.exitcode == 1


_starts_a_thread = threading.Event()


def _start_a_thread():
    if _starts_a_thread.is_set():
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()


os.register_at_fork(after_in_child=_start_a_thread)


@pytest.fixture(params=[False, True], ids=["", "a library starts a thread in every process"])
def threads_in_workers(request):
    if request.param:
        _starts_a_thread.set()
    yield
    _starts_a_thread.clear()


def _idle(is_ready):
    _ignore_signals(0)
    is_ready.set()
    time.sleep(60)


@given(st.integers(0, 23), st.integers(1, 4), st.integers(1, 7))
def test_blocks_of_processes_give_each_row_once_in_order(count, world, batch_size):
    blocks = [list(SequentialLoader(memory(count), CROP_SPEC, batch_size, RankShard(r, world))) for r in range(world)]
    rows = [row for block in blocks for batch in block for row in batch.index.tolist()]
    assert rows == list(range(count))
    if count >= world and batch_size > 1:
        assert len({len(block) for block in blocks}) == 1  # else sharded networks would wait for each other
    for rank, block in enumerate(blocks):
        loader = SequentialLoader(memory(count), CROP_SPEC, batch_size, RankShard(rank, world))
        assert len(loader) == len(block)
        assert sum(len(batch.index) for batch in block) == (rank + 1) * count // world - rank * count // world


@pytest.mark.parametrize("workers", [0, 2])
def test_images_of_different_sizes_are_evaluated_by_their_center(stored, workers):
    crop_spec = CropSpec([], 8, center_fraction=0.8)
    batches = list(SequentialLoader(stored, crop_spec, 16, num_workers=workers, rows=torch.tensor([3, 8, 21])))
    (views,) = batches[0].images
    for view, row in zip(views, (3, 8, 21), strict=True):
        image = stored.read(torch.tensor([row]))[0][0]
        assert (view / 255 - center_view(image[None], 8, 0.8)[0]).abs().max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("workers", [0, 2, 4])
def test_reading_leaves_the_global_random_state_alone(stored, workers):
    """Dropout and other uses of the global state must not depend on which process reads the images."""
    loader = TrainingLoader(stored, CROP_SPEC, 8, num_workers=workers)
    passes = SequentialLoader(stored, CropSpec([], 8), 16, num_workers=workers)
    before = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"]  # noqa: NPY002
    for epoch in range(2):
        assert epoch_of(loader, epoch)
        assert list(passes)
    after = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"]  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert np.array_equal(before[1], after[1])
    loader.end_workers()


class Forgetful(LightningModule):
    """A network with losses that depend on the global random state, through dropout."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 8), nn.Dropout(), nn.Linear(8, 1))
        self.losses = []

    def training_step(self, batch, batch_idx):
        loss = self.network(batch.views[0]).square().mean()
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-3)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_network_with_dropout_learns_the_same_whoever_reads_the_images(folder, png, tmp_path, workers):
    root = folder({f"train/{n % 2}/{n}.png": png(n, (9, 12) if n % 3 else (14, 10)) for n in range(24)})
    folder({f"test/{n % 2}/{n}.png": png(n, (9, 12) if n % 3 else (14, 10)) for n in range(8)})

    def losses(num_workers):
        data = CuratedImages(path=str(root), batch_size=8, image_size=8, num_workers=num_workers)
        model = Forgetful()
        torch.manual_seed(7)
        trainer = Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False,
                          enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path)  # fmt: skip
        trainer.fit(model, data)
        return model.losses

    alone = losses(0)
    assert len(alone) == 6
    assert all(map(math.isfinite, alone))
    assert losses(workers) == alone


def noise(n):
    """The bytes of a PNG of noise, of one of two sizes."""
    pixels = np.random.default_rng(n).integers(0, 256, (24, 30 + 4 * (n % 2), 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def occurrences_of(loader, epoch=0):
    loader.set_epoch(epoch)
    return [list(zip(batch.index.tolist(), batch.occurrence.tolist(), strict=True)) for batch in loader]


@pytest.mark.parametrize("world", [1, 2])
def test_occurrences_count_over_all_processes_and_survive_a_resume(world):
    loaders = [loader_of(61, 8, share=RankShard(rank, world)) for rank in range(world)]
    for loader in loaders:
        loader.labels = (torch.arange(61) < 5).long()  # five rows fill half of the epoch
    whole = [list(chain(*parts)) for parts in zip(*map(occurrences_of, loaders), strict=True)]
    seen = {}
    for row, occurrence in chain(*whole):
        assert occurrence == seen.get(row, 0)
        seen[row] = occurrence + 1
    assert max(seen.values()) >= 4

    first = loader_of(61, 8)
    first.labels = loaders[0].labels
    stream = iter(first)
    for _ in range(3):
        next(stream)
    resumed = loader_of(61, 8)
    resumed.load_state_dict(first.state_dict())
    assert occurrences_of(resumed) == whole[3:]


def test_an_order_without_repetition_has_no_occurrences():
    assert not any(batch.occurrence.any() for batch in loader_of(40, 4))


def test_workers_crop_a_repeated_row_differently_each_time(folder):
    """The same crops with and without workers, and others for each occurrence of a row in the epoch."""
    stored = open_unlabelled(str(folder({f"{n:03d}.png": noise(n) for n in range(40)})))
    crops = []
    for workers in (0, 2):
        loader = TrainingLoader(stored, CropSpec([View()], 8, seed=5), 10, num_workers=workers)
        loader.labels = torch.where(torch.arange(40) < 4, 0, -1)
        found = {}
        for batch in loader:
            for row, occurrence, crop in zip(
                batch.index.tolist(), batch.occurrence.tolist(), batch.images[0], strict=True
            ):
                found[row, occurrence] = crop
        loader.end_workers()
        crops.append(found)
    assert len(crops[0]) == 40
    assert all(torch.equal(crops[0][key], crops[1][key]) for key in crops[0])
    for row in range(4):
        own = [crop for (other, _), crop in crops[0].items() if other == row]
        assert len({crop.numpy().tobytes() for crop in own}) == len(own) == 10
