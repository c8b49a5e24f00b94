"""Models: one file that is checked when it is read, and labels that no tile changes."""

import dataclasses
import json
import zipfile
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr
from command import contents, run
from models import make
from voronoi import lines

from tiledlaf import label
from tiledlaf.files import images, ngff
from tiledlaf.labeling.choice import choose_labeling
from tiledlaf.labeling.plan import Writing, make_plan
from tiledlaf.labeling.request import prepare
from tiledlaf.labeling.worker import label_tile
from tiledlaf.model import arrays as model_arrays
from tiledlaf.model import model as model_file
from tiledlaf.model.terms import AutoContext, Classified, Probabilities, Prototypes

# models that are made here do not say from which intensities
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not say from which:tiledlaf.files.image.FileWarning"
)
SHAPE = (150, 170)
KINDS = ["prototypes", "probabilities", "classifier", "auto-context", "uniform"]


@pytest.fixture(scope="module", params=KINDS)
def each(request):
    return make(request.param)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def given(found, image):
    """Probabilities, if the model wants them."""
    if not isinstance(found.term, Probabilities):
        return {}
    p = 1 / (1 + np.exp(-4 * (image - 0.5)))
    return {"probabilities": np.stack([p, 1 - p]).astype(np.float32)}


# The file


def test_round_trip(each, here):
    each.save("a.model")
    found = model_file.load("a.model")
    for key in ("classes", "offsets", "rho", "time", "tol", "channels", "bias", "trained"):
        assert getattr(found, key) == getattr(each, key)
    assert type(found.term) is type(each.term)
    expected = each.arrays()
    arrays = found.arrays()
    assert arrays.keys() == expected.keys()
    for key, value in expected.items():
        assert arrays[key].dtype == value.dtype
        np.testing.assert_array_equal(arrays[key], value, err_msg=key)
    assert found.fingerprint() == each.fingerprint()
    found.save("b.model")
    assert Path("b.model").read_bytes() == Path("a.model").read_bytes()
    assert sorted(p.name for p in Path().iterdir()) == ["a.model", "b.model"]


@pytest.mark.parametrize("kind", KINDS)
def test_folds(here, kind):
    """They come back, and labels and what depends on these are as without them."""
    plain = make(kind)
    others = Prototypes(((0.8,), (0.3,)), 0.2), plain.term
    folds = (plain.term, plain.term) if plain.term.takes_probabilities else others
    kept = dataclasses.replace(plain, folds=folds)
    kept.save("a.model")
    found = model_file.load("a.model")
    assert [type(one) for one in found.folds] == [type(one) for one in folds]
    expected, arrays = kept.arrays(), found.arrays()
    assert arrays.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(arrays[key], value, err_msg=key)
    found.save("b.model")
    assert Path("b.model").read_bytes() == Path("a.model").read_bytes()
    assert kept.fingerprint() == found.fingerprint() == plain.fingerprint()
    plain.save("plain.model")
    dataclasses.replace(found, folds=()).save("b.model")
    assert Path("b.model").read_bytes() == Path("plain.model").read_bytes()
    assert model_file.load("plain.model").folds == ()
    image = noisy((40, 50))
    data = given(plain, image)
    same(whole(image, model=found, **data), whole(image, model=plain, **data))
    assert prepare(image, model=found, **data).job.folds == ()  # nor do they travel to workers


def test_plain_arrays_without_code(each, here):
    each.save("a.model")
    with zipfile.ZipFile("a.model") as file:
        for info in file.infolist():
            assert info.date_time == (1980, 1, 1, 0, 0, 0)  # the same bytes at any time of day
            with file.open(info) as entry:
                assert np.lib.format.read_array(entry, allow_pickle=False).dtype != object
    about = json.loads(str(np.load("a.model")["model"]))
    assert (about["format"], about["version"]) == ("tiledlaf model", 1)


