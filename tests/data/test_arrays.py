"""Arrays of images in NumPy and HDF5 files: values, channels, labels, splits, and one line for what is no image."""

import io
import zipfile

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from ssl_lightning.data import CuratedImages, UncuratedImages
from ssl_lightning.data.decode import decode
from ssl_lightning.data.packs import open_labelled, open_unlabelled, splits
from ssl_lightning.data.sources.opening import file_table
from ssl_lightning.data.sources.tiff_rows import as_tiff, header_size, stored
from ssl_lightning.errors import DataError

RANDOM = np.random.default_rng(0)
KINDS = ["npy", "npz", "packed", "h5"]


@pytest.fixture
def save(tmp_path):
    """Writes arrays into a file; that of a `.npy` file is the first."""

    def make(ending, file="x", **arrays):
        path = tmp_path / f"{file}.{'npz' if ending == 'packed' else ending}"
        if ending == "npy":
            np.save(path, next(iter(arrays.values())))
        elif ending == "h5":
            with h5py.File(path, "w") as archive:
                for key, array in arrays.items():
                    archive[key] = array
        else:
            (np.savez if ending == "npz" else np.savez_compressed)(path, **arrays)
        return str(path)

    return make


def pixels(dataset):
    images, valid = dataset.read(torch.arange(len(dataset)))
    return torch.stack([*images]).numpy(), valid.tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(5, 6, 7), (5, 6, 7, 1), (5, 6, 7, 3), (5, 6, 7, 4)])
def test_rows_of_bytes_are_the_images(kind, shape, save):
    array = RANDOM.integers(0, 256, shape, dtype=np.uint8)
    if shape[-1] == 4:
        array[..., 3] = 255
    dataset = open_unlabelled(save(kind, images=array))
    found, valid = pixels(dataset)
    plain = np.repeat(array.reshape(5, 6, 7, -1)[..., :3], 3 if shape[-1] in (7, 1) else 1, -1)
    assert valid == [True] * 5
    assert np.array_equal(found, plain.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    "name", ["uint16", "int16", "int32", "uint32", "float32", "float16", "float64", "int64", "int8"]
)
def test_other_values_have_the_result_of_a_tiff_file_of_them(name, save):
    dtype = np.dtype(name)
    array = (RANDOM.integers(0, 100, (3, 6, 7))).astype(dtype)
    path = save("npy", images=array)
    plain = UncuratedImages(path=path).training
    assert pixels(plain)[1] == [name == "uint16"] * 3
    if name != "uint16":
        assert "without data.intensity_window" in plain.reason(0)
    window = UncuratedImages(path=path, intensity_window=(0.0, 51.0)).training
    found, valid = pixels(window)
    assert valid == [True] * 3
    assert np.array_equal(found[:, 0], np.rint(array.astype(np.float64).clip(0, 51) * 5).astype(np.uint8))


