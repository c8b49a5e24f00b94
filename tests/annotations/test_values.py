"""What the values of label images mean: instances, colors, numbers of any type, and what 0 is."""

import json
import pickle
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile
import zarr
from command import contents, run
from scipy import ndimage

import tiledlaf
from tiledlaf.annotations import values
from tiledlaf.annotations.numbering import Legend
from tiledlaf.files import images
from tiledlaf.files.image import FileWarning
from tiledlaf.model.classes import UNLABELED, find_classes
from tiledlaf.pool import tasks
from tiledlaf.training import cutting, examples, survey
from tiledlaf.training import plan as training_plan
from tiledlaf.training.plan import TrainingWarning

SMALL = ["--size", "4", "--steps", "10", "--flow", "learned"]


def blobs(shape=(160, 200), count=12, seed=0):
    """Bright discs on dark ground, and the truth 0/1."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    truth = np.zeros(shape, np.uint8)
    for _ in range(count):
        cy, cx, r = rng.integers(0, shape[0]), rng.integers(0, shape[1]), rng.integers(6, 12)
        truth[(y - cy) ** 2 + (x - cx) ** 2 < r * r] = 1
    image = np.where(truth, 170, 70) + rng.normal(0, 8, shape)
    return image.clip(0, 255).astype(np.uint8), truth


def whole(labels):
    return labels.read(tuple(slice(0, n) for n in labels.grid))[0]


def refused(arguments, words):
    before = contents(".")
    found = run(*arguments)
    assert (found.code, found.out) == (2, ""), found
    assert words in found.err.splitlines()[-1], found.err
    assert found.err.splitlines()[-1].startswith("tiledlaf: error: ")
    assert contents(".") == before


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with an image and its truth."""
    monkeypatch.chdir(tmp_path)
    image, truth = blobs()
    tifffile.imwrite("a.tif", image)
    return image, truth


def train(labels, *options, model="model"):
    return ["train", model, "--images", "a.tif", "--labels", labels, *SMALL, *options]


# Instances


def classes_of(mask, width, ignore=()):
    """Classes of an instance mask, from their definition: pixel by pixel."""
    out = np.zeros(mask.shape, np.int64)
    for place in np.ndindex(mask.shape):
        if mask[place] in ignore:
            out[place] = UNLABELED
        elif mask[place]:
            around = mask[tuple(slice(max(0, p - width), p + width + 1) for p in place)]
            others = set(around.ravel().tolist()) - {mask[place].item(), *ignore}
            out[place] = 2 if width and others else 1
    return out