def test_fingerprint_is_of_what_labels_depend_on(each):
    assert dataclasses.replace(each, trained={"seed": 9}).fingerprint() == each.fingerprint()
    changes = [{"time": 2.0}, {"rho": 2.0}, {"tol": 0.1}, {"bias": (0.0, 0.1)}]
    if each.predictor is not None:
        changes += [{"predictor": dataclasses.replace(each.predictor, sigma=0.1)}]
        patches = each.predictor.patches.copy()
        patches[0, 0] = np.nextafter(patches[0, 0], 9)
        changes += [{"predictor": dataclasses.replace(each.predictor, patches=patches)}]
    prints = [dataclasses.replace(each, **change).fingerprint() for change in changes]
    assert len({each.fingerprint(), *prints}) == 1 + len(prints)


def test_a_save_that_is_cut_leaves_the_old_file(here, monkeypatch):
    make("prototypes").save("a.model")
    before = Path("a.model").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        make("classifier").save("a.model")
    assert Path("a.model").read_bytes() == before


def with_json(arrays, **entries):
    about = json.loads(str(arrays["model"]))
    for key, value in entries.items():
        inner = about
        *path, last = key.split("__")
        for part in path:
            inner = inner[part]
        inner[last] = value
    return arrays | {"model": np.array(json.dumps(about))}


def without(key):
    return lambda arrays: {k: v for k, v in arrays.items() if k != key}


def changed(key, change):
    return lambda arrays: arrays | {key: change(arrays[key].copy())}


def nan(array):
    array.flat[0] = np.nan
    return array


def entry(**entries):
    return lambda arrays: with_json(arrays, **entries)


PROTOTYPES = [
    (entry(version="2"), "no format version but '2'"),
    (entry(format="other"), "expected the format 'tiledlaf model', got 'other'"),
    (entry(channels=3), "expected"),
    (entry(channels=0), "expected"),
    (entry(predictor__features=[["image", "patch", 2, 1, 0]]), "expected 25 features, got 9"),
    (entry(predictor__features=[["image", "wavelet", 2]]), "wavelet"),
    (entry(predictor__features=[["odds", "patch", 40, 40, 0]]), "reach"),
    (entry(predictor__count=8), "expected 9 features"),
    (entry(predictor__sigma=float("nan")), "sigma"),
    (entry(predictor__sigma=-1), "sigma"),
    (entry(bias=[0, 0, 0]), "expected a bias of 2 classes, got 3"),
    (entry(bias=[0, float("nan")]), "Expected float"),
    (entry(bias=None), ""),
    (entry(rho=-1), "rho"),
    (entry(rho=float("nan")), "rho"),
    (entry(rho=float("inf")), "rho"),
    (entry(rho="1"), ""),
    (entry(time=0), "time must be a positive number, got 0"),
    (entry(time=1e9), "time must be at most 1000"),
    (entry(tol=0), "tol must be a positive number"),
    (entry(offsets=[]), ""),
    (entry(offsets=[[0, 1]]), "offset"),
    (entry(offsets=[[0, 0], [0, 1]]), "expected patches of 2, got 9"),
    (entry(offsets=[[0, 0], [0, 1, 2]]), ""),
    (
        entry(classes=[{"name": "a", "values": [0], "color": []}]),
        "of length >= 2",
    ),
    (entry(classes=[{"name": "a"}, {"name": "b"}]), "missing required field values"),
    (
        entry(term={"kind": "magic"}),
        "probabilities, network, classifier, auto-context, average, got 'magic'",
    ),
    (entry(term__scale=0), "positive scale"),
    (entry(term__scale=float("inf")), "positive scale"),
    (entry(term__values=[[0.0], [float("nan")]]), "finite"),
    (entry(term__values=[[0.0], [0.5, 1]]), "rows of numbers, all of one length"),
    (entry(term__values=[[0.0, 1], [0.5, 1]]), "one per channel, got 2"),
    (entry(term__values=[[0.5], [0.5]]), "different"),
    (entry(trained=None), ""),
    (without("model"), "no 'model'"),
    (without("predictor/mean"), "no 'predictor/mean'"),
    (changed("model", lambda a: np.array("{")), ""),
    (changed("model", lambda a: np.array("[]")), ""),
    (changed("model", lambda a: np.array(5)), ""),
    (changed("predictor/patches", nan), "expected finite float64 numbers as patches"),
    (changed("predictor/prototypes", lambda a: a.astype("f4")), "anchors, got float32"),
    (changed("predictor/prototypes", lambda a: a.ravel()), ""),
    (changed("predictor/prototypes", lambda a: a[:3]), "expected mean and scale"),
    (changed("predictor/patches", lambda a: a[:, :8]), "expected patches of 9, got 8"),
    (changed("predictor/patches", lambda a: a[:, 0]), ""),
    (changed("predictor/mean", lambda a: a[:8]), "expected mean and scale of 9 features"),
    (changed("predictor/scale", lambda a: 0 * a), "scale"),
]
CLASSIFIER = [
    (without("term/value"), "trees"),
    (changed("term/value", nan), "expected finite value"),
    (changed("term/threshold", lambda a: a[:-1]), "threshold"),
    (changed("term/feature", lambda a: a + 1000), "features"),
    (changed("term/mask", lambda a: a.astype("i8")), "mask of type uint32"),
    (changed("term/features", lambda a: a + 1), "features"),
    (entry(term__features=[["image", "patch", 1, 1, 0]]), "features"),
    (entry(channels=3), "features"),
]
FOLDS = [
    (entry(folds=None), ""),
    (entry(folds=[{}, {}]), "no 'kind'"),
    (entry(folds=[{"kind": "magic"}]), "got 'magic'"),
    (entry(folds=[{"kind": "probabilities", "classes": 3}]), "expected a term of 2 classes, got 3"),
    (
        entry(folds=[{"kind": "probabilities", "classes": 2}]),
        "expected terms of the folds that are computed from what the term is",
    ),
    (
        entry(folds=[{"kind": "prototypes", "scale": 1, "values": [[0, 1], [1, 0]]}]),
        "one per channel, got 2",
    ),
    (without("folds/0/value"), "trees"),
    (changed("folds/1/value", nan), "expected finite value"),
    (changed("folds/1/features", lambda a: a + 1), "features"),
]
PROBABILITIES = [
    (entry(term__classes=3), "expected a term of 2 classes, got 3"),
    (entry(term__classes="x"), ""),
]


