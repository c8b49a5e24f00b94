"""Trees and a network learned from the same labels: what is chosen, and the mean of both."""

import dataclasses

import numpy as np
import pytest
import tifffile
from command import run
from textures import Killed, data_of, fit_of, learned, shares, textures

import tiledlaf
from tiledlaf.model import onnxfile, trees
from tiledlaf.model.features import Features
from tiledlaf.model.terms import Averaged, Classified, Networked
from tiledlaf.training import classifiers, combined, continuing, networks

pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
KIND = "classifier+unet"


@pytest.fixture(autouse=True, scope="module")
def _quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "CHECKS", 5)
        patch.setattr(networks, "JUDGED", 3)
        yield


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A model of both."""
    found = tmp_path_factory.mktemp("models") / "both.model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(combined, "choose", lambda verdicts: 2)
        learned(found, term=KIND)
    return found


def rows(network, other, labels):
    """Of a tile in which the network and the trees are right or wrong, by that much."""
    sign = np.where(labels == 0, 1, -1)
    planes = (np.stack([sign * one / 2, -sign * one / 2], 1) for one in (network, other))
    return combined.Rows(*planes, labels)


def verdict_of(tiles, monkeypatch):
    """The terms that are chosen of tiles of `rows`, and their kind."""
    given = iter(tiles)
    monkeypatch.setattr(combined, "_rows", lambda work, item: next(given))
    for learner in (networks, classifiers):
        name = "cross_fitted" if learner is networks else "out_of_fold"
        monkeypatch.setattr(learner, name, lambda fit, learner=learner: [learner.__name__] * 3)
    monkeypatch.setattr(combined, "averaged", lambda found, trees, share: share)
    monkeypatch.setattr(combined, "probabilities", lambda terms, examples: ())
    _, found, said = fit_of(count=2, learn=combined.out_of_fold)
    return found, said[-1]["stage"].rpartition(": ")[2]


def test_what_errs_least_is_chosen(monkeypatch):
    rng = np.random.default_rng(0)
    labels = [rng.integers(0, 2, 4000) for _ in range(4)]

    def made(network, other):
        return [rows(network(), other(), one) for one in labels]

    def noise():
        return 1 + rng.normal(0, 1, 4000)

    share, said = verdict_of(made(noise, noise), monkeypatch)
    assert 0 < share < 1  # they err independently of each other: their mean errs less
    assert said == f"both, {share:.0%} of it the network"
    found, said = verdict_of(made(noise, lambda: -noise()), monkeypatch)
    assert (found, said) == ([networks.__name__] * 3, "network")
    found, said = verdict_of(made(lambda: -noise(), noise), monkeypatch)
    assert (found, said) == ([classifiers.__name__] * 3, "trees")
    right = made(lambda: np.ones(4000), lambda: np.ones(4000))
    assert verdict_of(right, monkeypatch)[1] == "network"  # of alike ones the simplest


def test_the_mean_is_that_of_logarithms(path):
    term = tiledlaf.load(path).term
    assert isinstance(term, Averaged)
    image, _ = textures(9)
    given = term.probabilities_of(tiledlaf.pair(image, image > 100)[0].image)
    assert given.shape == (3, *image.shape)
    planes = given.data[:, :, :]
    assert np.array_equal(planes[0], image)
    p = shares(term.networked, tiledlaf.pair(image, image > 100)[0])
    assert np.array_equal(planes[1:], p)
    rho = 0.7
    q = term.trees.potential(image[None], None, rho) * (1 - term.share)
    q += np.log(np.maximum(p, 1e-6)) / rho * term.share
    np.testing.assert_allclose(term.potential(planes, None, rho), q, rtol=1e-5, atol=1e-5)


def test_terms_of_folds_have_not_seen_them(monkeypatch):
    """What trees and networks of the first two folds are does not depend on those folds' labels."""
    monkeypatch.setattr(combined, "choose", lambda verdicts: 2)
    monkeypatch.setattr(networks, "CHECKS", 1)
    monkeypatch.setattr(combined, "SHARES", (0.5,))
    truth = [textures(seed)[1] for seed in range(4)]
    other = [3 - one if number < 2 else one for number, one in enumerate(truth)]
    found = []
    for labels in (truth, other):
        fit, terms, _ = fit_of(steps=3, labels=labels, learn=combined.out_of_fold)
        found.append(terms)
    assert len(found[0]) == 5
    first, second = (one[0] for one in found)
    image = fit.source.examples[0].image
    assert np.array_equal(*(one.probabilities_of(image).data[:, :, :] for one in (first, second)))
    assert found[0][-1].network != found[1][-1].network