@pytest.mark.parametrize("shape", [(6, 7), (6, 7, 3), (6, 7, 4)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", ">u2", "bool"])
def test_the_file_of_a_row_is_one_that_others_read(shape, dtype):
    array = RANDOM.integers(0, 2 if dtype == "bool" else 250, shape).astype(dtype)
    data = as_tiff(array)
    assert len(data) == header_size(shape[2] if len(shape) == 3 else 1) + stored(array).nbytes
    image = Image.open(io.BytesIO(data))
    assert image.size == (7, 6)
    image.load()
    if dtype == "uint8":
        assert np.array_equal(np.asarray(image), array)
    assert decode(data).shape == (3, 6, 7)


@pytest.mark.parametrize("kind", KINDS)
def test_fortran_order_and_slices_are_the_same_images(kind, save):
    array = RANDOM.integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
    tables = [
        file_table(save(kind, name, images=form)) for name, form in (("c", array), ("f", np.asfortranarray(array)))
    ]
    assert [tables[0].read(row) for row in range(4)] == [tables[1].read(row) for row in range(4)]
    assert tables[0].sizes.tolist() == [len(tables[0].read(row)) for row in range(4)]


@pytest.mark.parametrize("kind", ["npz", "packed", "h5"])
def test_medmnist_files_are_trained_on_and_evaluated(kind, save):
    arrays = {}
    for split, count in (("train", 6), ("val", 3), ("test", 4)):
        arrays[f"{split}_images"] = RANDOM.integers(0, 256, (count, 8, 8), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 3).astype(np.uint8)[:, None]
    path = save(kind, "bloodmnist", **arrays)
    data = CuratedImages(path=path)
    train, test = data.probes["bloodmnist"]
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1, 2, 0, 1, 2], [0, 1, 2, 0])
    assert train.classes == ["0", "1", "2"]
    assert np.array_equal(pixels(test)[0][:, 0], arrays["test_images"])
    assert splits(path) == ["test", "train", "val"]
    name = "/train_images" if kind == "h5" else "train_images"
    assert len(open_unlabelled(f"{path}:{name}")) == 6
    with pytest.raises(DataError, match=r"has the image arrays .*; expected one: give .*:/?(test|train|val)_images"):
        open_unlabelled(path)
    with pytest.raises(DataError, match="has no split 'dev', only test, train, val"):
        open_labelled(path, "dev")


def test_the_file_of_keras_has_its_splits_too(save):
    arrays = {f"x_{split}": np.zeros((4, 5, 6), np.uint8) for split in ("train", "test")}
    arrays |= {f"y_{split}": np.array([1, 0, 2, 1]) for split in ("train", "test")}
    assert CuratedImages(path=save("npz", **arrays)).labels.tolist() == [1, 0, 2, 1]


def test_labels_are_of_the_named_array_or_of_a_usual_one(save):
    images, text = np.zeros((3, 5, 6), np.uint8), np.array([b"b", b"a", b"b"])
    path = save("h5", images=images, label=[2, 0, 2], kind=text)
    assert open_labelled(path, None).labels.tolist() == [1, 0, 1]
    kinds = UncuratedImages(path=path, label="kind").training
    assert (kinds.labels.tolist(), kinds.classes) == ([1, 0, 1], ["a", "b"])
    with pytest.raises(DataError, match=r"has no array 'x'; expected data.label of /images, /kind, /label"):
        _ = UncuratedImages(path=path, label="x").training
    with pytest.raises(DataError, match=r"has labels labels of shape 3 x 2; expected one for each of 3 images"):
        open_labelled(save("npz", images=images, labels=np.zeros((3, 2), int)), None)


def test_channels_that_can_only_be_first_are_moved_with_a_line(save, caplog):
    caplog.set_level("INFO")
    array = RANDOM.integers(0, 256, (5, 3, 6, 7), dtype=np.uint8)
    assert np.array_equal(pixels(open_unlabelled(save("npy", images=array)))[0], array)
    assert caplog.text.count("has channels first, 5 x 3 x 6 x 7: they are moved to the end") == 1


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((5, 3, 6, 3), np.uint8), "channels may be first or last: save it with the array as N x H x W x C"),
        (np.zeros((5, 6, 7, 2), np.uint8), "expected 1, 3 or 4 channels"),
        (np.zeros((480, 640, 3), np.uint8), "may be one image; expected N x H x W"),
        (np.zeros((5, 6, 7, 3), np.float32), "expected color as uint8 or uint16: save"),
        (np.zeros((5, 6)), r"has array 5 x 6; expected images, N x H x W"),
        (np.zeros((5, 6, 7), complex), "expected images"),
        (np.zeros((0, 6, 7), np.uint8), "expected images"),
        (np.array(5), "has array a number; expected images"),
    ],
)
def test_an_array_that_is_ambiguous_or_no_images_is_one_line(array, message, save):
    path = save("npy", images=array)
    with pytest.raises(DataError, match=message) as error:
        open_unlabelled(path)
    assert "\n" not in str(error.value)
    assert path in str(error.value)