def refused(words, *arguments, code=2):
    """One line with these words, and nothing is written."""
    before = contents(".")
    found = run(*arguments)
    assert (found.code, found.out) == (code, ""), found
    (line,) = found.err.splitlines()
    assert line.startswith("tiledlaf: error: ")
    assert words in line, line
    assert "Traceback" not in line
    assert contents(".") == before
    return line


@pytest.mark.parametrize(
    ("kind", "damage", "words"),
    [
        (kind, *row)
        for kind, rows in (
            ("prototypes", PROTOTYPES),
            ("classifier", CLASSIFIER),
            ("probabilities", PROBABILITIES),
            ("folds", FOLDS),
        )
        for row in rows
    ],
)
def test_damage_is_one_clear_line(here, kind, damage, words):
    tifffile.imwrite("image.tif", np.zeros((20, 30), np.float32))
    model_arrays.write_arrays("a.model", damage(_arrays(kind)))
    with pytest.raises(ValueError, match=r"a\.model: expected a complete model, "):
        model_file.load("a.model")
    line = refused(words, "label", "image.tif", "out.zarr", "--model", "a.model")
    assert "a.model: expected a complete model, " in line
    refused(words, "info", "a.model")


_kept = {}


def _arrays(kind):
    if kind not in _kept:
        found = make("classifier" if kind == "folds" else kind)
        folds = (found.term, found.term) if kind == "folds" else ()
        _kept[kind] = dataclasses.replace(found, folds=folds).arrays()
    return dict(_kept[kind])


def pickled(path):
    np.savez(path, model=np.array([{"a": 1}], dtype=object))
    Path(f"{path}.npz").rename(path)