@pytest.mark.parametrize("shape", [(23, 31), (5, 12, 14)])
@pytest.mark.parametrize("kind", ["u1", ">u2", "u8", "i4", "f4"])
@pytest.mark.parametrize(
    ("how", "width"), [("object-border", 1), ("object-border:3", 3), ("object", 0)]
)
def test_instances_by_windows(tmp_path, shape, kind, how, width):
    """The same as from the whole image, in every window and file."""
    rng = np.random.default_rng(0)
    cells = np.kron(rng.integers(0, 4, [-(-n // 5) for n in shape]), np.ones([5] * len(shape), int))
    mask = cells[tuple(slice(0, n) for n in shape)].astype(kind)
    if kind == "u8":
        mask[mask == 3] = 2**64 - 1  # float64 cannot tell it from the value before
        mask[mask == 2] = 2**64 - 2
    zarr.save_array(tmp_path / "m.zarr", mask)
    np.save(tmp_path / "m.npy", mask)
    like = images.from_array(np.zeros(shape), "zyx"[-len(shape) :])
    meant = values.meaning(how)
    expected = classes_of(mask, width)
    for given in (mask, tmp_path / "m.zarr", tmp_path / "m.npy"):
        labels = pickle.loads(pickle.dumps(values.open_labels(given, like, meant)))
        np.testing.assert_array_equal(whole(labels), expected)
        for _ in range(8):
            starts = [int(rng.integers(0, n)) for n in shape]
            box = tuple(
                slice(a, int(rng.integers(a, n)) + 1) for a, n in zip(starts, shape, strict=True)
            )
            np.testing.assert_array_equal(labels.read(box)[0], expected[box])


def test_instances_and_ignored_pixels():
    """Ignored pixels have no label and make no border; ignored ground leaves two classes."""
    mask = np.zeros((9, 12), int)
    mask[2:7, 1:6], mask[2:7, 6:11], mask[:, 8:] = 4, 5, 9
    like = images.from_array(np.zeros(mask.shape))
    for ignore, names in (((9,), "background object border"), ((9, 0), "object border")):
        labels = values.open_labels(mask, like, values.meaning("object-border", None, ignore))
        np.testing.assert_array_equal(whole(labels), classes_of(mask, 1, ignore))
        assert list(values.value_names(labels).values()) == names.split()


@pytest.mark.parametrize("how", ["object-border", "object"])
def test_learned_from_instances(here, how):
    _, truth = here
    mask, count = ndimage.label(truth)
    assert count >= survey.FEW
    tifffile.imwrite("m.tif", mask.astype(np.uint16))
    found = run(*train("m.tif", "--instances", how))
    assert found.code == 0, found
    assert "label value 0" not in found.err  # the option says what it is
    names = tiledlaf.load("model").names
    assert names == ["background", "object", "border"][: 3 if how == "object-border" else 2]
    assert [line.split()[1] for line in found.err.splitlines()[: len(names)]] == names
    assert run("label", "a.tif", "out.zarr", "--model", "model").code == 0
    scores = run("evaluate", "out.zarr", "m.tif", "--instances", how, "--json", "e.json")
    assert scores.code == 0, scores
    assert [c["name"] for c in json.loads(Path("e.json").read_text())["classes"]] == names
    # the way of reading is part of what a training depends on
    other = "object-border" if how == "object" else "object-border:2"
    given = ("explain", "model", "a.tif", "--truth", "m.tif", "-o")
    assert run(*given, "pages", "--instances", how).code == 0
    assert run(*given, "others").code == 0  # the numbers of most objects are no classes
    pages = [Path(name, "sensitivity.png").read_bytes() for name in ("pages", "others")]
    assert pages[0] != pages[1]
    refused([*given, "more", "--ignore", "0"], "--ignore belongs to --instances or --colors")
    refused(train("m.tif", "--instances", other), "belongs to another training")


def test_instances_are_not_classes(here):
    """Refused before anything is learned, in the training set and beside it."""
    image, truth = here
    mask, count = ndimage.label(truth)
    PIL.Image.fromarray(mask.astype(np.uint8)).save("m.png")
    PIL.Image.fromarray(truth).save("t.png")
    words = f"m.png: expected label values of classes, got {count} values that are one blob each"
    refused(train("m.png"), words)
    beside = ["--validation-images", "a.tif", "--validation-labels", "m.png"]
    refused(train("t.png", *beside), words)
    refused(["estimate", "a.tif", "m.png", "w.zarr", "--steps", "1"], words)
    refused(train("m.png"), "--instances object-border makes the classes")
    for how in ("border", "object:2", "object-border:0", "object-border:x"):
        refused(train("m.png", "--instances", how), "--instances expects object-border")
    # values that are named are meant, and so are those of which it is said
    image_ = np.asarray(PIL.Image.open("m.png"))
    (example,) = tiledlaf.pair(image, image_)
    names = {str(v): f"c{v}" for v in range(1, count + 1)}
    with tasks.threads(1) as pool:
        for known in ({"names": names}, {"many": True}):
            data = tiledlaf.Data([example], [example], **known)
            assert len(training_plan.make_plan(data, tiledlaf.Recipe(), pool).flow.classes) > count


def test_classes_are_not_instances():
    """Many classes of several parts each, and few of one part each."""
    rng = np.random.default_rng(0)
    scattered = np.kron(rng.integers(1, 12, (30, 30)), np.ones((5, 5), int))
    stripes = np.repeat(np.arange(1, 8), 20)[:, None].repeat(90, 1)
    for truth in (scattered, stripes):
        assert survey_of(truth) is None


def survey_of(truth, image=None):
    """What is refused of a label image, None if nothing is."""
    (example,) = tiledlaf.pair(np.zeros(truth.shape) if image is None else image, truth)
    items = [(0, tuple(slice(0, n) for n in truth.shape))]
    with tasks.threads(1) as pool:
        tables = survey.count(pool, [example], items)
        try:
            survey.check_values(pool, [example], items, tables, Legend(None, None))
        except ValueError as error:
            return str(error)
    return None


def test_pictures_are_no_labels():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 200, (60, 70)).astype(np.uint8)
    assert "got 199 values: a picture, smoothed edges" in survey_of(picture)
    soft = (255 * ndimage.gaussian_filter(blobs()[1].astype(float), 2)).round().astype(np.uint8)
    assert "smoothed edges" in survey_of(soft)
    edge = np.where(np.indices((80, 80))[1] < 40, 255, 0)
    edge[:, 40] = np.arange(80) + 1  # each value of the edge is one blob
    assert "smoothed edges" in survey_of(edge)


def test_jpeg_labels(here):
    """Compression changes values; two of them may have come through."""
    _, truth = here
    PIL.Image.fromarray(255 * truth).save("t.jpg", quality=60)
    refused(train("t.jpg"), "t.jpg: expected labels as they were drawn, got a JPEG of ")
    PIL.Image.fromarray(np.repeat([[0, 255]], 64, 1).repeat(128, 0).astype(np.uint8)).save("c.jpg")
    assert survey_of(np.asarray(PIL.Image.open("c.jpg"))) is None


# Colors

RED, GREEN, BLACK = (255, 0, 0), (0, 128, 64), (0, 0, 0)


def painted(truth, *colors):
    return np.array(colors, np.uint8)[truth]


@pytest.mark.parametrize("form", ["rgb.png", "rgb.tif", "palette.png", "rgb.zarr"])
def test_colors(here, form):
    """Learned from by name; colors to leave out are left out."""
    _, truth = here
    truth[:20] = 2
    colors = painted(truth, RED, GREEN, BLACK)
    if form == "rgb.tif":
        tifffile.imwrite(form, colors, photometric="rgb")
    elif form == "rgb.zarr":
        zarr.save_array(form, colors)
    elif form == "palette.png":
        PIL.Image.fromarray(colors).quantize(3).save(form)
    else:
        PIL.Image.fromarray(colors).save(form)
    Path("colors.json").write_text('{"ground": "#FF0000", "cell": [0, 128, 64]}')
    named = ["--colors", "ground=#ff0000", "--colors", "cell=#008040"]
    for model, options in (("m1", named), ("m2", ["--colors", "colors.json"])):
        found = run(*train(form, *options, "--ignore=#000000", model=model))
        assert found.code == 0, found
        assert "  #ff0000  ground       " in found.err
        assert "  not labeled  12.50 % of all" in found.err
        assert tiledlaf.load(model).names == ["ground", "cell"]
        assert tiledlaf.load(model).trained["error"] < 0.02
    assert Path("m1").read_bytes() == Path("m2").read_bytes()
    assert run("label", "a.tif", "out.zarr", "--model", "m1").code == 0
    options = ["--colors", "cell=#008040,ground=#ff0000"]  # the order means nothing
    found = run("evaluate", "out.zarr", form, *options, "--ignore=#000000", "--json", "e.json")
    assert found.code == 0, found
    assert json.loads(Path("e.json").read_text())["pixel_error"] < 0.02


def test_colors_without_classes(here):
    """Refused with the colors, their shares and an option to paste."""
    _, truth = here
    share = 100 * truth.mean()
    PIL.Image.fromarray(painted(truth, BLACK, RED)).save("c.png")
    words = f"got the colors #000000 ({100 - share:.3g} %), #ff0000 ({share:.3g} %): name their"
    refused(train("c.png"), words)
    refused(train("c.png"), "with --colors class1=#000000,class2=#ff0000 ")
    refused(["evaluate", "c.png", "c.png"], "expected a label image of one channel")
    found = run(*train("c.png", "--colors", "class1=#000000,class2=#ff0000"))
    assert found.code == 0, found


def test_other_colors(here):
    _, truth = here
    colors = painted(truth, BLACK, RED)
    colors[3:5, 7] = (0, 3, 0)
    PIL.Image.fromarray(colors).save("c.png")
    options = ["--colors", "a=#000000", "--colors", "b=#ff0000"]
    words = "c.png: expected the colors of --colors, got 2 pixels of others, such as #000300, which"
    refused(train("c.png", *options), words + " is nearest to a (#000000): lossy")
    PIL.Image.fromarray(painted(truth, BLACK, RED)).save("c.jpg", quality=70)
    refused(train("c.jpg", *options), ": lossy compression, as JPEG, changes colors")
    PIL.Image.fromarray(truth).save("t.png")
    refused(train("t.png", *options), "t.png: expected a label image of three channels")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--colors red", "--colors expects CLASS=#rrggbb or a JSON file of them, got 'red'"),
        ("--colors a=#ff", "expected a color like #ff0000, got '#ff'"),
        ("--colors a=#ff0000 --colors b=#ff0000", "expected each color in one class of --colors"),
        ("--colors bad.json", "bad.json: expected JSON of colors"),
        ("--colors list.json", "list.json: expected JSON of colors"),
        ("--colors a=#ff0000 --instances object", "expected at most one of --instances and"),
        ("--colors a=#ff0000 --names n.json", "expected --names of label values, which"),
        ("--ignore #00ff00", "--ignore expects colors only with --colors"),
        ("--ignore 1.5", "--ignore expects whole numbers like 0,255 or colors"),
        ("--ignore 0 --no-ignore", "expected at most one of --ignore and --no-ignore"),
    ],
)
def test_bad_options(here, options, words):
    PIL.Image.fromarray(here[1]).save("t.png")
    for name, text in (("bad", '{"a"'), ("list", '["#ff0000"]'), ("n", '{"0": "a"}')):
        Path(f"{name}.json").write_text(text)
    refused(train("t.png", *options.split()), words)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_palettes_that_differ(here, suffix):
    """A program that sorts each file's colors anew gives a class another value in each."""
    image, truth = here
    for folder, palette, order in (("1", RED + GREEN, (0, 1)), ("2", GREEN + RED, (1, 0))):
        for part in ("raw", "lab"):
            Path(part).mkdir(exist_ok=True)
        tifffile.imwrite(f"raw/{folder}.tif", image)
        picture = PIL.Image.fromarray(np.array(order, np.uint8)[truth], "P")
        picture.putpalette([*palette] + [0] * 762)
        picture.save(f"lab/{folder}.{suffix}")
    command = ["train", "model", "--images", "raw", "--labels", "lab", *SMALL]
    refused(command, f"lab/1.{suffix}: name the classes of colors with --colors")
    refused(command, "expected palettes that agree, got #008040 as value 0 here and as 1 in ")
    found = run(*command, "--colors", "ground=#ff0000,cell=#008040")
    assert found.code == 0, found
    assert tiledlaf.load("model").trained["error"] < 0.02


def test_gray_as_colors(here):
    """Read as one channel, with a word; alpha that says nothing as well."""
    _, truth = here
    gray = np.dstack([3 * truth] * 3)
    alpha = np.full_like(truth, 255)
    PIL.Image.fromarray(gray).save("g.png")
    tifffile.imwrite("g.tif", gray.astype(np.uint16), photometric="rgb")
    np.save("alpha.npy", np.moveaxis(np.dstack([gray, alpha]), -1, 0))
    like = images.open_image("a.tif")
    for file in ("g.png", "g.tif"):
        with pytest.warns(FileWarning, match=f"{file}: a gray picture stored as RGB"):
            labels = values.open_labels(file, like)
        np.testing.assert_array_equal(whole(labels), 3 * truth)
    with pytest.warns(FileWarning, match="a gray picture stored as RGB"):
        labels = values.open_labels(np.load("alpha.npy"), like)
    np.testing.assert_array_equal(whole(labels), 3 * truth)
    odd = np.load("alpha.npy")
    odd[3, 5, 5] = 7
    with pytest.raises(ValueError, match="alpha, which differs from pixel to pixel"):
        values.open_labels(odd, like)


# Numbers


def test_floats(here):
    """Whole numbers are understood, NaN is no label, and others are refused."""
    _, truth = here
    labels = truth.astype(np.float32)
    labels[:16] = np.nan
    tifffile.imwrite("f.tif", labels)
    found = run(*train("f.tif", "--no-ignore"))
    assert found.code == 0, found
    assert "not labeled  10.00 % of all" in found.err
    labels[90, 3] = 0.25
    tifffile.imwrite("half.tif", labels)
    refused(
        train("half.tif"), "half.tif: expected labels as whole numbers of one channel, got 0.25"
    )


@pytest.mark.parametrize(
    ("kind", "ignore"),
    [("u8", 2**64 - 1), ("u8", 2**63), ("i8", -1), ("i2", -7), ("u4", 2**32 - 1)],
)
def test_integers_of_any_type(kind, ignore):
    """Values next to each other, as float64 or int64 would mix them up, are told apart."""
    large = 2**62 + 1 if kind == "u8" else 5
    labels = np.array([[0, large, ignore, large + 1]], kind)
    (example,) = tiledlaf.pair(np.zeros((1, 4)), labels)
    box = (slice(0, 1), slice(0, 4))
    table = survey.label_values([example], (0, box))
    assert table == {0: 1, large: 1, large + 1: 1, ignore: 1}
    classes = find_classes(sorted(table), None, ignore)
    assert [c.values for c in classes] == [(0,), (large,), (large + 1,)]
    found = examples.targets(examples.read_labels(example.labels, box), classes)
    assert found.tolist() == [[1, 2, 0, 3]]


def test_several_values_to_ignore(here):
    _, truth = here
    labels = truth.copy()
    labels[:20], labels[20:40] = 7, 9
    PIL.Image.fromarray(labels).save("t.png")
    for options in (["--ignore", "7,9"], ["--ignore", "7", "--ignore", "9"]):
        model = f"m{len(options)}"
        found = run(*train("t.png", *options, model=model))
        assert found.code == 0, found
        assert "7, 9  not labeled  25.00 % of all" in found.err
        assert tiledlaf.load(model).names == ["0", "1"]


# What is said before learning


def test_the_table(here):
    """Values, names and shares; 0 is a class unless something else is said."""
    _, truth = here
    PIL.Image.fromarray(np.where(truth, 8, 0).astype(np.uint8)).save("t.png")
    Path("n.json").write_text('{"8": "cell", "0": "ground"}')
    share = 100 * truth.mean()
    found = run(*train("t.png"))
    assert found.err.splitlines()[:3] == [
        f"label value 0 counts as a class, with {100 - share:.2f} % of the pixels: --ignore 0 "
        "leaves them out, --no-ignore says that it is one",
        f"  0  0  {100 - share:.2f} % of labeled pixels",
        f"  8  8  {share:.2f} %",
    ]
    for options, names in (["--no-ignore"], "08"), (["--names", "n.json"], ["cell", "ground"]):
        found = run(*train("t.png", *options, model=f"m{len(options)}"))
        assert [line.split()[1] for line in found.err.splitlines()[:2]] == list(names)
    found = run("estimate", "a.tif", "t.png", "w.zarr", "--steps", "1")
    assert found.err.splitlines()[0].startswith("label value 0 counts as a class")


def test_a_long_table():
    classes = find_classes(range(40), None, None)
    lines = survey.table(classes, [dict.fromkeys(range(40), 5)], {7}, 200, False)
    assert len(lines) == survey.ROWS
    assert lines[-1].split() == ["...", "21", "more", "52.50", "%"]


def scribbled(truth, seed=0, width=3):
    """Strokes of 1 within the ground and of 2 within objects; 0 elsewhere."""
    rng = np.random.default_rng(seed)
    out = np.zeros(truth.shape, np.uint8)
    for value, where in ((1, truth == 0), (2, truth == 1)):
        inside = np.argwhere(ndimage.binary_erosion(where, iterations=width + 1))
        for y, x in inside[rng.choice(len(inside), 6)]:
            line = (slice(y, y + width), slice(x - 8, x + 9))
            out[line][where[line]] = value
    return out


def vessels(shape=(300, 400), seed=0):
    """Thin dark lines of two classes, a few percent of the pixels, all of them labeled."""
    rng = np.random.default_rng(seed)
    truth = np.zeros(shape, np.uint8)
    for value in (1, 2):
        for _ in range(6):
            x = np.arange(shape[1])
            y = (rng.uniform(20, 280) + 18 * np.sin(x / rng.uniform(20, 60))).astype(int)
            for w in range(rng.integers(2, 5)):
                truth[(y + w).clip(0, shape[0] - 1), x] = value
    image = np.array([120, 70, 85])[truth] + rng.normal(0, 12, shape)
    return image, truth


def drawn(image, labels):
    """Whether 0 is suspected to mean no label."""
    (example,) = tiledlaf.pair(image, labels)
    with tasks.threads(1) as pool:
        items = [(0, tuple(slice(0, n) for n in labels.shape))]
        tables = survey.count(pool, [example], items)
        classes = find_classes(sorted(tables[0]), None, None)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            lines = survey.say_zero(pool, [example], items, tables, classes)
    assert len(told) + len(lines) == (0 in tables[0])
    return bool(told)


@pytest.mark.parametrize("seed", range(5))
def test_strokes_are_suspected(seed):
    image, truth = blobs(seed=seed)
    strokes = scribbled(truth, seed)
    assert drawn(image, strokes)
    assert drawn(np.stack([image, 255 - image]), strokes)
    # regions that are drawn around, most of the image left out
    regions = np.zeros_like(truth)
    regions[20:100, 30:150] = 1 + truth[20:100, 30:150]
    assert drawn(image, regions)


@pytest.mark.parametrize("seed", range(5))
def test_dense_labels_are_not_suspected(seed):
    image, truth = blobs(seed=seed)
    assert not drawn(image, truth)  # one class besides 0
    halves = truth * (1 + (np.arange(truth.shape[1]) > 100)).astype(np.uint8)
    assert not drawn(image, halves)  # two kinds of objects that look alike
    assert not drawn(
        image.astype(float) + np.random.default_rng(0).normal(0, 80, image.shape), halves
    )
    assert not drawn(*vessels(seed=seed))


def test_a_suspicion_is_a_warning(here):
    _, truth = here
    PIL.Image.fromarray(scribbled(truth)).save("s.png")
    found = run(*train("s.png"))
    first = found.err.splitlines()[0]
    assert first.startswith("tiledlaf: warning: label value 0 counts as a class, with 9"), found
    assert "--ignore 0 leaves them out" in first
    for options in (["--ignore", "0"], ["--no-ignore"]):
        found = run(*train("s.png", *options, model=f"m{len(options)}"))
        assert "label value 0 counts" not in found.err


def test_images_without_labels():
    """They are named, and neither learned from nor set aside."""
    pairs = [blobs((64, 64), seed=s) for s in range(6)]
    labels = [truth for _, truth in pairs]
    labels[5] = labels[2] = np.full_like(labels[5], 9)
    found = tiledlaf.pair([image for image, _ in pairs], labels)
    with tasks.threads(1) as pool:
        data = tiledlaf.Data(found, ignore=9)
        with pytest.warns(TrainingWarning, match="no labeled pixel, so left out: array, array$"):
            plan = training_plan.make_plan(data, tiledlaf.Recipe(), pool)
    assert {one.example for one in (*plan.training, *plan.validation)} == {0, 1, 3, 4}


def test_data_folder(data_folder):
    """Real labels: vessels are no strokes, nor are sections of nine values instances."""
    with tasks.threads(2) as pool:
        for part, other, refusal in (
            ("hrf/training/images/01_g.*", "hrf/training/1st_manual/01_g*", None),
            ("vnc/stack1/raw/*[01].tif", "vnc/stack1/labels/*[01].png", None),
            ("isbi2012/train/image/[01].png", "isbi2012/train/label/[01].png", None),
            ("dsb2018/images/fluo_[0-3]*", "dsb2018/instances/fluo_[0-3]*", "one blob each"),
            ("dsb2018/images/he_[0-3]*", "dsb2018/instances/he_[0-3]*", "one blob each"),
        ):
            found = tiledlaf.pair(str(data_folder / part), str(data_folder / other))
            cut = cutting.cut(found, (0, 0), len(found))
            items = [(number, tile.core) for number, tile in cut]
            tables = survey.count(pool, found, items)
            if refusal:
                with pytest.raises(ValueError, match=refusal):
                    survey.check_values(pool, found, items, tables, Legend(None, None))
                continue
            survey.check_values(pool, found, items, tables, Legend(None, None))
            classes = find_classes(sorted(set().union(*tables)), None, None)
            assert len(survey.say_zero(pool, found, items, tables, classes)) == 1, part


@pytest.mark.parametrize("shown", ["gray", "alpha", "color"])
def test_masks_stored_as_rgb(tmp_path, shown):
    """A gray mask of three or four channels is one of one channel; a colored one is none."""
    given = np.where(np.indices((20, 30))[1] < 10, 255, 0).astype(np.uint8)
    planes = [given, given, given if shown != "color" else 0 * given]
    planes += [np.full_like(given, 255)] * (shown == "alpha")
    PIL.Image.fromarray(np.stack(planes, axis=-1)).save(tmp_path / "mask.png")
    image = np.arange(600, dtype=np.uint8).reshape(20, 30)
    if shown == "color":
        with pytest.raises(ValueError, match="expected a mask of one channel, got 3"):
            tiledlaf.label(image, classes=2, mask=tmp_path / "mask.png")
        return
    with pytest.warns(FileWarning) as said:
        labels = tiledlaf.label(image, classes=2, mask=tmp_path / "mask.png")
    assert "a gray picture stored as RGB" in str(said[-1].message)
    np.testing.assert_array_equal(labels > 0, given > 0)
