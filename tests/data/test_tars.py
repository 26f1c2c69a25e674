"""The index of a tar file: right offsets, and one line for everything that is broken or unsafe."""

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_lightning.data.tars import index_tar

GOOD = [("a/1.jpg", b"first"), ("a/2.jpg", b""), ("b/3.jpg", b"third" * 500)]


def linked(kind, name="x.jpg", target="/etc/passwd"):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("mode", ["w", "w:xz", "w:gz", "w:bz2"])
def test_offsets_lead_to_the_content_whatever_the_compression(tar, mode):
    path = tar(GOOD, "pack.bin", mode)
    index = index_tar(path)
    content = path.read_bytes() if index.unpacked is None else index.unpacked.tobytes()
    found = [content[start : start + size] for start, size in zip(index.offsets, index.sizes, strict=True)]
    assert list(zip(index.names, found, strict=True)) == GOOD


def test_names_are_data(tar):
    long = "d" * 300 + "/ü\n☃.jpg"
    index = index_tar(tar([(long, b"x"), ("./plain.jpg", b"y"), ("C:\\up.jpg", b"z")]))
    assert index.names == [long, "plain.jpg", "C:\\up.jpg"]


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ([("../up.jpg", b"x")], "leaves its folder, '../up.jpg'"),
        ([("a/../../up.jpg", b"x")], "leaves its folder"),
        ([("/etc/up.jpg", b"x")], "leaves its folder"),
        ([(linked(tarfile.SYMTYPE), None)], "a link, 'x.jpg'"),
        ([(linked(tarfile.LNKTYPE), None)], "a link"),
        ([(linked(tarfile.CHRTYPE), None)], "a device"),
        ([(linked(tarfile.FIFOTYPE), None)], "a device"),
        ([("a.jpg", b"x"), ("b.jpg", b"y"), ("a.jpg", b"z")], "the name 'a.jpg' twice"),
        ([("a.jpg", b"x"), ("./a.jpg", b"z")], "the name 'a.jpg' twice"),
    ],
)
def test_unsafe_members_are_refused_in_one_line(tar, members, told):
    with pytest.raises(ValueError, match=told) as error:
        index_tar(tar(members))
    assert "\n" not in str(error.value)
    assert "pictures.tar" in str(error.value)


@pytest.mark.parametrize("mode", ["w", "w:xz", "w:gz", "w:bz2"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_truncated_file_is_never_taken_for_a_shorter_one(tmp_path_factory, mode, data):
    path = tmp_path_factory.mktemp("cut") / "pack.tar"
    with tarfile.open(path, mode) as archive:
        for number in range(4):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size = 700
            archive.addfile(info, io.BytesIO(bytes([number]) * 700))
    whole = path.read_bytes()
    end = 4 * 3 * 512 if mode == "w" else len(whole) - 1  # plain: all that matters is before the padding
    path.write_bytes(whole[: data.draw(st.integers(0, end))])
    with pytest.raises(ValueError, match="make or copy it again"):
        index_tar(path)


def test_a_broken_header_is_not_taken_for_the_end(tar):
    path = tar(GOOD)
    content = bytearray(path.read_bytes())
    content[2 * 512 + 10] ^= 0xFF  # in the second header
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"no end mark after 1 members|not a whole tar"):
        index_tar(path)


def test_a_declared_size_beyond_the_file_is_refused(tar):
    path = tar([("a.jpg", b"x")])
    content = bytearray(path.read_bytes())
    content[124:136] = b"%011o\0" % (8 << 30 - 1)
    content[148:156] = b"        "
    content[148:156] = b"%06o\0 " % sum(content[:512])
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"middle of a member|not a whole tar"):
        index_tar(path)


def test_nothing_is_written_beside_the_file(tar, tmp_path):
    index_tar(tar([("evil/x.jpg", b"x")]))
    assert [path.name for path in tmp_path.iterdir()] == ["pictures.tar"]