def other_archive(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("notes.txt", "mine")


def flipped(path):
    make("prototypes").save(path)
    data = bytearray(Path(path).read_bytes())
    data[len(data) // 2] ^= 255
    Path(path).write_bytes(data)


def truncated(path, share=0.7):
    make("prototypes").save(path)
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: int(share * len(data))])


FILES = {
    "missing": (lambda path: None, "no such file"),
    "folder": (lambda path: Path(path).mkdir(), "expected a tiledlaf model, got a folder"),
    "empty": (lambda path: Path(path).write_bytes(b""), "expected a tiledlaf model, got another"),
    "text": (lambda path: Path(path).write_text("model"), "expected a tiledlaf model, got another"),
    "array": (lambda path: Path(path).write_bytes(_npy()), "tiledlaf model, got another kind"),
    "truncated": (truncated, "tiledlaf model, got another kind of file or a part of one"),
    "header": (lambda path: truncated(path, 0.001), "expected a tiledlaf model"),
    "a byte": (flipped, "expected a tiledlaf model, "),
    "pickle": (pickled, "expected a tiledlaf model, ValueError: Object arrays cannot be loaded"),
    "archive": (other_archive, "expected a"),
}


def _npy():
    np.save("array.npy", np.zeros(3))
    return Path("array.npy").read_bytes()


@pytest.mark.parametrize("what", FILES)
def test_a_file_that_is_no_model(here, what):
    write, words = FILES[what]
    tifffile.imwrite("image.tif", np.zeros((20, 30), np.float32))
    write("a.model")
    line = refused(words, "label", "image.tif", "out.zarr", "--model", "a.model")
    assert line.startswith("tiledlaf: error: a.model: ")


# Labels


def whole(image, **options):
    """Labels and confidence as one window."""
    return label(image, tile=4096, workers=1, confidence=True, **options)


def same(found, expected):
    """Both labels and confidence, bit for bit."""
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1].view(np.uint32), expected[1].view(np.uint32))


def noisy(shape=SHAPE):
    return lines(shape, seed=5)[0]


