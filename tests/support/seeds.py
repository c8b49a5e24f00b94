"""Small valid files of every kind that is read, for fuzzers to damage; each is made in a folder."""

import json
import zipfile
from functools import partial
from pathlib import Path

import numpy as np

SIZE = (24, 30)
RNG = np.random.default_rng(7)
IMAGE = RNG.integers(0, 255, SIZE, dtype=np.uint8)
IMAGE[:, 15:] //= 3
LABELS = (IMAGE > 90).astype(np.uint8)
COLOR = np.stack([IMAGE, IMAGE[::-1], 255 - IMAGE], axis=-1)
PROBABILITIES = np.stack([LABELS, 1 - LABELS]).astype(np.float32) * 0.8 + 0.1


def tiff(path, data=COLOR, **options):
    import tifffile

    tifffile.imwrite(path, data, **options)


def ome_tiff(path):
    import tifffile

    channels = {"Channel": {"Name": ["DAPI", "CD3"]}}
    sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "PhysicalSizeXUnit": "µm"}
    about = {"axes": "CYX", **channels, **sizes}
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(np.stack([IMAGE, LABELS]), subifds=1, metadata=about, tile=(16, 16))
        file.write(np.stack([IMAGE, LABELS])[:, ::2, ::2], subfiletype=1, tile=(16, 16))


def imagej_tiff(path):
    about = {"axes": "CYX", "unit": "um", "spacing": 2.0, "Labels": ["a", "b"]}
    tiff(path, np.stack([IMAGE, LABELS]), imagej=True, resolution=(2.0, 2.0), metadata=about)


def slide(path):
    import tifffile

    text = "Aperio Image Library v10.0.51\n30x24 [0,0 30x24] (16x16) JPEG/RGB Q=70|MPP = 0.4990"
    with tifffile.TiffWriter(path) as file:
        file.write(COLOR, tile=(16, 16), description=text, metadata=None)
        file.write(COLOR[::2, ::2], tile=(16, 16), description=text, metadata=None)


def palette_tiff(path):
    table = RNG.integers(0, 65535, (3, 256), dtype=np.uint16)
    tiff(path, IMAGE, photometric="palette", colormap=table, compression="zlib")


def picture(path, mode="RGB", data=COLOR, **options):
    import PIL.Image

    made = PIL.Image.fromarray(data)
    (made if made.mode == mode else made.convert(mode)).save(path, **options)


def turned_jpeg(path):
    import PIL.Image

    made = PIL.Image.fromarray(COLOR)
    exif = made.getexif()
    exif[0x0112] = 6
    made.save(path, exif=exif)


def deep_png(path):
    import imagecodecs

    Path(path).write_bytes(imagecodecs.png_encode(COLOR.astype(np.uint16) * 200))


def hdf5(path, tags=True):
    import h5py

    with h5py.File(path, "w") as file:
        data = file.create_dataset("exported_data", data=IMAGE[..., None], chunks=(8, 8, 1))
        axes = [{"key": key, "typeFlags": 2, "resolution": 0.0} for key in "yxc"]
        if tags:
            data.attrs["axistags"] = json.dumps({"axes": axes})
        data.attrs["element_size_um"] = [1.0, 0.5, 0.5]


def array(path, zarr_format=3, data=IMAGE, name=None, **options):
    import zarr

    options = {"chunks": (8,) * data.ndim} | options
    made = zarr.create_array(
        path, name=name, shape=data.shape, dtype=data.dtype, zarr_format=zarr_format, **options
    )
    made[...] = data
    return made


def old_array(path):
    array(path, 2, order="F", filters=None).attrs["_ARRAY_DIMENSIONS"] = ["y", "x"]


def sharded(path):
    array(path, shards=(16, 16), dimension_names=["y", "x"])


AXES = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]


