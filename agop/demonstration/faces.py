"""Drawn faces: which pixels a network uses to see glasses."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from agop.datasets import make_glasses_faces
from agop.inspection.displays import mosaic
from agop.inspection.overlays import OverlayDisplay
from agop.networks.estimator import NetworkAGOP
from agop.rfm.estimators import RFMClassifier

INTRODUCTION = """\
Two thousand drawn faces of 200 people, half of them with glasses: shades or thin
frames, dark or light. A small convolutional network learns to tell, on the first 100
people; it is tested on the others. Which pixels does it use? Where glasses can be is
known, {chance:.1%} of the pixels, and not told.
"""

N_EPOCHS = 20

_NETWORK = "convolutional network"
_SHUFFLED = "network, labels shuffled"
_UNTRAINED = "network, not trained"
_MACHINE = "recursive feature machine"
_LINEAR = "logistic regression"
_NETWORKS = (_NETWORK, _SHUFFLED, _UNTRAINED)

#: Of the picture: on the left faces without glasses and with them.
_LAYOUT = [
    ["bare 0", "dressed 0", _NETWORK, _NETWORK, _MACHINE, _MACHINE],
    ["bare 1", "dressed 1", _NETWORK, _NETWORK, _MACHINE, _MACHINE],
    ["bare 2", "dressed 2", _SHUFFLED, _SHUFFLED, _UNTRAINED, _UNTRAINED],
    ["bare 3", "dressed 3", _SHUFFLED, _SHUFFLED, _UNTRAINED, _UNTRAINED],
]


@dataclass(frozen=True)
class Result:
    """What one model does, and where it looks.

    Parameters
    ----------
    name : str
    accuracy : float
        On people whom it never saw.
    importances : ndarray of shape (n_pixels,)
        Share of each pixel in the trace of the AGOP.
    share : float
        Of the pixels where glasses can be.
    seconds : float
        Wall time of fit and AGOP.
    """

    name: str
    accuracy: float
    importances: np.ndarray
    share: float
    seconds: float


class FacesDemonstration:
    """Faces with and without glasses, and models that tell them apart.

    Parameters
    ----------
    n_samples : int, default=2000
        Half of them for training, half for the test.

    Attributes
    ----------
    results : dict of Result
        By name, after :meth:`lines`.
    """

    def __init__(self, n_samples: int = 2000):
        X, y, person, self.mask = make_glasses_faces(n_samples, 200, random_state=0)
        known = person < 100
        self.X, self.y = X[known], y[known]
        self.X_test, self.y_test = X[~known], y[~known]
        self.results: dict[str, Result] = {}

    def lines(self) -> Iterator[str]:
        """Train the network, its controls and other models, and tell.

        Yields
        ------
        str
        """
        chance = self.mask.mean()
        yield INTRODUCTION.format(chance=chance)
        yield f"{'':29}accuracy  AGOP where glasses are   seconds"
        for result in self._compare():
            self.results[result.name] = result
            yield (
                f"{result.name:29}{result.accuracy:8.1%}  {result.share:21.1%}  "
                f"{result.seconds:8.1f}"
            )
        network, linear = self.results[_NETWORK], self.results[_LINEAR]
        yield (
            f"\nThe network looks where glasses are: {network.share:.1%} of the trace "
            f"of its AGOP lies on\n{chance:.1%} of the pixels. A linear model hardly "
            f"sees them ({linear.accuracy:.0%}): they make a pixel\nlighter as often "
            "as darker."
        )

    def _compare(self) -> Iterator[Result]:
        shuffled = np.random.RandomState(0).permutation(self.y)
        models: dict[str, Callable[[], tuple[float, np.ndarray]]] = {
            _NETWORK: partial(self._network, self.y, N_EPOCHS),
            _SHUFFLED: partial(self._network, shuffled, N_EPOCHS),
            _UNTRAINED: partial(self._network, self.y, 0),
            _MACHINE: self._machine,
            _LINEAR: self._linear,
        }
        for name, examine in models.items():
            start = time.perf_counter()
            accuracy, importances = examine()
            seconds = time.perf_counter() - start
            share = float(importances[self.mask.ravel()].sum())
            yield Result(name, accuracy, importances, share, seconds)

    def _network(self, y, n_epochs: int) -> tuple[float, np.ndarray]:
        network = train(self.X, y, n_epochs)
        with torch.no_grad():
            logits = network(torch.as_tensor(self.X_test, dtype=torch.float32))
        accuracy = np.mean((logits[:, 0] > 0).numpy() == self.y_test)
        agop = NetworkAGOP(network, kind="diagonal").fit(self.X_test)
        return float(accuracy), agop.feature_importances_

    def _machine(self) -> tuple[float, np.ndarray]:
        model = RFMClassifier(kernel="laplace", metric="diagonal", random_state=0)
        model.fit(self.X, self.y)
        return model.score(self.X_test, self.y_test), model.feature_importances_

    def _linear(self) -> tuple[float, np.ndarray]:
        model = LogisticRegression(max_iter=1000).fit(self.X, self.y)
        squares = model.coef_[0] ** 2  # the diagonal of G = wwᵀ
        return model.score(self.X_test, self.y_test), squares / squares.sum()

    def draw(self):
        """Draw eight faces, and over one of them what counts for each model.

        Returns
        -------
        matplotlib.figure.Figure
        """
        figure, axes = mosaic(_LAYOUT, figsize=(11.5, 7.4))
        bare, dressed = (np.flatnonzero(self.y_test == label) for label in (0, 1))
        for row, names in enumerate(_LAYOUT):
            for name, index in zip(names, (bare[row], dressed[row]), strict=False):
                image = self.X_test[index].reshape(self.mask.shape)
                axes[name].imshow(image, cmap="gray")
                axes[name].set(xticks=[], yticks=[])
        axes["bare 0"].set_title("without")
        axes["dressed 0"].set_title("with glasses")
        for names in (_NETWORKS, [_MACHINE]):  # one scale of colours for each
            self._overlay(self.X_test[dressed[0]], names, [axes[n] for n in names])
        for name in (*_NETWORKS, _MACHINE):
            axes[name].contour(self.mask, levels=[0.5], colors="tab:blue")
        figure.suptitle(
            "Who wears glasses? Where models look, and where glasses can be",
            fontsize=14,
        )
        return figure

    def _overlay(self, face, names, axes):
        results = [self.results[name] for name in names]
        OverlayDisplay(
            np.repeat(face[None], len(results), axis=0),
            np.stack([result.importances for result in results]),
            [f"{result.name}: {result.share:.0%}" for result in results],
            self.mask.shape,
        ).plot(axes)


def train(X: np.ndarray, y: np.ndarray, n_epochs: int) -> nn.Module:
    """Train a network of two convolutions; without epochs, only initialise it.

    Parameters
    ----------
    X : ndarray of shape (n_samples, 1024)
        Images of 32 × 32 pixels.
    y : ndarray of shape (n_samples,)
        0 or 1.
    n_epochs : int

    Returns
    -------
    Module
        With one output, positive for 1.
    """
    inputs = torch.as_tensor(X, dtype=torch.float32)
    targets = torch.as_tensor(y, dtype=torch.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Unflatten(1, (1, 32, 32)),
            nn.Conv2d(1, 8, kernel_size=5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * 8 * 8, 1),
        )
        optimizer = torch.optim.Adam(network.parameters())
        for _ in range(n_epochs):
            for rows in torch.randperm(len(inputs)).split(32):
                logits = network(inputs[rows])[:, 0]
                loss = nn.functional.binary_cross_entropy_with_logits(
                    logits, targets[rows]
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return network
