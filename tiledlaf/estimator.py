"""Training and labeling of arrays in memory, as an estimator of scikit-learn's kind."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from .labeling.request import label
from .pool import opening
from .training import examples
from .training import run as training_run


class AssignmentFlow(BaseEstimator):
    """Learn from images and their labels how to label others.

    Parameters
    ----------
    term : {"means", "classifier", "unet", "classifier+unet", "probabilities"} or (J, C) array
        Data term: the class means, boosted trees or a network that are learned as well,
        probabilities that are passed to `fit` and `predict`, or prototypes.
    neighborhood, time, rho, tol, loss, features, predictor_size, steps, patience, seed
        As in `Recipe`, with the same defaults.
    names, ignore
        Names of label values, and the value that means "not labeled".
    channels, axes
        Channels and axes of the images, as in `label`.
    workers : int, optional
        Number of threads; all cores by default. The model does not depend on it.
    network_minutes, network_steps
        As in `Recipe`, for a network that is learned.
    prototypes : int, optional
        Former name of `predictor_size`.
    start : Model or path, optional
        A model to go on from: parameters that are left at their defaults are those of it.

    Attributes
    ----------
    model_ : Model
    classes_ : (J,) int64
        One label value per class, which `predict` returns.

    Examples
    --------
    >>> import numpy as np, tiledlaf
    >>> truth = np.repeat([[1, 2]], 32, axis=1).repeat(64, axis=0)
    >>> image = 100 * truth + np.random.default_rng(0).normal(0, 20, truth.shape)
    >>> flow = tiledlaf.AssignmentFlow(steps=2, predictor_size=4, workers=1).fit(image, truth)
    >>> flow.predict(image).shape, float(flow.score(image, truth)) > 0.95
    ((64, 64), True)
    """

    def __init__(
        self,
        term: Any = "means",
        *,
        neighborhood: Any = None,
        time: float | None = None,
        rho: float = 1.0,
        tol: float = 1e-3,
        loss: str = "cosine",
        features: Any = None,
        predictor_size: int = 100,
        steps: int = 300,
        patience: int = 10,
        seed: int = 0,
        priors: Any = None,
        flow: str = "auto",
        boundary: str | None = None,
        names: Any = None,
        ignore: int | None = None,
        channels: Any = None,
        axes: str | None = None,
        workers: int | None = None,
        prototypes: int | None = None,
        start: Any = None,
        network_minutes: float = 15.0,
        network_steps: int | None = None,
    ) -> None:
        self.term = term
        self.neighborhood = neighborhood
        self.time = time
        self.rho = rho
        self.tol = tol
        self.loss = loss
        self.features = features
        self.predictor_size = predictor_size
        self.prototypes = prototypes
        self.steps = steps
        self.patience = patience
        self.seed = seed
        self.priors = priors
        self.flow = flow
        self.boundary = boundary
        self.names = names
        self.ignore = ignore
        self.channels = channels
        self.axes = axes
        self.workers = workers
        self.start = start
        self.network_minutes = network_minutes
        self.network_steps = network_steps

    def fit(
        self, X: Any, y: Any, *, probabilities: Any = None, mask: Any = None, validation: Any = None
    ) -> AssignmentFlow:
        """Learn from one image or a list of images.

        Parameters
        ----------
        X : (y, x), (c, y, x) or (y, x, c) array, or a list of them
        y : (y, x) label values, or a list of them
        probabilities : (J, y, x), or a list of them
        mask : (y, x), or a list of them
            Pixels where it is 0 are left out.
        validation : (X, y) or (X, y, probabilities), optional
            Validation set; by default there is cross-validation over X.
        """
        learned = self._pairs(X, y, probabilities, mask)
        others = [] if validation is None else self._pairs(*validation)
        given = self._chosen()
        data = training_run.Data(learned, others, given.pop("term", None), self.names, self.ignore)
        make = training_run.Recipe
        recipe = make(**given) if self.start is None else make.from_model(self.start, **given)
        with opening.open_pool(self.workers, None, None) as pool:
            self.model_ = training_run.train(data, recipe, pool)
        self.classes_ = np.array([one.values[0] for one in self.model_.classes], np.int64)
        return self

    def _chosen(self) -> dict[str, Any]:
        """The data term and the settings of the recipe that are not left at their defaults."""
        usual = type(self)().get_params()
        keys = [
            *("term", "neighborhood", "time", "rho", "tol", "loss", "features"),
            *("predictor_size", "steps", "patience", "seed", "priors", "flow", "boundary"),
            *("network_minutes", "network_steps"),
        ]
        given = {k: getattr(self, k) for k in keys}
        if self.prototypes:
            given["predictor_size"] = self.prototypes
        plain = (int, float, str)
        return {
            k: v
            for k, v in given.items()
            if v is not usual[k] and not (isinstance(v, plain) and v == usual[k])
        }

    def _pairs(self, X: Any, y: Any, probabilities: Any = None, mask: Any = None) -> Any:
        return examples.pair(X, y, probabilities, mask, axes=self.axes, channels=self.channels)

    def predict(self, X: Any, *, probabilities: Any = None, mask: Any = None) -> Any:
        """Label values of an image, or of a list of images; 0 where masked out."""
        check_is_fitted(self)
        if isinstance(X, list | tuple):
            others = [[None] * len(X) if o is None else o for o in (probabilities, mask)]
            return [
                self.predict(x, probabilities=p, mask=m) for x, p, m in zip(X, *others, strict=True)
            ]
        labels = label(
            X,
            model=self.model_,
            probabilities=probabilities,
            mask=mask,
            axes=self.axes,
            channels=self.channels,
            workers=self.workers,
        )
        return np.concatenate([[0], self.classes_])[labels]

    def score(self, X: Any, y: Any, *, probabilities: Any = None) -> float:
        """Share of the labeled pixels that are given their true class."""
        found = self.predict(X, probabilities=probabilities)
        if not isinstance(found, list):
            found, y = [found], [y]
        right = count = 0
        for labels, truth in zip(found, y, strict=True):
            target = examples.targets(np.asarray(truth), self.model_.classes)
            right += int(
                (examples.targets(labels, self.model_.classes) == target)[target > 0].sum()
            )
            count += int((target > 0).sum())
        return right / count
