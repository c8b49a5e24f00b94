"""Bad input of train, estimate and evaluate: one clear line on stderr, exit code 2, no file."""

import re
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile
import zarr
from command import contents, run
from voronoi import lines

from tiledlaf.training.checkpoint import Checkpoint

SHAPE = (40, 50)


@pytest.fixture(scope="module")
def _inputs(tmp_path_factory):
    """Good and bad files, in one folder."""
    folder = tmp_path_factory.mktemp("inputs")
    image, labels = lines(SHAPE, cells=6)

    def tiff(name, array):
        (folder / name).parent.mkdir(exist_ok=True)
        tifffile.imwrite(folder / f"{name}.tif", array)

    apart = np.zeros(SHAPE, np.uint8)  # each class in a part that is too small to be cut
    apart[:13, :16], apart[-13:, :16] = 1, 2
    for name, array in {
        "image": image,
        "labels": labels,
        "images/a": image,
        "images/b": image,
        "labels2/a": labels,
        "labels2/b": labels,
        "short": labels[:-1],
        "one": 0 * labels + 3,
        "apart": apart,
        "flat": 0 * image,
        "float": labels.astype(np.float32) + 0.5,
        "rgb": np.stack([labels, 0 * labels, 0 * labels], -1),
        "tiny": image[:15, :31],
        "tiny_labels": labels[:15, :31],
        "large": np.where(labels, 70000, 5).astype(np.uint32),
    }.items():
        tiff(name, array)
    for name, place in (("nan", (5, 7)), ("nan_below", (38, 7))):
        bad = image.copy()
        bad[place] = np.nan
        tiff(name, bad)
    for name in ("image", "labels"):
        whole = (folder / f"{name}.tif").read_bytes()
        (folder / f"half_{name}.tif").write_bytes(whole[: len(whole) // 2])
    p = np.random.default_rng(0).dirichlet([1, 1, 1], SHAPE).transpose(2, 0, 1)
    np.save(folder / "rgb_image.npy", np.stack([image] * 3))
    np.save(folder / "p3.npy", p.astype(np.float32))
    np.save(folder / "p_sum.npy", 0.9 * np.stack([p[0], 1 - p[0]]).astype(np.float32))
    np.save(folder / "p_nan.npy", np.full((2, *SHAPE), np.nan, np.float32))
    zarr.save_array(folder / "image.zarr", image)
    (folder / "image.zarr/c/0/0").write_bytes(b"garbage!" * 20)
    PIL.Image.fromarray(np.stack([labels, 0 * labels, labels], -1)).save(folder / "labels.png")
    texts = {
        "missing.json": '{"0": "a", "1": "b", "7": "c"}',
        "same.json": '{"0": "a", "1": "a"}',
        "list.json": '["a", "b"]',
        "broken.json": '{"0"',
        "letters.json": '{"x": "a"}',
        "numbers.json": '{"0": 5}',
        "twice.json": '{"0": "a", "00": "b"}',
        "empty.json": "{}",
        "three.csv": "0\n1\n2\n",
        "one.csv": "0\n",
        "columns.csv": "0,1\n1,2\n",
        "nan.csv": "0\nnan\n",
        "equal.csv": "1\n1\n",
        "words.csv": "a\nb\n",
        "text.model": "hello",
        "notes/a.txt": "mine",
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def inputs(_inputs, monkeypatch):
    """The folder of inputs as the current one, so that messages show short paths."""
    monkeypatch.chdir(_inputs)
    return _inputs


def refused(arguments, words):
    """Check that the last line is an error with these words, and that nothing came or changed."""
    before = contents(".")
    found = run(*arguments)
    assert (found.code, found.out) == (2, ""), found
    *others, line = found.err.splitlines()
    assert re.fullmatch(r"tiledlaf: error: .*", line), found.err
    assert words in line, line
    assert not any("error" in other or "Traceback" in other for other in others), found.err
    assert contents(".") == before


def train(images="image.tif", labels="labels.tif"):
    return ["train", "model", "--images", images, "--labels", labels, "--size", "3"]


def estimate(image="image.tif", labels="labels.tif"):
    return ["estimate", image, labels, "weights.zarr", "--steps", "1"]


PAIRS = [
    ("none.tif", "labels.tif", "none.tif: expected images, found none"),
    ("none*.tif", "labels.tif", "none*.tif: expected images, found none"),
    ("notes", "labels.tif", "notes: expected images, found none"),
    ("notes/a.txt", "labels.tif", "got a file ending '.txt'"),
    ("image.tif", "none.tif", "none.tif: expected images, found none"),
    ("images", "labels.tif", "expected labels for 2 images, got 1"),
    ("image.tif", "short.tif", "short.tif: expected labels of the size (40, 50) of image.tif, got"),
    ("image.tif", "float.tif", "float.tif: expected labels as whole numbers of one channel"),
    ("image.tif", "rgb.tif", "rgb.tif: expected a label image of one channel, got the colors"),
    ("image.tif", "labels.png", "labels.png: expected a label image of one channel"),
    ("image.tif", "one.tif", "expected labels of two or more classes, got only 3 (3)"),
    ("half_image.tif", "labels.tif", "half_image.tif: pixels cannot be read"),
    ("image.zarr", "labels.tif", "image.zarr: pixels cannot be read"),
    ("image.tif", "half_labels.tif", "half_labels.tif: pixels cannot be read"),
    ("flat.tif", "labels.tif", "expected different prototypes, got two equal rows"),
    (
        "nan.tif",
        "labels.tif",
        "nan.tif: image: expected finite values, got 1 NaN or inf, the first "
        "at channel 0, pixel (5, 7)",
    ),
    (
        "nan_below.tif",
        "labels.tif",
        "nan_below.tif: image: expected finite values, got 1 NaN or "
        "inf, the first at channel 0, pixel (38, 7)",
    ),
]


@pytest.mark.parametrize(("image", "labels", "words"), PAIRS)
@pytest.mark.parametrize("command", [train, estimate])
def test_images_and_labels(inputs, command, image, labels, words):
    refused(command(image, labels), words)


BOTH = [
    ("--mask short.tif", "short.tif: expected a mask of the size (40, 50) of image.tif"),
    ("--mask rgb.tif", "rgb.tif: expected a mask of one channel, got 3"),
    ("--mask none.tif", "none.tif: expected images, found none"),
    ("--ignore 1", "expected labels of two or more classes, got only 0 (0)"),
    ("--names none.json", "none.json: No such file or directory"),
    ("--names missing.json", "expected labeled pixels of each class, got none of c"),
    ("--names same.json", "expected labels of two or more classes, got only a (0, 1)"),
    ("--names list.json", 'list.json: expected names of label values like {"0": "membrane"}'),
    ("--names empty.json", "empty.json: expected names of label values"),
    ("--names letters.json", "expected --names of label values, such as 0 or 255, got 'x'"),
    ("--names numbers.json", "numbers.json: expected names of label values"),
    ("--names twice.json", "twice.json: expected each label value once, got 0, 00"),
    ("--names broken.json", "broken.json: expected JSON, "),
    ("--names image.tif", "image.tif: expected JSON, "),
    ("--prototypes three.csv", "of 2 classes, got 3"),
    ("--prototypes one.csv", "two or more prototypes as rows, got shape (1, 1)"),
    ("--prototypes columns.csv", "expected prototypes of 1 columns, one per channel, got 2"),
    ("--prototypes nan.csv", "expected finite prototypes"),
    ("--prototypes equal.csv", "expected different prototypes"),
    ("--prototypes words.csv", "words.csv: expected rows of numbers"),
    ("--prototypes three.csv --probabilities p3.npy", "expected at most one of --probabilities"),
    ("--probabilities none.npy", "none.npy: expected images, found none"),
    ("--probabilities p3.npy", "of 2 classes, got 3"),
    ("--probabilities p_sum.npy", "p_sum.npy: expected probabilities to be 0 or more and sum to 1"),
    ("--probabilities p_nan.npy", "p_nan.npy: probabilities: expected finite values"),
    ("--time 0", "time must be a positive number, got 0.0"),
    ("--time nan", "time must be a positive number, got nan"),
    ("--time 1e9", "time must be at most 1000"),
    ("--rho 0", "rho must be a positive number, got 0.0"),
    ("--rho -1", "rho must be a positive number, got -1.0"),
    ("--rho nan", "rho must be a positive number, got nan"),
    ("--tol 0", "tol must be a positive number, got 0.0"),
    ("--steps 0", "1 or more"),
    ("--loss square", "loss must be one of cosine, pixel-cosine, cross-entropy, got 'square'"),
    ("--loss pixel-cosine", "the loss PixelCosine needs 3 classes or more, got 2"),
    ("--neighborhood 4x4", "neighborhood"),
    ("--device tpu", "device must be cpu or cuda, got 'tpu'"),
    ("--workers 0", "expected 1 or more workers, got 0"),
    ("--channels 1", "image.tif: expected different channels of 0 to 0, got 1"),
    ("--axes zyx", "image.tif: expected axes for the 2 dimensions"),
    ("--scheduler-file none.json", "none.json: no such file"),
    ("--sheduler threads", "No such option '--sheduler'"),
]


@pytest.mark.parametrize(("options", "words"), BOTH)
@pytest.mark.parametrize("command", [train, estimate])
def test_options(inputs, command, options, words):
    refused([*command(), *options.split()], words)


TRAIN = [
    ("--priors often", "priors must be labels, none or shares, got 'often'"),
    ("--priors 0.5,x", "priors must be labels, none or numbers with commas, got '0.5,x'"),
    ("--priors 0.5,0.6", "shares between 0 and 1 that sum to 1, got 0.5, 0.6 (sum 1.1)"),
    ("--priors 0.2,0.3,0.5", "expected priors of 2 classes, got 3"),
    ("--flow most", "Invalid value for '--flow'"),
    ("--size 0", "--predictor-size must be 1 or more, got 0"),
    ("--seed -1", "expected a seed of 0 to 4294967295, got -1"),
    ("--limit -1", "expected a limit of 0 minutes or more, got -1.0"),
    ("--limit nan", "expected a limit of 0 minutes or more, got nan"),
    ("--classifier --prototypes three.csv", "expected at most one of"),
    ("--validation-images image.tif", "expected --validation-images and --validation-labels"),
    ("--validation-labels labels.tif", "expected --validation-images and --validation-labels"),
    ("--validation-mask labels.tif", "--validation-mask belongs to --validation-images"),
    ("--validation-probabilities p3.npy", "--validation-probabilities belongs to --validation-"),
    ("--validation-images images --validation-labels labels.tif", "labels for 2 images, got 1"),
    (
        "--validation-images image.tif --validation-labels one.tif",
        "expected labeled pixels in the validation images, got none",
    ),
    ("--validation-images image.tif --validation-labels short.tif", "short.tif: expected labels"),
    (
        "--validation-images rgb_image.npy --validation-labels labels.tif",
        "expected images with the same number of axes and channels, got [2] axes and [1, 3] "
        "channels",
    ),
    (
        "--validation-images nan.tif --validation-labels labels.tif",
        "nan.tif: image: expected finite values",
    ),
]


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 50_000,
        b'{"a":' * 50_000,
        b"[" + b"9" * 5000 + b"]",
        b'{"0": "a", "0": "b"}',
        b"\xff\xfe{\0}\0",
        b"{}",
        b"",
    ],
)
def test_files_of_options(inputs, content):
    """Names, colors, features, prototypes and pairs: the message names the file."""
    Path("odd").write_bytes(content)
    for option in ("names", "colors", "features", "prototypes"):
        refused([*train(), f"--{option}", "odd"], "odd" if content else "")
    refused(["train", "model", "--pairs", "odd"], "odd: expected ")
    if content:
        label = ["label", "image.tif", "out.zarr", "--classes", "2"]
        refused([*label, "--names", "odd"], "" if content == b"{}" else "odd: expected ")


@pytest.mark.parametrize("kind", ["U1", "S1", "u1,u1", "O"])
def test_arrays_of_text(inputs, kind):
    """NumPy's names of such types are no types."""
    np.save("text.npy", np.zeros(SHAPE, kind))
    refused(train(labels="text.npy"), "text.npy: ")
    refused(["evaluate", "labels.tif", "text.npy"], "text.npy: ")


@pytest.mark.parametrize(("options", "words"), TRAIN)
def test_training(inputs, options, words):
    refused([*train(), *options.split()], words)


def test_no_labeled_pixel(inputs):
    refused([*train(labels="one.tif"), "--ignore", "3"], "expected labeled pixels, got none")
    refused([*train(), "--mask", "flat.tif"], "expected labeled pixels, got none")


def test_one_tile(inputs):
    refused(
        train("tiny.tif", "tiny_labels.tif"),
        "expected labels in two tiles or more, to learn from some and judge by others, got 1; "
        "give validation images",
    )


@pytest.mark.parametrize("term", [[], ["--classifier"]])
def test_classes_in_a_block_each(inputs, term):
    refused(
        [*train(labels="apart.tif"), "--ignore", "0", *term],
        "expected labeled pixels of each class in two blocks or more, to learn from some and judge "
        "by others, got 1, 2 in a single one; give validation images",
    )


def test_probabilities_of_training_alone(inputs):
    p = np.load("p3.npy")[:2]
    np.save("p2.npy", p / p.sum(axis=0))
    refused(
        [
            *train(),
            "--probabilities",
            "p2.npy",
            "--validation-images",
            "image.tif",
            "--validation-labels",
            "labels.tif",
        ],
        "image.tif: expected probabilities for this image, got none",
    )


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("images", "images: expected a file in a folder that exists"),
        ("none/model", "none/model: expected a file in a folder that exists"),
        ("image.tif", "image.tif: expected a tiledlaf model, got another kind of file"),
        ("text.model", "text.model: expected a tiledlaf model, got another kind of file"),
    ],
)
def test_where_the_model_goes(inputs, path, words):
    refused(["train", path, *train()[2:]], words)


