"""Zarr stores as people have them: stray files, links, old metadata, archives."""

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr
from command import run

from tiledlaf import label
from tiledlaf.annotations import pairing
from tiledlaf.files import images, nodes, stores

PIXELS = np.random.default_rng(0).integers(1, 250, (70, 90), dtype=np.uint8)
STRAYS = [
    ".DS_Store",
    "._0",
    "._zarr.json",
    "._c",
    "Thumbs.db",
    "desktop.ini",
    ".nfs000000000123",
    ".fuse_hidden0001",
    "Icon\r",
]
FORMATS = {
    "v2": {"zarr_format": 2},
    "v3": {"zarr_format": 3},
    "sharded": {"zarr_format": 3, "shards": (64, 64)},
}


def array_at(path, **options):
    options = {"chunks": (32, 32), "dtype": "u1", "fill_value": 0} | options
    zarr.create_array(path, shape=PIXELS.shape, overwrite=True, **options)[:] = PIXELS
    return str(path)


def read(path):
    image = images.open_image(path)
    return image.read(tuple(slice(0, n) for n in image.grid))[0]


def littered(root):
    for folder, folders, files in list(os.walk(root)):
        for name in [*STRAYS, *(f"._{name}" for name in (*folders, *files))]:
            Path(folder, name).write_bytes(b"\0\5\x16\7")
        Path(folder, "@eaDir").mkdir()
        Path(folder, "@eaDir", "0").write_bytes(b"x")


@pytest.mark.parametrize("kind", FORMATS)
def test_stray_files_count_nowhere(tmp_path, kind):
    path, out = array_at(tmp_path / "a.zarr", **FORMATS[kind]), str(tmp_path / "out")
    before = images.open_image(path).fingerprint()
    littered(path)
    np.testing.assert_array_equal(read(path), PIXELS)
    assert images.open_image(path).fingerprint() == before
    again = ["label", path, out, "--classes", "2"]
    assert run(*again).code == 0
    littered(out)
    # the run is complete, other labels are added, and replaced
    for options in ([], ["--name", "b"], ["--name", "b", "--classes", "3", "--overwrite"]):
        found = run(*again, *options)
        assert found.code == 0, found
    for command in ("info", "status"):
        assert run(command, out).code == 0
    assert stores.at(out).names("labels/b/0") == ["c", "tiledlaf.jsonl", "zarr.json"]


def test_folders_of_images_have_no_stray_files(tmp_path):
    for name in ("1.npy", "2.npy"):
        np.save(tmp_path / name, PIXELS)
    before = pairing.find(tmp_path)
    for name in ("._1.npy", ".DS_Store", "Thumbs.db", "~$2.npy"):
        (tmp_path / name).write_bytes(b"x")
    assert pairing.find(tmp_path) == before == [f"{tmp_path}/1.npy", f"{tmp_path}/2.npy"]
    assert pairing.find(f"{tmp_path}/*") == before


def annexed(path, annex):
    """Chunks as links into a folder, as git-annex has them."""
    annex.mkdir()
    for file in [p for p in Path(path).rglob("*") if p.is_file() and "z" not in p.name]:
        key = annex / "_".join(file.relative_to(path).parts)
        file.rename(key)
        file.symlink_to(key)


@pytest.mark.parametrize("kind", FORMATS)
def test_chunks_that_were_not_fetched_are_refused(tmp_path, kind):
    path = array_at(tmp_path / "a.zarr", **FORMATS[kind])
    annexed(path, tmp_path / "annex")
    np.testing.assert_array_equal(read(path), PIXELS)
    chunk = {"v2": "1.1", "v3": "c/1/1", "sharded": "c/1/1"}[kind]
    os.unlink(os.path.realpath(f"{path}/{chunk}"))
    image = images.open_image(path)
    assert image.read((slice(0, 32), slice(0, 32))).all()
    problem = rf"a\.zarr/{chunk}: this is a link to .*'git annex get'"
    with pytest.raises(ValueError, match=problem):
        image.read((slice(60, 70), slice(60, 90)))
    with pytest.raises(ValueError, match=problem):
        image.fingerprint()


def test_metadata_that_were_not_fetched_are_refused(tmp_path):
    path = array_at(tmp_path / "a.zarr")
    Path(path, "zarr.json").unlink()
    Path(path, "zarr.json").symlink_to("annex/none")
    with pytest.raises(ValueError, match=r"a\.zarr/zarr\.json: this is a link to annex/none"):
        images.open_image(path)


def test_an_output_may_be_a_link(tmp_path):
    (tmp_path / "out").symlink_to(tmp_path / "scratch/run")
    label(PIXELS, tmp_path / "out", prototypes=[[60], [180]])
    assert nodes.is_store(str(tmp_path / "scratch/run"))