def test_python_objects_are_never_loaded(tmp_path):
    class Harm:
        def __reduce__(self):
            return open, (str(tmp_path / "harm"), "w")

    for name, save in (("x.npy", np.save), ("x.npz", np.savez)):
        save(tmp_path / name, np.array([Harm(), Harm()], dtype=object))
        with pytest.raises(DataError, match=r"cannot be read as NumPy arrays \(.*: make or copy it again"):
            open_unlabelled(str(tmp_path / name))
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", [0, 20, 0.5])
def test_a_damaged_file_is_one_line_with_its_name(kind, keep, save):
    path = save(kind, images=RANDOM.integers(0, 256, (40, 16, 16), dtype=np.uint8))
    with open(path, "rb+") as file:
        size = file.seek(0, 2)
        file.truncate(int(keep * size) if keep < 1 else keep)
    with pytest.raises(
        DataError, match=r"cannot be read as (NumPy arrays|HDF5) \(.*\): make or copy it again"
    ) as error:
        open_unlabelled(path)
    assert "\n" not in str(error.value)
    assert path in str(error.value)


def header(shape, dtype="|u1"):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def test_what_declares_terabytes_is_rejected_before_it_is_read(tmp_path):
    huge = header((1 << 20, 1 << 11, 1 << 11))
    (tmp_path / "x.npy").write_bytes(huge + bytes(100))
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", huge + bytes(100))
    for name in ("x.npy", "x.npz"):
        with pytest.raises(DataError, match=rf"{name} cannot be read as NumPy arrays"):
            open_unlabelled(str(tmp_path / name))


def test_compressed_arrays_that_unpack_to_too_much_are_rejected(save, monkeypatch):
    monkeypatch.setattr("ssl_lightning.data.sources.numpy_files.LARGEST_UNPACKED", 1000)
    with pytest.raises(DataError, match=r"unpacks to [\d,]+ bytes; expected at most 8 GiB: save it by numpy.savez"):
        open_unlabelled(save("packed", images=np.zeros((40, 16, 16), np.uint8)))
    assert len(open_unlabelled(save("npz", images=np.zeros((40, 16, 16), np.uint8)))) == 40


def test_encoded_images_in_hdf5_are_read_as_files(tmp_path, png, number_of):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        rows = file.create_dataset("deep/photos", (4,), h5py.vlen_dtype(np.uint8))
        for row in range(3):
            rows[row] = np.frombuffer(png(row, (4 + row, 5)), np.uint8)
        file["deep/label"] = [0, 1, 0, 1]
    dataset = open_labelled(str(path), None)
    images, valid = dataset.read(torch.arange(4))
    assert valid.tolist() == [True] * 3 + [False]
    assert [number_of(image) for image in images[:3]] == [0, 1, 2]
    assert dataset.labels.tolist() == [0, 1, 0, 1]
    assert len(open_unlabelled(f"{path}:deep/photos")) == len(open_unlabelled(f"{path}:/deep/photos")) == 4
    with pytest.raises(DataError, match=r"has no array 'shallow'; expected one of /deep/label, /deep/photos"):
        open_unlabelled(f"{path}:shallow")


def test_other_files_that_an_hdf5_file_refers_to_are_not_read(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["images"] = np.zeros((4, 5, 6), np.uint8)
    (tmp_path / "secret.bin").write_bytes(bytes(120))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["link"] = h5py.ExternalLink("secret.h5", "/images")
        file.create_dataset("raw", (4, 5, 6), "u1", external=[(str(tmp_path / "secret.bin"), 0, 120)])
        layout = h5py.VirtualLayout((4, 5, 6), "u1")
        layout[:] = h5py.VirtualSource("secret.h5", "images", (4, 5, 6))
        file.create_virtual_dataset("virtual", layout)
    for name in ("link", "raw", "virtual"):
        with pytest.raises(DataError, match=r"refers to another file in .*, which is not read|has no array"):
            open_unlabelled(f"{tmp_path}/x.h5:{name}")
    with pytest.raises(DataError, match="refers to another file"):
        open_unlabelled(f"{tmp_path}/x.h5")
