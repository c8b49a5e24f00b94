"""Networks learned from labels: out of fold, from what is labeled alone, and kept as ONNX."""

import dataclasses
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
from command import run
from textures import CLASSES, Killed, data_of, fit_of, learned, shares, textures

import tiledlaf
from tiledlaf.files import images
from tiledlaf.flow import losses, stencil
from tiledlaf.flow.gradient import Polynomials
from tiledlaf.model import network as lattices
from tiledlaf.model import onnxfile, opening
from tiledlaf.model.classes import Class
from tiledlaf.model.terms import Networked
from tiledlaf.tiles import Grid
from tiledlaf.training import continuing, crops, networks, unet_onnx, worker
from tiledlaf.training.pixels import Source
from tiledlaf.training.worker import FlowSettings, LabeledTile, TileReader, core_of

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from tiledlaf.training import unet  # noqa: E402


@pytest.fixture(autouse=True, scope="module")
def _quick():
    """One thread, as others may want the cores; networks are judged seldom, by few parts."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "CHECKS", 5)
        patch.setattr(networks, "JUDGED", 3)
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def fitted():
    return fit_of()


def test_textures_are_learned_out_of_fold(fitted):
    fit, terms, said = fitted
    assert len(terms) == 5
    assert len({id(term) for term in terms}) == 3
    wrong = []
    for labeled, fold in zip(fit.tiles, fit.folds, strict=True):
        example, core = fit.source.examples[labeled.example], core_of(labeled)
        truth = example.labels.read(core)[0]
        wrong.append((shares(terms[fold], example)[:, *core].argmax(axis=0) + 1 != truth).mean())
    assert np.mean(wrong) < 0.3, wrong  # by chance 0.5; the means of the classes are the same
    (line,) = (one["stage"] for one in said if one["stage"].startswith("networks: "))
    assert line.startswith("networks: ")
    assert "where they have not seen it" in line
    notes = networks.notes(terms[-1])["network"]
    assert notes["kind"] == "unet"
    assert 0 < notes["steps"] <= 40
    stages = {one["stage"]: one["of"] for one in said if "of" in one}
    assert stages["networks 1 to 2 of 3"] == 40
    assert stages["network 3 of 3"] == notes["steps"]


def test_a_network_has_not_seen_its_folds(monkeypatch):
    """Labels of the first two folds are those of the others' network alone."""
    monkeypatch.setattr(networks, "CHECKS", 1)
    truth = [textures(seed)[1] for seed in range(4)]
    _, terms, _ = fit_of(steps=3, labels=truth)
    other = [3 - one if number < 2 else one for number, one in enumerate(truth)]
    fit, changed, _ = fit_of(steps=3, labels=other)
    for fold, same in enumerate([True, True, False, False, False]):
        p, q = (shares(one[fold], fit.source.examples[0]) for one in (terms, changed))
        assert np.array_equal(p, q) == same, fold


def test_tiles_take_the_network_of_their_fold(fitted, monkeypatch):
    """And the blocks of an image in memory are evaluated once, however many tiles it has."""
    fit, terms, _ = fitted
    calls, run_ = [], lattices.Network.run
    monkeypatch.setattr(
        lattices.Network,
        "run",
        lambda self, *x: calls.append(self.content.digest) or run_(self, *x),
    )
    examples = fit.source.examples
    made = worker.probabilities(terms, examples)
    flow = FlowSettings(
        CLASSES, stencil.box(3, 3), 1.0, 1.0, Polynomials(1e-3), losses.make("cosine")
    )
    reader = TileReader(flow, examples, tuple(terms), None, made=made)
    for fold in range(5):
        for tile in (one for one in fit.tiles if one.example == 0):
            found = worker.read(reader, dataclasses.replace(tile, fold=fold))
            p = shares(terms[fold], examples[0])[:, *tile.tile.window]
            del calls[-1]  # that of this line above
            np.testing.assert_allclose(found.q, np.log(np.maximum(p, 1e-6)), rtol=1e-5, atol=1e-6)
    assert sorted(calls) == sorted({one.network.content.digest for one in terms})
    lattice = made[0][0].data
    again = pickle.loads(pickle.dumps(lattice))  # as for workers in other processes
    assert np.array_equal(again[:, :, :], lattice[:, :, :])


