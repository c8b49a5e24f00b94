"""`info` lists all that a file holds, also where something has to be chosen from it."""

import zipfile

import numpy as np
import PIL.Image
import pytest
import tifffile
from command import run
from drawings import box, collection, feature, write

GRAY = np.arange(40 * 50, dtype=np.uint16).reshape(40, 50)


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def info(path):
    found = run("info", path)
    assert found.code == 0, found
    assert found.err == ""
    return found.out.splitlines()


def test_series_and_pixel_sizes():
    with tifffile.TiffWriter("a.ome.tif", ome=True) as file:
        file.write(GRAY[:9, :8], metadata={"Name": "macro"})
        sizes = {"Name": "slide", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5}
        file.write(GRAY, subifds=1, metadata=sizes, tile=(16, 16))
        file.write(GRAY[::2, ::2], subfiletype=1, tile=(16, 16))
    assert info("a.ome.tif") == [
        "a.ome.tif: tiff, axes yx, uint16",
        "  series 0 'macro': yx 9 x 8, uint16",
        "  series 1 'slide': yx 40 x 50, uint16",
        "  level 0: yx 40 x 50, pixel size 0.5 x 0.25 micrometer",
        "  level 1: yx 20 x 25, pixel size 1 x 0.5 micrometer",
    ]


def test_channels():
    tifffile.imwrite(
        "a.ome.tif",
        np.stack([GRAY, GRAY]),
        photometric="minisblack",
        metadata={"axes": "CYX", "Channel": {"Name": ["DAPI", "CD3"]}},
    )
    assert info("a.ome.tif")[1:] == ["  channels: 0 DAPI, 1 CD3", "  level 0: yx 40 x 50"]
    PIL.Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save("a.png")
    assert info("a.png") == [
        "a.png: raster, axes yxc, uint8",
        "  channels: red, green, blue",
        "  level 0: yx 4 x 5",
    ]


def test_time_points():
    series = np.stack([GRAY, GRAY, GRAY])
    tifffile.imwrite("a.tif", series, imagej=True, metadata={"axes": "TYX"})
    assert info("a.tif") == ["a.tif: tiff, axes tyx, uint16", "  level 0: tyx 3 x 40 x 50"]


def test_pages_that_may_be_anything():
    with tifffile.TiffWriter("a.tif") as file:
        for _ in range(5):
            file.write(GRAY, metadata=None)
    first, second = info("a.tif")
    assert first == "a.tif: tiff"
    assert "5 pages may be planes, channels or time points" in second
    assert "`" not in second


def test_annotations(tmp_path):
    """How many of which class; of COCO, for each image; of a zip of ROIs, in all."""
    given = [feature(box(0, 0, 9, 9), name) for name in ("a", "b", "a", None)]
    given.append(feature(box(0, 0, 9, 9), "a", objectType="cell"))
    path = write(tmp_path / "a.geojson", collection(*given))
    found = run("info", path)
    assert found.out == f"{path}: annotations\n  2 a, 1 b, 1 without a class, 1 a (cell)\n"
    coco = {
        "images": [{"id": n, "file_name": f"{n}.png", "height": 9, "width": 9} for n in range(2)],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5]}],
    }
    path = write(tmp_path / "coco.json", coco)
    assert run("info", path).out == f"{path}: annotations\n  0: none\n  1: 1 a\n"
    with zipfile.ZipFile(tmp_path / "job.zip", "w") as archive:
        archive.write(path, "annotations/coco.json")
    assert "1: 1 a" in run("info", tmp_path / "job.zip").out
    coco["images"][0].pop("height")
    for content, name in (("{", "b.geojson"), (coco, "b.json")):
        found = run("info", write(tmp_path / name, content))
        assert (found.code, found.err.count("\n")) == (2, 1), found
