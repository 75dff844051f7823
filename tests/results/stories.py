"""Concepts in the stories of stories260K, and how directions for them are judged.

A concept is a label of every token of a story, from the text alone. Directions are
fitted to tokens of some stories; the layer is chosen by folds of these stories; other
stories say how good the choice is. No result is stated here.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.metrics import roc_auc_score

from agop import RFMClassifier
from agop.concepts import (
    ConceptDirection,
    LogisticDirection,
    MeanDifferenceDirection,
    PCADirection,
    concept_auroc,
)
from agop.concepts.base import Direction
from agop.networks.activations import activations
from agop.networks.effects import effect_curve

_PATH = Path(__file__).resolve().parents[2] / "examples" / "stories260k.py"

LAYERS = [f"layers.{index}" for index in range(5)]
#: Tokens of a story that are looked at, and the first that may be labelled.
N_TOKENS, FIRST = 128, 16

DIRECTIONS = {
    "rfm": ConceptDirection(
        RFMClassifier(kernel="laplace", metric="full", random_state=0)
    ),
    "logistic": LogisticDirection(),
    "mean difference": MeanDifferenceDirection(),
    "pca": PCADirection(),
}


def stories260k():
    """The example as a module."""
    specification = importlib.util.spec_from_file_location("stories260k", _PATH)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


# --------------------------------------------------------------------------- concepts
class Vocabulary:
    """Which tokens are what: boolean arrays of shape (512,).

    Parameters
    ----------
    pieces : list of bytes
    """

    def __init__(self, pieces):
        self.pieces = [piece.decode(errors="replace") for piece in pieces]
        self.end = self.words(".", "!", "?")
        self.quote = np.array(
            [piece.strip() in ('"', "“", "”") for piece in self.pieces]
        )
        self.comma = self.words(",")
        self.name = self.words("Lily", "Tim", "Timmy")
        self.she = self.words("she", "She", "her", "Lily")
        self.he = self.words("he", "He", "his", "Tim", "Timmy")
        self.pronoun = self.words("she", "She", "he", "He", "they", "They", "it")
        self.word = np.array([piece.startswith((" ", "\n")) for piece in self.pieces])

    def words(self, *words):
        return np.array([piece.strip() in words for piece in self.pieces])


def following(mask, tokens):
    """Whether the next token is one of those; of the last token nothing is said."""
    labels = np.zeros(tokens.shape, dtype=bool)
    labels[:, :-1] = mask[tokens[:, 1:]]
    return labels


def recently(mask, tokens, n=8):
    """Whether one of the last n tokens, this one included, is one of those."""
    counts = np.pad(mask[tokens].cumsum(1), ((0, 0), (n, 0)))
    return counts[:, n:] > counts[:, :-n]


def in_sentence_so_far(counted, words, tokens):
    """How many tokens of this sentence, up to this one, are counted."""
    begins = np.pad(words.end[tokens], ((0, 0), (1, 0)))[:, :-1]
    start = np.where(begins, np.arange(tokens.shape[1]), 0)
    start = np.maximum.accumulate(start, axis=1)
    totals = np.pad(counted.cumsum(1), ((0, 0), (1, 0)))
    return totals[:, 1:] - np.take_along_axis(totals, start, axis=1)


def ends_sentence_next(words, tokens):
    return following(words.end, tokens)


def begins_word_next(words, tokens):
    return following(words.word, tokens)


def pronoun_next(words, tokens):
    return following(words.pronoun, tokens)


def quotation_mark_next(words, tokens):
    return following(words.quote, tokens)


def more_about_her(words, tokens):
    return words.she[tokens].cumsum(1) > words.he[tokens].cumsum(1)


def name_recently(words, tokens):
    return recently(words.name, tokens)


def inside_quotation(words, tokens):
    return words.quote[tokens].cumsum(1) % 2 == 1


def comma_in_sentence(words, tokens):
    return in_sentence_so_far(words.comma[tokens], words, tokens) > 0


def long_sentence(words, tokens):
    return in_sentence_so_far(np.ones_like(tokens), words, tokens) > 12


#: What is labelled, by name; and the tokens that steering should bring, where the
#: concept is about what comes next.
CONCEPTS = {
    "the next token ends the sentence": ends_sentence_next,
    "the next token begins a word": begins_word_next,
    "the next token is a pronoun": pronoun_next,
    "the next token is a quotation mark": quotation_mark_next,
    "more about her than about him": more_about_her,
    "a name among the last 8 tokens": name_recently,
    "inside a quotation": inside_quotation,
    "a comma in this sentence": comma_in_sentence,
    "more than 12 tokens in this sentence": long_sentence,
}
TOKENS = {
    "the next token ends the sentence": "end",
    "the next token begins a word": "word",
    "the next token is a pronoun": "pronoun",
    "the next token is a quotation mark": "quote",
    "more about her than about him": "she",
}


# ------------------------------------------------------------------------------- data
@dataclass
class Stories:
    """Tokens of some stories with what the layers make of them.

    Attributes
    ----------
    tokens : ndarray of shape (n_stories, N_TOKENS)
    layers : dict of ndarray of shape (n_stories, N_TOKENS, 64)
    """

    tokens: np.ndarray
    layers: dict

    @classmethod
    def read(cls, network, samples):
        tokens = samples[:, :N_TOKENS]
        found = activations(network, LAYERS, tokens, position="all", batch_size=16)
        return cls(tokens, found)

    def draw(self, labels, n, seed):
        """As many tokens with the concept as without, at random.

        Returns
        -------
        layers : dict of ndarray of shape (n, 64)
        y : ndarray of shape (n,)
        story : ndarray of shape (n,)
        """
        generator = np.random.default_rng(seed)
        places = [
            # The last token is left out: what follows it is not among the tokens.
            generator.permutation(np.argwhere(labels[:, FIRST:-1] == value))[: n // 2]
            for value in (False, True)
        ]
        story, position = np.concatenate(places).T
        position = position + FIRST
        layers = {name: array[story, position] for name, array in self.layers.items()}
        return layers, labels[story, position], story


# -------------------------------------------------------------------------- judgement
@dataclass
class Judgement:
    """One kind of direction for one concept.

    Attributes
    ----------
    layer : str
        Of the best mean AUROC over folds of the training stories.
    concept : Direction
        Fitted to the training stories at this layer.
    auroc, direction_auroc : float
        On the other stories: of the probe, and of the projection alone.
    spread : float
        Mean distance of the activations from their mean.
    """

    layer: str
    concept: Direction
    auroc: float
    direction_auroc: float
    spread: float


def judge(label, train, test, words, *, n_train, n_test, n_folds=3):
    """Fit every kind of direction to some stories and try it on others.

    Returns
    -------
    judgements : dict of Judgement
        By kind of direction.
    """
    X, y, story = train.draw(label(words, train.tokens), n_train, seed=0)
    X_test, y_test, _ = test.draw(label(words, test.tokens), n_test, seed=1)
    records = concept_auroc(X, y, story, estimators=DIRECTIONS, cv=n_folds)
    judgements = {}
    for name, layer in best_layers(records).items():
        concept = clone(DIRECTIONS[name]).fit(X[layer], y)
        evidence = concept.decision_function(X_test[layer])
        projection = concept.transform(X_test[layer])[:, 0]
        judgements[name] = Judgement(
            layer,
            concept,
            roc_auc_score(y_test, evidence),
            roc_auc_score(y_test, projection),
            np.linalg.norm(X[layer] - X[layer].mean(0), axis=1).mean(),
        )
    return judgements


def best_layers(records):
    """The layer of best mean AUROC over the folds, by kind of direction."""
    means = pd.DataFrame(records).groupby(["estimator", "layer"])["auroc"].mean()
    return means.unstack().idxmax(axis=1).to_dict()


def steered(network, judgement, tokens, mask, strengths):
    """Mean probability that one of the tokens comes next, by strength.

    Strengths are multiples of the spread of the activations at the layer.
    """

    def probability(logits):
        return logits[:, FIRST:].softmax(-1)[..., mask].sum(-1).mean(1)

    curve = effect_curve(
        network,
        judgement.layer,
        judgement.concept.direction_,
        tokens,
        np.asarray(strengths) * judgement.spread,
        outputs=probability,
        batch_size=16,
    )
    return curve.baseline[0] + curve.mean[:, 0]