def multiscales(version):
    """The metadata of an image of two levels."""
    image = {"name": "image", "datasets": [{"path": "0"}, {"path": "1"}]}
    if version not in ("0.1", "0.2", "0.3"):
        for factor, dataset in enumerate(image["datasets"], 1):
            scale = {"type": "scale", "scale": [1, 0.5 * factor, 0.5 * factor]}
            moved = {"type": "translation", "translation": [0, 0.25, 0.25]}
            dataset["coordinateTransformations"] = [scale, moved]
        image["coordinateTransformations"] = [{"type": "scale", "scale": [1, 2, 2]}]
    if version != "0.1":
        image["axes"] = [{"name": "c", "type": "channel"}, *AXES]
    if version == "0.3":
        image["axes"] = ["c", "y", "x"]
    if version == "0.6":
        axes = image.pop("axes")
        image["coordinateSystems"] = [{"name": name, "axes": axes} for name in ("here", "there")]
        for dataset in image["datasets"]:
            scale = dataset["coordinateTransformations"][0] | {"input": "0", "output": "here"}
            dataset["coordinateTransformations"] = [scale]
        end = {"input": "here", "output": "there"}
        parts = [
            {"type": "identity"},
            {"type": "affine", "affine": [[1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 5]]},
            {"type": "mapAxis", "mapAxis": [0, 1, 2]},
        ]
        image["coordinateTransformations"] = [{"type": "sequence", "transformations": parts, **end}]
    window = {"start": 0, "end": 255, "min": 0, "max": 255}
    channels = [{"label": n, "color": "00FF00", "window": window} for n in ("a", "b")]
    return {"version": version, "multiscales": [image], "omero": {"channels": channels}}


def ome_zarr(path, version="0.5", name=""):
    import zarr

    three = version in ("0.5", "0.6")
    about = multiscales(version)
    if not three:
        about["multiscales"][0]["version"] = about.pop("version")
    group = zarr.open_group(path, path=name, mode="a", zarr_format=3 if three else 2)
    group.attrs.update({"ome": about} if three else about)
    data = np.stack([IMAGE, LABELS])
    if version == "0.1":  # always t, c, z, y, x
        data = data[None, :, None]
    for level in (0, 1):
        part = data[..., :: level + 1, :: level + 1]
        array(path, 3 if three else 2, part, f"{name}/{level}".lstrip("/"))


def plate(path):
    import zarr

    group = zarr.open_group(path, mode="w", zarr_format=3)
    wells = [{"path": "A/1", "rowIndex": 0, "columnIndex": 0}]
    about = {"name": "p", "rows": [{"name": "A"}], "columns": [{"name": "1"}], "wells": wells}
    group.attrs["ome"] = {"version": "0.5", "plate": about}
    well = zarr.open_group(path, path="A/1", mode="a", zarr_format=3)
    well.attrs["ome"] = {"version": "0.5", "well": {"images": [{"path": "0"}]}}
    ome_zarr(path, name="A/1/0")


def series(path):
    import zarr

    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.attrs["bioformats2raw.layout"] = 3
    zarr.open_group(path, path="OME", mode="a", zarr_format=2).attrs["series"] = ["0", "1"]
    Path(path, "OME", "METADATA.ome.xml").write_text(
        '<OME><Image Name="a"/><Image Name="b"/></OME>'
    )
    for name in ("0", "1"):
        ome_zarr(path, "0.4", name)


def spatialdata(path):
    import zarr

    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.attrs["spatialdata_attrs"] = {"version": "0.2"}
    ome_zarr(path, name="images/a")
    node = zarr.open_group(path, path="images/a", mode="a")
    node.attrs["spatialdata_attrs"] = {"version": "0.3"}


def zipped(path, make=ome_zarr):
    folder = Path(path).with_suffix(".unzipped")
    make(folder)
    packed(path, {str(p.relative_to(folder)): p.read_bytes() for p in files(folder)})