@pytest.mark.parametrize("channels", [1, 3])
def test_onnx_gives_what_pytorch_gives(monkeypatch, channels):
    monkeypatch.setattr(opening, "CORES", {2: (32,), 3: (6,)})
    rng = np.random.default_rng(0)
    learner = unet.Learning(channels, 3, (0,), "cpu")
    for _ in range(4):
        pixels = rng.normal(size=(2, channels, 32, 32)).astype(np.float32)
        learner.step(pixels, rng.integers(-1, 3, (2, 32, 32)), 1e-2)
    mean, spread = rng.uniform(50, 90, channels), rng.uniform(5, 30, channels)
    found = unet_onnx.network_of(unet_onnx.exported(learner.weights(), mean, spread, {"a": 1}))
    assert unet_onnx.notes_of(found) == {"a": 1}
    run_ = onnxfile.runner(found.content, found.ports, found.provider)
    measured, planes = opening._measured("net", found.ports, None, run_)
    assert (measured, planes) == ((found.least, found.step, found.margin), 3)
    image = rng.normal(70, 30, (channels, 50, 77)).astype(np.float32)
    got = found.of(images.from_array(image, "cyx")).data[:, :, :]
    scale = (slice(None), None, None)
    wide = [(128, 128 + -n % unet_onnx.STEP) for n in image.shape[1:]]
    outer = np.pad((image - mean[scale]) / spread[scale], [(0, 0), *wide], mode="reflect")
    learner.network.eval()
    with torch.no_grad():
        z = learner.network(torch.from_numpy(outer.astype(np.float32))[None])
    expected = torch.softmax(z, 1)[0, :, 128:178, 128:205].numpy()
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_parts_are_of_what_is_labeled():
    """Pixels say what their label is: turned and mirrored alike, without those of other tiles."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, (48, 64)).astype(np.uint8)
    labels[:, :20] = 0
    (example,) = tiledlaf.pair(labels * 50.0, labels)
    tile = next(iter(Grid((48, 64), (0, 0), (48, 64), (24, 64), (4, 4))))
    block = crops._read(Source((example,), CLASSES), LabeledTile(0, tile))
    assert block.core == (24, 44)
    edge = crops.edge_of([block])
    assert edge == 64
    assert edge % unet_onnx.STEP == 0
    assert crops.MULTIPLE == unet_onnx.STEP
    draw = crops.Draw(edge, *crops.moments([block]), None, 0)
    pixels, targets = draw.batch([block], 20, (0, 0))
    assert targets.shape == (20, edge, edge)
    assert set(np.unique(targets)) == {-1, 0, 1}
    b = crops.BORDER
    assert (targets[:, :b] == -1).all()
    assert (targets[:, :, -b:] == -1).all()
    found = np.rint((pixels[:, 0] * draw.spread[0] + draw.mean[0]) / 50)
    assert (found == targets + 1)[targets >= 0].mean() > 0.999  # but for noise
    assert (targets >= 0).any(axis=(1, 2)).all()
    # each time all of the core: what is not labeled is 0, and the other tile is not seen
    expected = (labels[:24, 20:] > 0).sum()
    assert set((targets >= 0).sum(axis=(1, 2)).tolist()) == {expected}
    again = draw.batch([block], 20, (0, 0))
    assert np.array_equal(again[0], pixels)
    assert not np.array_equal(draw.batch([block], 20, (0, 1))[0], pixels)


def test_pixels_without_a_label_do_not_count():
    rng = np.random.default_rng(2)
    learner = unet.Learning(1, 2, (0,), "cpu")
    pixels = rng.normal(size=(1, 1, 32, 32)).astype(np.float32)
    targets = rng.integers(0, 2, (1, 32, 32))
    whole = learner.judged(pixels, targets)
    one, other = targets.copy(), targets.copy()
    one[:, :5], other[:, 5:] = -1, -1
    parts = [learner.judged(pixels, part) for part in (one, other)]
    assert sum(loss for loss, _ in parts) == pytest.approx(whole[0], rel=1e-5)
    assert sum(wrong for _, wrong in parts) == whole[1]
    # nor does a step without any move the weights, but for what AdamW takes off them
    before = learner.weights()
    learner.step(pixels, np.full_like(targets, -1), 1e-3)
    after = learner.weights()
    assert all(
        np.allclose(before[k], after[k], atol=1e-6)
        for k in before
        if "running" not in k and "batches" not in k
    )


@pytest.mark.slow
def test_strokes():
    """A few lines of each class teach the network the rest."""
    labels = []
    for seed in range(4):
        drawn = textures(seed)[1]
        drawn[np.arange(48) % 6 != 0] = 0
        labels.append(drawn)
    fit, terms, _ = fit_of(labels=labels)
    truth = [textures(seed)[1] for seed in range(4)]
    wrong = [
        (shares(terms[n], example).argmax(axis=0) + 1 != one).mean()
        for n, (example, one) in enumerate(zip(fit.source.examples, truth, strict=True))
    ]
    assert np.mean(wrong) < 0.35, wrong


def test_more_groups_where_a_half_lacks_a_class():
    labels = [textures(seed)[1] for seed in range(4)]
    for one in labels:
        one[:4] = 3
    kinds = (*CLASSES, Class("rare", (3,)))
    _, terms, said = fit_of(steps=1, labels=labels, classes=kinds)
    assert "networks 1 to 2 of 3" in {one["stage"] for one in said}
    for one in labels[:2]:
        one[one == 3] = 1
    _, terms, said = fit_of(steps=1, labels=labels, classes=kinds)
    assert "networks 1 to 3 of 4" in {one["stage"] for one in said}
    assert len({term.network.content.digest for term in terms}) == 4
    labels[2][labels[2] == 3] = 1  # in a single image
    with pytest.raises(ValueError, match="labeled pixels of rare in more than one block"):
        fit_of(steps=1, labels=labels, classes=kinds)


def test_it_stops_early(monkeypatch):
    """Once the folds that were not seen say that nothing is won; the last one stops there too."""
    losses = iter([9.0, 9.0, 5.0, 5.0, *(float(n) for n in range(10, 99))])
    monkeypatch.setattr(networks, "CHECKS", 20)
    monkeypatch.setattr(networks, "PATIENCE", 2)
    monkeypatch.setattr(networks, "JUDGED", 1)
    monkeypatch.setattr(unet.Learning, "judged", lambda self, x, y: (next(losses), 0))
    _, terms, said = fit_of(steps=20)
    made = [one["done"] for one in said if one["stage"] == "networks 1 to 2 of 3"]
    assert made == [1, 2, 3, 4]
    assert networks.notes(terms[-1])["network"]["steps"] == 2
    last = [one["done"] for one in said if one["stage"] == "network 3 of 3"]
    assert last == [1, 2]


def test_time_is_kept():
    """Of no time, a single network, which the last fold judges; of a few seconds, all of them."""
    _, terms, said = fit_of(steps=None, left=lambda share: 0.0)
    assert len(terms) == 1
    assert said[-1]["stage"].startswith("networks: ")
    assert any(one["stage"].startswith("time limit: one network") for one in said)
    assert networks.notes(terms[0])["network"]["steps"] == networks.FEWEST
    _, terms, said = fit_of(steps=None, minutes=6 / 60)
    assert len(terms) == 5
    made = [one for one in said if one["stage"] == "networks 1 to 2 of 3"]
    assert made[-1]["done"] == made[-1]["of"] == 4  # two thirds of the seconds


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "whole.model"
    learned(path)
    return path


def test_interrupted_and_going_on_it_is_the_same(tmp_path, model):
    path = tmp_path / "a.model"
    places = [("networks 1 to 2 of 3", 5), ("network 3 of 3", 1), ("reading tiles", 2)]
    for stage, at in places:
        seen = []

        def stop(record, stage=stage, at=at, seen=seen):
            seen.append((record.get("stage"), record.get("done")))
            if seen[-1] == (stage, at):
                raise Killed

        with pytest.raises(Killed):
            learned(path, stop)
        steps = [done for name, done in seen if name == stage]
        assert steps[-1] == at
    # from where it was: the networks are not learned again
    seen = []
    found = learned(path, lambda record: seen.append(record.get("stage")))
    assert not any("network" in str(stage) for stage in seen if stage != "reading tiles")
    whole = tiledlaf.load(model)
    assert found.term.network.content.digest == whole.term.network.content.digest
    assert tiledlaf.load(path).fingerprint() == whole.fingerprint()
    assert not list(tmp_path.glob("*.checkpoint"))


def test_it_goes_on_within_a_network(tmp_path):
    path, seen = tmp_path / "a.model", []

    def stop(record):
        if (record.get("stage"), record.get("done")) == ("networks 1 to 2 of 3", 7):
            raise Killed

    with pytest.raises(Killed):
        learned(path, stop)
    with pytest.raises(Killed):
        learned(path, lambda record: (seen.append(record), stop(record)))
    first = next(one["done"] for one in seen if one.get("stage") == "networks 1 to 2 of 3")
    assert first == 7  # it is kept after 2, 4, 6, ... steps


CHILD = """
import sys
sys.modules["torch"] = None
import numpy as np, tiledlaf
labels = tiledlaf.label(np.load(sys.argv[1]), model=sys.argv[2], workers=1)
np.save(sys.argv[3], labels)
"""


def test_models_need_no_pytorch(tmp_path, model):
    image, _ = textures(9)
    np.save(tmp_path / "image.npy", image)
    out = tmp_path / "labels.npy"
    child = [sys.executable, "-c", CHILD, tmp_path / "image.npy", model, out]
    subprocess.run(child, check=True, cwd=tmp_path)
    found = np.load(out)
    assert np.array_equal(found, tiledlaf.label(image, model=model, workers=2, tile=32))
    about = tiledlaf.load(model)
    assert isinstance(about.term, Networked)
    assert about.trained["network"]["kind"] == "unet"
    assert about.folds == ()
    shown = run("info", model)
    assert "data term: network; " in shown.out
    assert "network: unet, learned in" in shown.out


def test_a_model_that_learned_its_network_learns_it_again(model):
    found = tiledlaf.load(model)
    assert continuing.term(found) == "unet"
    recipe = tiledlaf.Recipe.from_model(found, network_steps=2, steps=2)
    data = dataclasses.replace(data_of(), term=None)
    with tiledlaf.open_pool(workers=1) as pool:
        again = tiledlaf.train(data, recipe, pool)
    assert again.term.network.content.digest != found.term.network.content.digest
    assert again.trained["network"]["steps"] <= 2


def test_stacks_are_learned_plane_by_plane():
    pairs = [[textures(8 * n + z, (32, 32)) for z in range(3)] for n in range(2)]
    stacks, labels = (
        [np.stack([plane[part] for plane in one]) for one in pairs] for part in (0, 1)
    )
    examples = tiledlaf.pair(stacks, labels, axes="zyx")
    recipe = tiledlaf.Recipe(network_steps=3, steps=1, predictor_size=4, flow="uniform")
    with tiledlaf.open_pool(workers=1) as pool:
        found = tiledlaf.train(tiledlaf.Data(examples, term="unet"), recipe, pool)
    assert found.term.network.ndim == 2
    assert tiledlaf.label(stacks[0], model=found, axes="zyx").shape == (3, 32, 32)


def test_an_estimator_learns_it_too():
    image, truth = textures(0)
    flow = tiledlaf.AssignmentFlow("unet", network_steps=2, steps=1, predictor_size=4, workers=1)
    assert flow.fit(image, truth).predict(image).shape == image.shape


def test_without_pytorch(tmp_path, monkeypatch):
    """One line, before anything is read or written."""
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "tiledlaf.training.unet")
    monkeypatch.delattr("tiledlaf.training.unet")
    with pytest.raises(ValueError, match=r"needs PyTorch, .* pip install 'tiledlaf\[torch\]'"):
        learned(tmp_path / "a.model", lambda record: pytest.fail("too late"))
    assert not list(tmp_path.iterdir())


def test_options(tmp_path):
    for number in range(2):
        image, truth = textures(number)
        for what, array in (("raw", image), ("labels", truth)):
            (tmp_path / what).mkdir(exist_ok=True)
            np.save(tmp_path / what / f"{number}.npy", array)
    given = ("--images", tmp_path / "raw", "--labels", tmp_path / "labels")
    unet = ("--learn-network", "unet")
    found = run("train", tmp_path / "m", *given, *unet, "--prototypes", tmp_path / "p.csv")
    assert found.code == 2
    assert "--classifier (with or without --learn-network), --prototypes and --term" in found.err
    found = run("train", tmp_path / "m", *given, "--network-minutes", "3")
    assert "--network-minutes belongs to --learn-network" in found.err
    with pytest.raises(ValueError, match="positive number of `network_minutes`, got 0"):
        tiledlaf.Recipe(network_minutes=0)
    with pytest.raises(ValueError, match="network_steps"):
        tiledlaf.Recipe(network_steps=0)
    assert math.isclose(tiledlaf.Recipe().network_minutes, 15)
