"""Small collections of images that change between builds, and what a manifest has of them."""

import io
import tarfile
from pathlib import Path

from PIL import Image
from pyarrow import parquet

from ssl_lightning.data.manifest.build import Job, build, merge_parts
from ssl_lightning.data.manifest.planned import parts_folder
from ssl_lightning.data.options import DEFAULT_OPTIONS


def image(number, size=6):
    """Bytes of an image of one color, another one for each number."""
    stream = io.BytesIO()
    Image.new("RGB", (size, size), (number % 256, number // 256, 7)).save(stream, "PNG")
    return stream.getvalue()


def number_of(data):
    """The number of an image."""
    red, green, _ = Image.open(io.BytesIO(data)).convert("RGB").getpixel((0, 0))
    return red + 256 * green


def write_tar(path, files):
    """A tar file of these files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def write_folder(folder, files):
    """A folder of these files."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def built(out, *sources, workers=1, options=DEFAULT_OPTIONS, jobs=1):
    """Build a manifest of sources; in several jobs and a merge, if so requested."""
    if jobs == 1:
        return build([str(source) for source in sources], Path(out), options, workers).changes
    for number in range(jobs, 0, -1):
        build([str(source) for source in sources], Path(out), options, workers, Job(number, jobs))
    return merge_parts(parts_folder(Path(out)), Path(out))


def rows(out):
    """The rows of a manifest, as dictionaries."""
    return parquet.read_table(out).to_pylist()


def ids(out):
    """Id of each path that is there."""
    return {
        "/".join(filter(None, (row["shard"], row["member"]))): row["sample_id"]
        for row in rows(out)
        if row["status"] != "missing"
    }
