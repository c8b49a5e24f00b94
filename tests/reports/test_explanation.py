"""Pictures of what a model does: the numbers behind them, and that they are there."""

import html
import re
from pathlib import Path

import learning_oracle as lo
import numpy as np
import oracle
import PIL.Image
import pytest
import tifffile
from command import run
from scipy.linalg import expm_frechet
from scipy.ndimage import maximum_filter
from voronoi import colors, lines

import tiledlaf
from tiledlaf.flow import stencil
from tiledlaf.flow.gradient import Spaces, linearize
from tiledlaf.model import classes
from tiledlaf.model import features as kinds
from tiledlaf.model import model as model_file
from tiledlaf.model.model import Model
from tiledlaf.model.predictor import Predictor
from tiledlaf.reports import drawing, pages, view
from tiledlaf.reports.view import describe, usage

BOX = stencil.box(3, 3)
PAGES = ["anchors", "labels", "entropy", "direction", "axis"]
TAUGHT = [*PAGES, "gradient", "sensitivity"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Images with labels, and models of them."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("images", "labels"):
            Path(name).mkdir()
        for number in range(3):
            image, labels = lines((72, 80), cells=8, seed=number)
            tifffile.imwrite(f"images/{number}.tif", image)
            tifffile.imwrite(f"labels/{number}.tif", labels)
        Path("names.json").write_text('{"0": "cell <1>", "1": "line"}')
        train = [
            "train",
            "--images",
            "images/*.tif",
            "--labels",
            "labels/*.tif",
            "--size",
            "8",
            "--steps",
            "10",
            "--names",
            "names.json",
            "--workers",
            "2",
        ]
        for name, options in {
            "patch.model": [],
            "rings.model": ["--neighborhood", "rings:3", "--features", "context"],
        }.items():
            found = run(*train[:1], name, *train[1:], *options)
            assert found.code == 0, found
        image, labels = lines((72, 80), cells=8, seed=9)
        tifffile.imwrite("unseen.tif", image)
        tifffile.imwrite("truth.tif", labels)
    return folder


@pytest.fixture(autouse=True)
def here(made, tmp_path, monkeypatch):
    """A folder that sees what was made."""
    monkeypatch.chdir(tmp_path)
    for path in made.iterdir():
        Path(path.name).symlink_to(path)


def pictures(folder, names):
    """Pictures of a folder; there are no others, and the index shows all of them."""
    index = Path(folder, "index.html").read_text("utf-8")
    assert sorted(p.name for p in Path(folder).iterdir()) == sorted(
        ["index.html", *(f"{name}.png" for name in names)]
    )
    assert re.findall(r'<img src="(\w+)\.png"', index) == names
    found = {name: PIL.Image.open(Path(folder, f"{name}.png")) for name in names}
    for name, image in found.items():
        assert image.mode == "RGB", name
        assert image.getcolors(20) is None, name  # it has more than these
    found = {name: np.asarray(image) for name, image in found.items()}
    return found, html.unescape(re.sub("<[^>]+>", "", index))


# numbers


def test_entropy_and_directions_of_patches():
    offsets = stencil.rings(2)
    rng = np.random.default_rng(0)
    mask = np.ones((6, 7), bool)
    mask[2, 3] = False
    weights = oracle.random_weights(offsets, (6, 7), rng, mask)
    found = describe(weights, offsets)
    for y, x in np.ndindex(6, 7):
        rows = [(w, o) for w, o in zip(weights[:, y, x], offsets, strict=True) if w > 0]
        entropy = -sum(w * np.log(w) for w, _ in rows) / np.log(max(len(rows), 2))
        mean = sum((w * np.array(o) for w, o in rows), np.zeros(2)) / 2
        far = [(w, np.arctan2(*o)) for w, o in rows if any(o)]
        total = sum(w for w, _ in far) or 1
        axis = [sum(w * f(2 * a) for w, a in far) / total for f in (np.sin, np.cos)]
        np.testing.assert_allclose(found.entropy[y, x], entropy, atol=1e-12)
        np.testing.assert_allclose(found.mean[:, y, x], mean, atol=1e-12)
        np.testing.assert_allclose(found.axis[:, y, x], axis, atol=1e-12)
    assert found.entropy[2, 3] == 0
    uniform = describe(stencil.uniform(offsets, (9, 9)), offsets)
    np.testing.assert_allclose(uniform.entropy, 1, rtol=1e-6)
    np.testing.assert_allclose(uniform.mean[:, 4, 4], 0, atol=1e-6)


@pytest.mark.parametrize(
    ("chosen", "mean", "axis"),
    [
        ({(0, 1): 1}, (0, 1), (0, 1)),
        ({(-1, 0): 1}, (-1, 0), (0, -1)),
        ({(0, -1): 0.5, (0, 1): 0.5}, (0, 0), (0, 1)),  # along x, to neither side
        ({(-1, 1): 0.5, (1, -1): 0.3, (0, 0): 0.2}, (-0.2, 0.2), (-1, 0)),
    ],
)
def test_directions_of_known_patches(chosen, mean, axis):
    weights = np.array([chosen.get(o, 0) for o in BOX])[:, None, None]
    found = describe(weights, BOX)
    np.testing.assert_allclose(found.mean[:, 0, 0], mean, atol=1e-12)
    np.testing.assert_allclose(found.axis[:, 0, 0], axis, atol=1e-12)


def test_how_prototypes_are_used(monkeypatch):
    rng = np.random.default_rng(1)
    grid, count = (11, 13), 4
    predictor = Predictor(
        kinds.PATCH,
        rng.normal(size=2),
        rng.uniform(0.5, 2, 2),
        rng.normal(size=(count, 2)),
        rng.normal(size=(count, 9)),
        1.3,
    )
    features, image = rng.normal(size=(2, *grid)), rng.normal(size=(1, *grid))
    valid = rng.random(grid) > 0.3
    shares = np.zeros((count, *grid))
    for pixel in np.ndindex(*grid):
        f = (features[:, *pixel] - predictor.mean) / predictor.scale
        shares[:, *pixel] = lo._memberships(f, predictor.anchors, 1.3)[1]
    for band in (2**25, 100):  # in one piece, and a few rows at a time
        monkeypatch.setattr(view, "BAND", band)
        found = usage(predictor, features, image, valid)
        np.testing.assert_allclose(found.share, shares[:, valid].mean(axis=1), rtol=1e-10)
        assert found.share.sum() == pytest.approx(1)
        for j, look in enumerate(found.looks):
            own = (shares.argmax(axis=0) == j) & valid
            middle = look[0, view.SEEN, view.SEEN]
            np.testing.assert_allclose(middle, image[0][own].mean(), rtol=1e-5)


def test_singular_vectors_are_those_of_the_dense_gradient():
    rng = np.random.default_rng(2)
    grid, labels, time = (4, 5), 3, 3.0
    weights = oracle.random_weights(BOX, grid, rng)
    distances, g = rng.random((labels, *grid)), rng.normal(size=(labels, *grid))
    s = oracle.similarity(weights, distances, BOX)
    size = s.size
    bordered = np.zeros((size + 1, size + 1))
    bordered[:size, :size] = time * oracle.operator_matrix(weights, s, BOX)
    bordered[:size, size] = time * oracle._tangent(s).ravel()
    direction = np.zeros_like(bordered)
    direction[:size, size] = g.ravel()
    dense = time * expm_frechet(bordered.T, direction, compute_expm=False)[:size, :size]
    left, sigma, right = np.linalg.svd(dense)
    way = linearize(weights, distances, BOX, time=time, way=Spaces(24), kernel="numpy")
    found = way.gradient(g)
    np.testing.assert_allclose(found.singular_values[:4], sigma[:4], rtol=1e-6)
    for r in range(3):
        u, z = (vectors[r].ravel() for vectors in found.vectors)
        sign = np.sign(u @ left[:, r])
        np.testing.assert_allclose(sign * u, left[:, r], atol=1e-5)
        np.testing.assert_allclose(sign * z, right[r], atol=1e-5)


# drawings


@pytest.mark.parametrize("name", ["3x3", "5x5", "rings:3,7", "3x3x3"])
def test_weight_patches_are_drawn_at_their_offsets(name):
    ndim = 3 if name == "3x3x3" else 2
    offsets = stencil.parse(name, ndim)
    values = np.random.default_rng(0).integers(0, 255, (len(offsets), 3)).astype(np.uint8)
    edge = 150
    picture = np.asarray(drawing.patch(values, offsets, edge))
    assert picture.shape == (edge, edge if ndim == 2 else 3 * edge + 8, 3)
    reach = max(abs(v) for o in offsets for v in o[-2:]) + 0.5
    if name == "rings:3,7":
        reach = 7 + 0.9 * 4 / 2
    for offset, color in zip(offsets, values, strict=True):
        # a little beside the middle, where the pixel itself has a dot
        y, x = (int((v + 0.3 + reach) * edge / (2 * reach)) for v in offset[-2:])
        section = (offset[0] + 1) * (edge + 4) if ndim == 3 else 0
        np.testing.assert_array_equal(picture[y, section + x], color)
    assert (picture[edge // 2, edge // 2 if ndim == 2 else edge // 2 + edge + 4] == 0).all()


@pytest.mark.parametrize(
    ("vector", "axes", "step"),
    [
        ((0, 1), False, (0, 1)),
        ((-1, 0), False, (-1, 0)),
        ((0, -1), True, (1, 0)),
        ((1, 0), True, (1, 1)),
    ],
)
def test_arrows_point_along_their_vectors(vector, axes, step):
    """(sin, cos) of an angle; twice the angle of an axis."""
    vectors = np.broadcast_to(np.array(vector, float)[:, None, None], (2, 12, 12))
    times, every = 40, 4
    found = np.asarray(drawing.arrows(np.zeros((12, 12, 3), np.uint8), vectors, axes=axes))
    assert found.shape == (12 * times, 12 * times, 3)
    found = found[every * times : 2 * every * times, every * times : 2 * every * times]  # a block
    middle, far = every * times // 2, every * times // 5
    drawn = maximum_filter((found > 0).any(axis=-1), 3)
    for sign in (-1, 1):  # a line on both sides of the middle, and nothing across
        y, x = (middle + sign * far * v for v in step)
        assert drawn[y, x]
        assert not drawn[middle - sign * far * step[1], middle + sign * far * step[0]]
    heads = (found == (255, 60, 0)).all(axis=-1)
    assert heads.any() == (not axes)
    if not axes:
        head = middle + np.array(step) * (middle - 1)
        assert maximum_filter(heads, 5)[*head]


def test_hues_of_angles():
    """Opposite angles have opposite colors, and length is brightness."""
    angles = np.array([[0, np.pi / 2, np.pi, 3 * np.pi / 2]])
    full = drawing.hues(angles, np.ones_like(angles)).astype(int)
    assert full[0, 0].tolist() == [255, 0, 0]
    assert len(np.unique(full[0], axis=0)) == 4
    np.testing.assert_allclose(full[0, 2], [0, 255, 255], atol=6)
    np.testing.assert_allclose(drawing.hues(angles, 0.5 + 0 * angles), full / 2, atol=4)


def test_every_class_has_a_color_of_its_own():
    found = classes.palette(24)
    assert len(np.unique(found, axis=0)) == 25


def test_colors_of_leading_classes():
    planes = np.array([[3.0, 0, 1], [0, 3, 1], [0, 0, 1]])[:, :, None]
    pixels = drawing.leaders(planes)
    full = classes.palette(3)
    np.testing.assert_array_equal(pixels[0, 0], full[1])
    np.testing.assert_array_equal(pixels[1, 0], full[2])
    assert (pixels[2, 0] == 0).all()


# the command


def test_a_model_alone():
    found = run("explain", "patch.model")
    assert found.code == 0, found
    assert found.out == "pictures: patch-explained/index.html\n"
    shown, text = pictures("patch-explained", ["anchors"])
    assert "8 anchors of 9 features" in text
    assert "sorted by the strength of their patches" in text
    assert "classes: cell <1>, line" in text
    # a card: its features and its patch
    assert shown["anchors"].shape[1] > 2 * pages.SQUARE


def test_a_model_on_an_image():
    found = run("explain", "patch.model", "unseen.tif", "-o", "out")
    assert found.code == 0, found
    shown, text = pictures("out", PAGES)
    assert "all of unseen.tif, y 0:72, x 0:80, at full size" in text
    # the labels are those of the command, in their colors
    labels = tiledlaf.label(tifffile.imread("unseen.tif"), model="patch.model")
    edge = 6 * labels.shape[1] + drawing.GAP
    drawn = shown["labels"][drawing.GAP + drawing.LINE :, drawing.GAP + edge :]
    drawn = drawn[3 : 6 * labels.shape[0] : 6, 3 : 6 * labels.shape[1] : 6]
    np.testing.assert_array_equal(drawn, classes.palette(2)[labels])


@pytest.mark.parametrize("name", ["patch.model", "rings.model"])
def test_a_model_with_truth(name):
    found = run("explain", name, "unseen.tif", "--truth", "truth.tif", "-o", "out")
    assert found.code == 0, found
    _, text = pictures("out", TAUGHT)
    sigma = [float(v) for v in re.search(r"Singular values: (.+?)\. z1", text)[1].split(", ")]
    assert sigma == sorted(sigma, reverse=True)
    assert sigma[0] > 20 * sigma[1] > 0
    cosines = [float(v) for v in re.findall(r"the cosine ([\d.]+) ", text)]
    assert len(cosines) == 2
    assert 0.5 < min(cosines) <= max(cosines) <= 1
    assert float(re.search(r"first pair alone ([\d.]+) %", text)[1]) > 90
    # with the truth the other pictures are the same
    assert run("explain", name, "unseen.tif", "-o", "without").code == 0
    for page in PAGES:
        assert (
            Path("out", f"{page}.png").read_bytes() == Path("without", f"{page}.png").read_bytes()
        )


def test_a_part_of_a_large_image(monkeypatch):
    monkeypatch.setattr(view, "EDGE", 40)
    assert run("explain", "patch.model", "unseen.tif", "-o", "middle").code == 0
    found = run("explain", "patch.model", "unseen.tif", "-o", "out", "--region", "16:56,20:60")
    assert found.code == 0, found
    assert "a part of unseen.tif, y 16:56, x 20:60" in pictures("out", PAGES)[1]
    for page in PAGES:
        assert Path("out", f"{page}.png").read_bytes() == Path("middle", f"{page}.png").read_bytes()


def test_a_part_has_the_weights_of_the_whole():
    """What a part is shown with does not end at its border."""
    held = model_file.load("rings.model")
    image = tifffile.imread("unseen.tif")
    example = view.open_example(image, None, None, None)
    whole = view.look(held, held.predictor, example, None, "cpu")
    part = view.look(held, held.predictor, example, [(20, 50), (30, 70)], "cpu")
    box = np.s_[..., 20:50, 30:70]
    for name in ("entropy", "mean", "axis"):
        one, other = (getattr(view.weights, name) for view in (part, whole))
        np.testing.assert_array_equal(one, other[box])
    np.testing.assert_array_equal(part.z, whole.z[box])


def test_which_part_is_shown():
    part = view._part
    assert part((300, 512), None) == [(0, 300), (0, 512)]
    assert part((3000, 90000), None) == [(1244, 1756), (44744, 45256)]
    assert part((9, 40, 600), None) == [(4, 5), (0, 40), (44, 556)]
    assert part((9, 5000, 5000), [(2, 5), (10, 900), (0, 2048)]) == [(3, 4), (10, 900), (0, 2048)]
    with pytest.raises(ValueError, match="a region of at most 2048 pixels per edge"):
        part((5000, 5000), [(0, 2049), (0, 5)])


def test_masked_pixels():
    image = tifffile.imread("unseen.tif")
    mask = np.ones(image.shape, np.uint8)
    mask[10:30, 20:50] = 0
    image[15, 30] = np.nan
    tifffile.imwrite("nan.tif", image)
    tifffile.imwrite("mask.tif", mask)
    found = run(
        "explain",
        "patch.model",
        "nan.tif",
        "--mask",
        "mask.tif",
        "-o",
        "out",
        "--truth",
        "truth.tif",
    )
    assert found.code == 0, found
    pictures("out", TAUGHT)


@pytest.mark.parametrize("neighborhood", ["3x3x3", "3x3"])
def test_a_volume(neighborhood):
    rng = np.random.default_rng(3)
    labels = np.stack([lines((40, 44), cells=5, seed=4)[1]] * 8)
    image = (labels + 0.3 * rng.normal(size=labels.shape)).astype(np.float32)
    tifffile.imwrite("volume.tif", image)
    tifffile.imwrite("volume_labels.tif", labels)
    options = ["--axes", "zyx"]
    found = run(
        "train",
        "volume.model",
        "--images",
        "volume.tif",
        "--labels",
        "volume_labels.tif",
        "--size",
        "5",
        "--steps",
        "5",
        "--neighborhood",
        neighborhood,
        *options,
    )
    assert found.code == 0, found
    found = run("explain", "volume.model", "volume.tif", "--truth", "volume_labels.tif", *options)
    assert found.code == 0, found
    _, text = pictures("volume-explained", TAUGHT)
    assert "a part of volume.tif, z 3:4, y 0:40, x 0:44" in text


def test_colors_and_several_classes():
    image, labels = colors((64, 72), cells=12, classes=3, seed=1)
    tifffile.imwrite("color.tif", image, photometric="minisblack", planarconfig="separate")
    tifffile.imwrite("color_labels.tif", labels)
    found = run(
        "train",
        "color.model",
        "--images",
        "color.tif",
        "--labels",
        "color_labels.tif",
        "--axes",
        "cyx",
        "--size",
        "6",
        "--steps",
        "4",
        "--features",
        "context",
    )
    assert found.code == 0, found
    found = run(
        "explain",
        "color.model",
        "color.tif",
        "--axes",
        "cyx",
        "--truth",
        "color_labels.tif",
        "-o",
        "out",
    )
    assert found.code == 0, found
    pictures("out", TAUGHT)


def test_in_python():
    index = tiledlaf.explain(
        model_file.load("patch.model"),
        "out",
        tifffile.imread("unseen.tif"),
        truth=tifffile.imread("truth.tif"),
    )
    assert index == Path("out/index.html")
    pictures("out", TAUGHT)


def test_membranes(data_folder):
    folder = data_folder / "isbi2012" / "train"
    if not folder.is_dir():
        pytest.skip(f"no membranes: {folder} is missing")
    found = run(
        "train",
        "membranes.model",
        "--images",
        folder / "image" / "0.png",
        "--labels",
        folder / "label" / "0.png",
        "--size",
        "10",
        "--steps",
        "10",
        "--flow",
        "learned",
        "--neighborhood",
        "rings:3",
    )
    assert found.code == 0, found
    found = run(
        "explain",
        "membranes.model",
        folder / "image" / "12.png",
        "--truth",
        folder / "label" / "12.png",
        "--region",
        "100:260,100:260",
    )
    assert found.code == 0, found
    assert "a part of 12.png, y 100:260, x 100:260" in pictures("membranes-explained", TAUGHT)[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("no.model", "no.model: no such file"),
        ("patch.model no.tif", "no.tif: no such file or folder"),
        ("patch.model --truth truth.tif", "--truth without an image: expected an IMAGE"),
        ("patch.model --region 0:9,0:9", "--region without an image: expected an IMAGE"),
        ("patch.model unseen.tif -o images", "images: expected a new or empty folder"),
        ("patch.model unseen.tif -o unseen.tif", "unseen.tif: expected a new or empty folder"),
        ("patch.model unseen.tif --region 0:99,0:9", "expected a region of start:stop"),
        ("patch.model unseen.tif --probabilities unseen.tif", "expected axes for the 2 dimensions"),
        ("patch.model unseen.tif --truth other.tif", "expected labels of the size (72, 80)"),
        ("patch.model unseen.tif --truth empty.tif", "expected labeled pixels in all of unseen"),
        ("patch.model unseen.tif --mask none.tif", "expected pixels in all of unseen.tif"),
        ("patch.model unseen.tif --channels 3", "expected different channels of 0 to 0, got 3"),
        ("patch.model images --truth labels", "expected one IMAGE, got 3"),
        ("uniform.model", "expected a model with learned weights, got one without"),
    ],
)
def test_refusals(arguments, words):
    tifffile.imwrite("other.tif", np.zeros((9, 9), np.uint8))
    tifffile.imwrite("none.tif", np.zeros((72, 80), np.uint8))
    tifffile.imwrite("empty.tif", np.full((72, 80), 7, np.uint8))
    held = model_file.load("patch.model")
    Model(held.classes, held.term, held.offsets, 1.0, 1.0, 1e-3, 1, None, (0.0, 0.0)).save(
        "uniform.model"
    )
    found = run("explain", *arguments.split())
    assert found.code == 2, found
    assert found.err.count("\n") == 1
    assert words in found.err
    assert not list(Path().glob("*-explained"))