def test_no_model_at_all(inputs):
    refused(["train"], "Missing argument 'MODEL' (see tiledlaf train --help)")
    refused(train()[:4], "Missing option '--labels'")
    refused(estimate()[:2], "Missing argument 'LABELS'")


@pytest.mark.parametrize("how", ["truncated", "another file", "another archive", "no state"])
def test_a_damaged_checkpoint(inputs, tmp_path, monkeypatch, how):
    """It says which file to remove; the training is not begun anew behind one's back."""
    for name in ("image.tif", "labels.tif"):
        (tmp_path / name).write_bytes((inputs / name).read_bytes())
    monkeypatch.chdir(tmp_path)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "finish", stop)
        assert run(*train()).code == 130
    file = Path("model.checkpoint")
    whole = file.read_bytes()
    if how == "truncated":
        file.write_bytes(whole[: len(whole) // 2])
    elif how == "another file":
        file.write_text("hello")
    else:
        arrays = dict(np.load(file))
        arrays.pop("print" if how == "another archive" else "bias")
        with file.open("wb") as open_file:
            np.savez(open_file, **arrays)
    refused(train(), "model.checkpoint: expected a")
    file.unlink()
    assert run(*train()).code == 0


ESTIMATE = [
    ("--tau -1", "tau must be 0 or a positive number, got -1.0"),
    ("--tau nan", "tau must be 0 or a positive number, got nan"),
]


@pytest.mark.parametrize(("options", "words"), ESTIMATE)
def test_estimation(inputs, options, words):
    refused([*estimate(), *options.split()], words)


def test_one_image(inputs):
    refused(estimate("images", "labels2"), "expected one IMAGE, got 2")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.tif", "labels.tif"], "none.tif: no such file or folder"),
        (["labels.tif", "none.tif"], "none.tif: no such file or folder"),
        (["labels.tif", "short.tif"], "short.tif: expected a truth of the labels' size (40, 50)"),
        (["labels.tif", "rgb.tif"], "rgb.tif: expected a label image of one channel"),
        (["image.tif", "labels.tif"], "image.tif: expected whole numbers as labels"),
        (["labels.tif", "one.tif", "--ignore", "3"], "expected"),
        (
            ["labels.tif", "labels.tif", "--boundary", "x"],
            "expected one of the classes 0, 1 as boundary",
        ),
        (["labels.tif", "labels.tif", "--json", "none/a.json"], "--json none/a.json"),
        (["labels.tif", "half_labels.tif"], "half_labels.tif"),
        (["labels.tif"], "Missing argument 'TRUTH'"),
    ],
)
def test_evaluation(inputs, arguments, words):
    refused(["evaluate", *arguments], words)