def packed(path, members):
    """A zip archive of files by name, always with the same bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)


def files(folder):
    return sorted(p for p in Path(folder).rglob("*") if p.is_file())


def n5(path):
    Path(path, "data").mkdir(parents=True)
    Path(path, "attributes.json").write_text(json.dumps({"n5": "2.5.0"}))
    about = {"dataType": "uint8", "dimensions": [30, 24], "blockSize": [8, 8]}
    Path(path, "data", "attributes.json").write_text(json.dumps(about))


def npz(path):
    with open(path, "wb") as file:
        np.savez(file, image=IMAGE)


# annotations of the image


def _ring(x, y, right, bottom):
    return [[x, y], [right, y], [right, bottom], [x, bottom], [x, y]]


def features():
    shapes = [
        {"type": "Polygon", "coordinates": [_ring(1, 1, 12, 20), _ring(4, 4, 6, 6)]},
        {"type": "MultiPolygon", "coordinates": [[_ring(14, 1, 28, 9)], [_ring(14, 12, 28, 20)]]},
        {"type": "LineString", "coordinates": [[1, 21], [20, 22], [25, 10]]},
        {"type": "MultiPoint", "coordinates": [[3, 3], [29, 23]]},
    ]
    found = []
    for number, shape in enumerate(shapes):
        name = ("Tumor", "Stroma")[number % 2]
        about = {"objectType": "annotation", "classification": {"name": name, "color": [200, 0, 9]}}
        plane = {"plane": {"z": 0, "t": 0}}
        one = {"type": "Feature", "id": str(number), "geometry": shape | plane}
        found.append(one | {"properties": about})
    return {"type": "FeatureCollection", "features": found}


def coco():
    runs = {"size": [24, 30], "counts": [24 * 20, 24 * 5, 24 * 5]}
    shapes = [
        {"segmentation": [[1, 1, 12, 1, 12, 20, 1, 20]], "category_id": 1},
        {"segmentation": runs, "iscrowd": 1, "category_id": 2},
        {"bbox": [14, 1, 8, 9], "category_id": 2},
    ]
    return {
        "images": [{"id": 1, "file_name": "image.npy", "height": 24, "width": 30}],
        "categories": [{"id": 1, "name": "Tumor"}, {"id": 2, "name": "Stroma"}],
        "annotations": [{"id": n, "image_id": 1} | one for n, one in enumerate(shapes)],
    }


def napari():
    rows = ["index,shape-type,vertex-index,axis-0,axis-1,class"]
    for index, (kind, name) in enumerate((("polygon", "a"), ("ellipse", "b"), ("path", "a"))):
        for vertex, (x, y) in enumerate(_ring(1 + 9 * index, 1, 8 + 9 * index, 20)[:4]):
            rows.append(f"{index},{kind},{vertex},{float(y)},{float(x)},{name}")
    return "\n".join(rows) + "\n"


def rois():
    import roifile

    found = {}
    for name, corners in (("a", _ring(1, 1, 12, 20)), ("b", _ring(14, 2, 28, 20))):
        found[f"{name}.roi"] = roifile.ImagejRoi.frompoints(corners, name=name).tobytes()
    return found


IMAGES = {
    "rgb.tif": tiff,
    "tiled.tif": partial(tiff, data=IMAGE, tile=(16, 16), compression="zlib", predictor=True),
    "stack.tif": partial(tiff, data=np.stack([IMAGE] * 3), photometric="minisblack"),
    "white.tif": partial(tiff, data=IMAGE, photometric="miniswhite"),
    "palette.tif": palette_tiff,
    "image.ome.tif": ome_tiff,
    "imagej.tif": imagej_tiff,
    "slide.svs": slide,
    "gray.png": partial(picture, mode="L", data=IMAGE),
    "color.png": picture,
    "alpha.png": partial(picture, mode="RGBA"),
    "palette.png": partial(picture, mode="P"),
    "deep.png": deep_png,
    "turned.jpg": turned_jpeg,
    "color.bmp": picture,
    "color.webp": partial(picture, lossless=True),
    "image.npy": lambda path: np.save(path, IMAGE),
    "npz.npy": npz,
    "image.h5": hdf5,
    "bare.h5": partial(hdf5, tags=False),
}
STORES = {
    "v3.zarr": array,
    "v2.zarr": old_array,
    "sharded.zarr": sharded,
    "plate.zarr": plate,
    "series.zarr": series,
    "spatial.zarr": spatialdata,
    "folder.n5": n5,
    **{
        f"ome{v}.zarr": partial(ome_zarr, version=v)
        for v in ("0.1", "0.2", "0.3", "0.4", "0.5", "0.6")
    },
}
ZIPS = {
    "array.zarr.zip": partial(zipped, make=array),
    "image.zarr.zip": zipped,
    "old.ozx": partial(zipped, make=partial(ome_zarr, version="0.4")),
}
