"""R9 with networks: the protocol, shared by the test and by the benchmark.

Straight faces, every image standardised, split by person. Noise and shifts are those of
``CHOICES`` with the best accuracy on held-out people; where a network looks played no
part. All choices are in ``benchmarks/results/networks.json``.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from sklearn.model_selection import StratifiedGroupKFold
from torch import nn

from agop import NetworkAGOP, RFMClassifier
from agop.datasets import load_cmu_faces

SHAPE = (30, 32)


@dataclass(frozen=True)
class Faces:
    """Standardised images, whether with sunglasses, of whom, and the eye box."""

    X: np.ndarray
    y: np.ndarray
    person: np.ndarray
    box: np.ndarray

    def folds(self):
        splitter = StratifiedGroupKFold(5, shuffle=True, random_state=0)
        return list(splitter.split(self.X, self.y, self.person))

    def share(self, importances):
        """Of the trace of the AGOP, what lies in the box."""
        return float(importances[self.box].sum())


def load_faces(path):
    X, y, person, mask = load_cmu_faces(path)
    X = (X - X.mean(1, keepdims=True)) / X.std(1, keepdims=True)
    return Faces(X.astype(np.float32), y, person, mask.ravel())


def cnn():
    """Two convolutions and 2,273 weights."""
    return nn.Sequential(
        nn.Unflatten(1, (1, *SHAPE)),
        nn.Conv2d(1, 8, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 7 * 8, 1),
    )


def mlp():
    """One hidden layer and 61,569 weights."""
    return nn.Sequential(nn.Linear(960, 64), nn.ReLU(), nn.Linear(64, 1))


@dataclass(frozen=True)
class Recipe:
    """A network, and how it is trained.

    Every batch is shifted by at most `shift` pixels, and gets noise of that standard
    deviation; that of an image is 1.
    """

    make: Callable[[], nn.Module]
    n_epochs: int
    noise: float
    shift: int

    def fit(self, X, y, seed):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = self.make()
            self._train(network, torch.from_numpy(X), torch.from_numpy(y).float())
        return network.eval()

    def _train(self, network, X, y):
        optimizer = torch.optim.AdamW(network.parameters())
        for _ in range(self.n_epochs):
            for rows in torch.randperm(len(X)).split(32):
                logits = network(self._augmented(X[rows]))[:, 0]
                loss = nn.functional.binary_cross_entropy_with_logits(logits, y[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    def _augmented(self, x):
        moves = torch.randint(-self.shift, self.shift + 1, (2,)).tolist()
        moved = x.unflatten(1, SHAPE).roll(moves, (1, 2)).flatten(1)
        return moved + self.noise * torch.randn(x.shape)


CNN = Recipe(cnn, n_epochs=40, noise=0.5, shift=1)
MLP = Recipe(mlp, n_epochs=100, noise=2.0, shift=1)
RECIPES = {"cnn": CNN, "mlp": MLP}
CHOICES = [(noise, shift) for shift in (0, 1) for noise in (0.0, 0.5, 1.0, 2.0)]


@dataclass(frozen=True)
class Outcome:
    """Of one model on one fold."""

    accuracy: float  # on people it was not trained on
    share: float  # of the diagonal of its AGOP on the training images, in the box
    importances: np.ndarray


def network_outcomes(faces, recipe, seed=0, *, shuffled=False):
    """One network for each fold; the training labels can be shuffled first."""
    generator = np.random.default_rng(seed)
    for train, test in faces.folds():
        y = generator.permutation(faces.y[train]) if shuffled else faces.y[train]
        network = recipe.fit(faces.X[train], y, seed)
        with torch.no_grad():
            positive = network(torch.from_numpy(faces.X[test]))[:, 0] > 0
        accuracy = np.mean(positive.numpy() == faces.y[test])
        importances = network_importances(network, faces.X[train])
        yield Outcome(float(accuracy), faces.share(importances), importances)


def network_importances(network, X):
    """Shares of the pixels in the trace of the AGOP."""
    return NetworkAGOP(network, kind="diagonal").fit(X).feature_importances_


def machine_outcomes(faces, *, shuffled=False):
    """One recursive feature machine, with its defaults, for each fold."""
    generator = np.random.default_rng(0)
    for train, test in faces.folds():
        y = generator.permutation(faces.y[train]) if shuffled else faces.y[train]
        model = RFMClassifier(kernel="laplace", random_state=0).fit(faces.X[train], y)
        accuracy = model.score(faces.X[test], faces.y[test])
        importances = model.feature_importances_
        yield Outcome(accuracy, faces.share(importances), importances)


def untrained_shares(faces, recipe, n_seeds):
    """Of networks as they are initialised."""
    untrained = replace(recipe, n_epochs=0)
    return [
        faces.share(network_importances(untrained.fit(faces.X, faces.y, seed), faces.X))
        for seed in range(n_seeds)
    ]