def test_labels_do_not_depend_on_tiles(path, tmp_path):
    image, _ = textures(9)
    whole = tiledlaf.label(image, model=path, workers=1)
    np.save(tmp_path / "image.npy", image)
    given = ("label", tmp_path / "image.npy", tmp_path / "out.zarr", "--model", path)
    assert run(*given, "--tile", "16", "--workers", "2").code == 0
    assert run("export", tmp_path / "out.zarr", tmp_path / "out.tif").code == 0
    assert np.array_equal(tifffile.imread(tmp_path / "out.tif"), whole)
    part = tiledlaf.label(image, model=path, workers=1, region=((8, 40), (3, 50)))
    assert np.array_equal(part, whole[8:40, 3:50])


def test_a_model_file_holds_both(path):
    found = tiledlaf.load(path)
    again = found.term.network
    assert found.trained["network"]["kind"] == "unet"
    assert again.content.path == str(path)  # workers read it from there
    assert again.content.read()
    shown = run("info", path)
    assert "data term: average; " in shown.out
    assert f"{found.term.share:.0%} of the mean with trees" in shown.out
    entry, arrays = found.term.to_parts()
    for share in (0, 1, 1.5, "a"):
        with pytest.raises(ValueError, match=r"share|float"):
            Averaged.from_parts({**entry, "share": share}, arrays)
    with pytest.raises(ValueError, match="features"):
        found.term.check(2)


def test_the_network_of_other_classes_is_refused(path):
    term = tiledlaf.load(path).term
    rng = np.random.default_rng(0)
    features = Features((("image", "patch", 0, 1, 0),))
    three = Classified(features, trees.fit(rng.normal(size=(90, 1)), np.arange(90) % 3, 3, 0))
    entry, arrays = dataclasses.replace(term, trees=three).to_parts()
    with pytest.raises(ValueError, match="network's 2 classes, got 3"):
        Averaged.from_parts(entry, arrays)


def test_probabilities_are_not_given_beside_it(path):
    image, truth = textures(0)
    p = np.stack([truth == 1, truth == 2]).astype(np.float32)
    with pytest.raises(ValueError, match="the model has a network: drop `probabilities`"):
        tiledlaf.label(image, model=path, probabilities=p)


def test_exported_it_gives_the_same_labels(path, tmp_path):
    image, _ = textures(9, (128, 144))
    tiledlaf.export(path, tmp_path / "a.onnx")
    session = onnxfile.runtime().InferenceSession(tmp_path / "a.onnx")
    given = {"image": image[None, None].astype(np.float32)}
    found = session.run(["labels"], given)[0][0]
    assert (found != tiledlaf.label(image, model=path, workers=1)).mean() < 2e-3


def test_going_on_learns_both_again(path):
    found = tiledlaf.load(path)
    assert continuing.term(found) == KIND
    recipe = tiledlaf.Recipe.from_model(found, network_steps=2, steps=2)
    data = dataclasses.replace(data_of(), term=None)
    with tiledlaf.open_pool(workers=1) as pool:
        again = tiledlaf.train(data, recipe, pool)
    assert again.term.kind in ("network", "classifier", "auto-context", "average")


def test_interrupted_among_trees_it_is_the_same(path, tmp_path, monkeypatch):
    monkeypatch.setattr(combined, "choose", lambda verdicts: 2)
    again, seen = tmp_path / "a.model", []

    def stop(record):
        if record.get("stage") == "comparing network and trees":
            raise Killed

    with pytest.raises(Killed):
        learned(again, stop, term=KIND)
    learned(again, seen.append, term=KIND)
    assert not any(one.get("stage") == "networks 1 to 2 of 3" for one in seen)
    assert tiledlaf.load(again).fingerprint() == tiledlaf.load(path).fingerprint()


def test_a_time_limit_leaves_one_of_them(monkeypatch):
    def short(fit):
        fit = dataclasses.replace(fit, steps=None, left=lambda share: 40 * share)
        return combined.out_of_fold(fit)

    with monkeypatch.context() as patch:
        patch.setattr(networks, "cross_fitted", lambda fit: pytest.fail("no time for it"))
        _, found, said = fit_of(count=2, learn=short)
    assert not any(isinstance(one, Networked) for one in found)
    assert {"stage": "time limit: trees, without a network"} in said
    with monkeypatch.context() as patch:  # or that becomes clear when all is read
        patch.setattr(networks, "cross_fitted", lambda fit: [fit])
        _, found, said = fit_of(count=2, learn=combined.out_of_fold)
    assert len(found) == 3
    assert {"stage": "time limit: trees, without a network"} in said
    monkeypatch.setattr(classifiers, "out_of_fold", lambda fit: [fit])
    _, found, said = fit_of(count=2, steps=2, learn=combined.out_of_fold)
    assert all(isinstance(one, Networked) for one in found)
    assert {"stage": "time limit: the network, without trees"} in said