def spiked(shape=SHAPE, edge=32):
    """Undecided pixels with a few far ones near the edges of tiles, on either side."""
    rng = np.random.default_rng(2)
    image = np.full(shape, 0.5, np.float32) + rng.normal(0, 1e-4, shape).astype(np.float32)
    for corner in np.ndindex(*(-(-n // edge) for n in shape)):
        place = [c * edge + int(rng.integers(-20, 20)) for c in corner]
        if all(0 <= p < n for p, n in zip(place, shape, strict=True)):
            image[*place] = rng.choice([-8, 9])
    return image


@pytest.mark.parametrize("picture", [noisy, spiked])
@pytest.mark.parametrize("tile", [16, 33, 64, 130])
def test_tiles(each, picture, tile):
    image = picture()
    options = {"model": each, **given(each, image)}
    expected = whole(image, **options)
    assert picture is spiked or len(np.unique(expected[0])) == 2
    same(label(image, tile=tile, workers=3, confidence=True, **options), expected)


def test_masked(each):
    """NaN under the mask is allowed, and so far away as features look changes nothing."""
    image, mask = noisy(), np.random.default_rng(0).random(SHAPE) > 0.2
    mask[40:60, 30:90] = False
    options = {"model": each, "mask": mask.astype(np.uint8), **given(each, image)}
    expected = whole(image, **options)
    np.testing.assert_array_equal(expected[0] == 0, ~mask)
    same(label(image, tile=48, confidence=True, **options), expected)
    image[45:55, 40:80] = np.nan
    if "probabilities" in options:
        options["probabilities"][:, 45:55, 40:80] = np.nan
    found = whole(image, **options)
    assert np.isfinite(found[1]).all()
    np.testing.assert_array_equal(found[0] == 0, ~mask)
    same(label(image, tile=48, confidence=True, **options), found)
    assert (found[0] != expected[0]).mean() < 0.02


def test_nan_in_the_image(each):
    """Refused with its place, also where it reaches labels by features alone."""
    image = noisy()
    options = {"model": each, **given(each, image)}
    image[100, 20] = np.nan
    if isinstance(each.term, Probabilities):
        options["probabilities"] = given(each, noisy())["probabilities"]
    with pytest.raises(ValueError, match=r"image: expected finite.*pixel \(100, 20\)"):
        label(image, tile=64, **options)


def test_region_is_a_crop(each):
    image = noisy()
    options = {"model": each, **given(each, image)}
    expected = whole(image, **options)
    found = label(image, region=((21, 90), (50, 133)), tile=32, confidence=True, **options)
    same(found, tuple(plane[21:90, 50:133] for plane in expected))


def test_lazily(each):
    image = noisy()
    options = given(each, image)
    expected = whole(image, model=each, **options)
    lazy = {k: da.from_array(v, chunks=(2, 75, 60)) for k, v in options.items()}
    found = label(da.from_array(image, chunks=(60, 50)), model=each, confidence=True, **lazy)
    same(tuple(np.asarray(plane) for plane in found), expected)


def test_a_smaller_halo_changes_bits(each):
    """So equality is no accident of data that do not notice."""
    image = noisy() if isinstance(each.term, AutoContext | Classified) else spiked()
    source, p = images.from_array(image), given(each, image).get("probabilities")
    p = None if p is None else images.from_array(p, "cyx")
    chosen = choose_labeling(source, model=each, probabilities=p)
    plan = make_plan(
        source,
        None,
        term=chosen.term,
        settings=chosen.settings,
        model=each,
        probabilities=p,
        tile=32,
        writing=Writing(confidence=True),
    )
    expected = whole(image, model=each, **given(each, image))[1]
    for less in (0, 1):
        # of what the flow reaches, without which features do not matter
        halo = tuple(h - less * (3 * h // 4) for h in plan.job.grid.halo)
        settings = plan.job.settings
        job = dataclasses.replace(
            plan.job, grid=dataclasses.replace(plan.job.grid, halo=halo), settings=settings
        )
        found = np.zeros(SHAPE, np.float32)
        for tile in job.grid:
            found[tile.core] = label_tile(job, tile).confidence
        assert np.array_equal(found, expected) == (less == 0)


# Options and outputs


@pytest.fixture
def files(here):
    """An image and models of all kinds."""
    image = noisy((64, 80))
    tifffile.imwrite("image.tif", image)
    np.save("p.npy", given(make("probabilities"), image)["probabilities"])
    np.save("p3.npy", np.full((3, 64, 80), 1 / 3, np.float32))
    for kind in ("prototypes", "probabilities"):
        make(kind).save(f"{kind}.model")
    Path("p.csv").write_text("0\n1\n")
    Path("names.txt").write_text("a\nb\n")
    return here


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--classes 2", "--model fixes --classes: drop one or the other"),
        ("--prototypes p.csv", "--model fixes --prototypes"),
        ("--time 3", "--model fixes --time"),
        ("--rho 1", "--model fixes --rho"),
        ("--neighborhood 3x3", "--model fixes --neighborhood"),
        ("--integrator taylor", "--model fixes --integrator"),
        ("--tol 1e-3", "--model fixes --tol"),
        ("--dim 3", "--model fixes --dim"),
        ("--steps 5", "--model fixes --steps"),
        ("--weights weights.zarr", "--model fixes --weights"),
        ("--time 3 --rho 2", "--model fixes --rho, --time"),
        ("--names names.txt", "--names: the classes have names from their training"),
        ("--probabilities p.npy", "the model has a data term: drop --probabilities"),
    ],
)
def test_contradictions(files, options, words):
    refused(
        words, "label", "image.tif", "out.zarr", "--model", "prototypes.model", *options.split()
    )


def test_probabilities_are_demanded(files):
    command = ["label", "image.tif", "out.zarr", "--model", "probabilities.model"]
    refused("the model expects --probabilities", *command)
    refused(
        "p3.npy: the model expects probabilities of 2 classes, got 3",
        *command,
        "--probabilities",
        "p3.npy",
    )
    assert run(*command, "--probabilities", "p.npy").code == 0


def test_other_images(files):
    np.save("rgb.npy", np.zeros((3, 40, 50), np.float32))
    np.save("volume.npy", np.zeros((8, 40, 50), np.float32))
    command = ["out.zarr", "--model", "prototypes.model"]
    refused(
        "rgb.npy: the model expects images of 1 channel(s), got 3 (choose with --channels)",
        "label",
        "rgb.npy",
        *command,
    )
    assert run("label", "rgb.npy", *command, "--channels", "1").code == 0
    refused("2 spatial axes, got 3", "label", "volume.npy", "v.zarr", *command[1:], "--axes", "zyx")
    with pytest.raises(ValueError, match="2 spatial axes, got 3"):
        label(da.zeros((8, 40, 50)), axes="zyx", model=make("prototypes"))
    with pytest.raises(ValueError, match="1 channel"):
        label(da.zeros((3, 40, 50)), model=make("prototypes"))


def test_path_and_object_are_the_same(files):
    image = tifffile.imread("image.tif")
    np.testing.assert_array_equal(
        label(image, model="prototypes.model"), label(image, model=make("prototypes"))
    )


def test_metadata(files):
    """Label values 1..J in the model's order; names, original values and colors with them."""
    assert run("label", "image.tif", "out.zarr", "--model", "prototypes.model").code == 0
    found = ngff.label_properties("out.zarr", "labels/tiledlaf")
    assert found == [
        {"label-value": 1, "name": "membrane", "values": [0, 32]},
        {"label-value": 2, "name": "inside", "values": [255]},
    ]
    about = zarr.open_group("out.zarr/labels/tiledlaf", mode="r").attrs["ome"]["image-label"]
    assert [c["label-value"] for c in about["colors"]] == [1, 2]
    labels = zarr.open_array("out.zarr/labels/tiledlaf/0", mode="r")[:]
    assert set(np.unique(labels)) == {1, 2}
    truth = np.where(labels == 1, 32, 255).astype(np.uint8)
    truth[:, :10][truth[:, :10] == 32] = 0  # both stand for membrane
    truth[0] = 99  # for none
    truth[1, :7] = np.where(truth[1, :7] == 255, 0, 255)
    tifffile.imwrite("truth.tif", truth)
    assert run("evaluate", "out.zarr", "truth.tif", "--json", "e.json").code == 0
    numbers = json.loads(Path("e.json").read_text())
    assert [c["name"] for c in numbers["classes"]] == ["membrane", "inside"]
    assert numbers["left_out"] == 80
    assert numbers["pixel_error"] == pytest.approx(7 / (63 * 80))


def test_info(files):
    found = run("info", "prototypes.model")
    assert found.code == 0
    assert "1 membrane: label values 0, 32" in found.out
    assert "9 neighbors, T 3, rho 1" in found.out


def test_resumed_with_another_model(files):
    """Refused; the same model from elsewhere is none."""
    command = ["label", "image.tif", "out.zarr", "--model"]
    assert run(*command, "prototypes.model").code == 0
    before = contents("out.zarr")
    make("prototypes").save("copy.model")
    assert run(*command, "copy.model").code == 0
    assert contents("out.zarr") == before
    changed = dataclasses.replace(make("prototypes"), bias=(0.1, -0.1))
    changed.save("other.model")
    refused("labels/tiledlaf belongs to another run: it has model", *command, "other.model")
    refused("belongs to another run", "label", "image.tif", "out.zarr", "--classes", "2")
    assert run(*command, "other.model", "--overwrite").code == 0
    assert run("label", "image.tif", "other.zarr", "--classes", "2").code == 0
    refused("belongs to another run", "label", "image.tif", "other.zarr", "--model", "copy.model")