@pytest.mark.parametrize("name", [">u1", "<u1", "=u1", "u1", "uint8"])
def test_data_types_of_old_programs(tmp_path, name):
    group = zarr.open_group(tmp_path / "a", zarr_format=2)
    group.attrs["multiscales"] = [
        {
            "version": "0.4",
            "axes": [{"name": a, "type": "space"} for a in "yx"],
            "datasets": [
                {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [2, 2]}]}
            ],
        }
    ]
    array_at(tmp_path / "a/0", zarr_format=2)
    zarr.consolidate_metadata(tmp_path / "a")
    for file in (tmp_path / "a/0/.zarray", tmp_path / "a/.zmetadata"):
        file.write_text(file.read_text().replace('"|u1"', f'"{name}"'))
    assert f'"{name}"' in file.read_text()
    for path in (tmp_path / "a", tmp_path / "a/0"):
        np.testing.assert_array_equal(read(path), PIXELS)


@pytest.mark.parametrize(("name", "dtype"), [(">b1", bool), (">i1", "i1"), ("=u2", "u2")])
def test_other_data_types_of_old_programs(tmp_path, name, dtype):
    expected = (PIXELS // 2).astype(dtype)
    zarr.create_array(tmp_path / "a", data=expected, chunks=(32, 32), zarr_format=2)
    file = tmp_path / "a/.zarray"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"dtype": name}))
    np.testing.assert_array_equal(read(tmp_path / "a"), expected)


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_consolidated_metadata_may_be_older_than_the_arrays(tmp_path, zarr_format):
    group = zarr.open_group(tmp_path / "a", zarr_format=zarr_format)
    axes, moves = [{"name": a} for a in "yx"], [{"type": "scale", "scale": [1, 1]}]
    datasets = [{"path": "0", "coordinateTransformations": moves}]
    found = {"multiscales": [{"axes": axes, "datasets": datasets, "version": "0.4"}]}
    group.attrs.update(found if zarr_format == 2 else {"ome": found | {"version": "0.5"}})
    group.create_array("0", shape=(32, 32), chunks=(32, 32), dtype="f4")
    zarr.consolidate_metadata(tmp_path / "a", zarr_format=zarr_format)
    array_at(tmp_path / "a/0", zarr_format=zarr_format)
    np.testing.assert_array_equal(read(tmp_path / "a"), PIXELS)


def zipped(folder, file, below=""):
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(p for p in Path(folder).rglob("*") if p.is_file()):
            archive.write(path, f"{below}{path.relative_to(folder)}")
    return str(file)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("name", "below"), [("a.zarr.zip", ""), ("a.ozx", ""), ("b.zip", "b.zarr/")]
)
def test_stores_in_archives(tmp_path, kind, name, below):
    path = zipped(array_at(tmp_path / "a.zarr", **FORMATS[kind]), tmp_path / name, below)
    np.testing.assert_array_equal(read(path), PIXELS)
    before = images.open_image(path).fingerprint()
    os.utime(path, ns=(1, 1))
    assert images.open_image(path).fingerprint() != before
    state = Path(path).read_bytes()
    labels = label(path, prototypes=[[60], [180]], tile=64)
    out = tmp_path / "out"
    label(path, out, prototypes=[[60], [180]], tile=64)
    np.testing.assert_array_equal(nodes.open_array(str(out), "labels/tiledlaf/0")[:], labels)
    np.testing.assert_array_equal(nodes.open_array(str(out), "0")[:], PIXELS)
    for options in ({"output": path}, {"into_input": True}):
        with pytest.raises(ValueError, match=r"is a file|in a folder or at a URL"):
            label(path, prototypes=[[60], [180]], **options)
    assert Path(path).read_bytes() == state


def test_images_within_archives(tmp_path):
    label(PIXELS, tmp_path / "out", prototypes=[[60], [180]])
    path = zipped(tmp_path / "out", tmp_path / "out.ozx")
    found = images.open_labels(f"{path}/labels/tiledlaf")
    np.testing.assert_array_equal(
        found.read((slice(0, 70), slice(0, 90)))[0],
        nodes.open_array(str(tmp_path / "out"), "labels/tiledlaf/0")[:],
    )
    np.testing.assert_array_equal(read(path), PIXELS)


def test_damaged_archives(tmp_path):
    path = zipped(array_at(tmp_path / "a.zarr"), tmp_path / "a.zip")
    whole = Path(path).read_bytes()
    for damaged, problem in (
        (b"x" * 100, "a.zip: this archive cannot be read"),
        (whole[: len(whole) // 2], "a.zip: this archive cannot be read"),
    ):
        Path(path).write_bytes(damaged)
        os.utime(path, ns=(len(damaged),) * 2)
        with pytest.raises(ValueError, match=problem):
            images.open_image(path)
    Path(path).write_bytes(whole.replace(b"\x28\xb5\x2f\xfd", b"\x00\x00\x00\x00"))
    os.utime(path, ns=(7, 7))
    found = run("label", path, tmp_path / "out", "--classes", "2")
    assert (found.code, found.err.count("\n")) == (2, 1), found
    assert "pixels cannot be read" in found.err


def test_n5_is_refused_with_the_command_that_converts_it(tmp_path):
    (tmp_path / "a.n5/s0").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    for folder in ("a.n5", "b"):
        (tmp_path / folder / "attributes.json").write_text('{"n5": "2.5.0"}')
    for name, words in (("a.n5", "path='ARRAY'"), ("a.n5/s0", "path='s0'"), ("b", "path='ARRAY'")):
        with pytest.raises(ValueError, match=rf"N5 is not read.*zarr\.N5Store.*{words}"):
            images.open_image(tmp_path / name)
