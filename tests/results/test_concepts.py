"""R18, method: concept directions in stories260K, judged on stories not fitted to.

Nothing is published for this network. What must hold is the statement of the paper:
the machine tells a concept at least as well as logistic regression and the difference
of means, and its direction steers the network towards the concept. All concepts, and
other numbers of tokens, are measured in benchmarks/results_concepts.py.
"""

from dataclasses import replace

import numpy as np
import pytest

from tests.results.stories import (
    CONCEPTS,
    TOKENS,
    Stories,
    Vocabulary,
    judge,
    steered,
    stories260k,
)

N_STORIES = 400
#: In units of the mean distance of activations from their mean. Further against a
#: direction a probability that is nearly 0 has nowhere to go.
STRENGTHS = (-0.5, -0.25, -0.1, 0, 0.1, 0.25, 0.5, 1)
HERE = ["the next token ends the sentence", "more about her than about him"]


@pytest.fixture(scope="module")
def folder(data_path):
    return data_path("models/stories260K")


@pytest.fixture(scope="module")
def words(folder):
    return Vocabulary(stories260k().Tokenizer(folder).pieces)


# ---------------------------------------------------------------------- the labels
def test_labels_of_a_text(words, folder):
    tokenizer = stories260k().Tokenizer(folder)
    text = 'Lily was sad. "Oh no, Tim!" She ran, and he sat.'
    tokens = np.array([tokenizer.encode(text)])
    pieces = [words.pieces[token] for token in tokens[0]]

    def labelled(name):
        chosen = CONCEPTS[name](words, tokens)[0]
        return [piece for piece, label in zip(pieces, chosen, strict=True) if label]

    def place(piece):
        return pieces.index(piece)

    assert labelled("the next token ends the sentence") == ["d", " Tim", "at"]
    assert labelled("the next token is a pronoun") == ['"', " and"]
    assert labelled("a comma in this sentence") == [
        *pieces[place(",") : place("!") + 1],
        *pieces[pieces.index(",", place("!")) :],
    ]
    assert labelled("inside a quotation") == pieces[place(' "') : place('"')]
    assert labelled("more about her than about him")[0] == " Lily"


# -------------------------------------------------------------------- what must hold
@pytest.fixture(scope="module")
def network(folder):
    return stories260k().load(folder)


@pytest.fixture(scope="module")
def samples(folder):
    return stories260k().load_samples(folder)


@pytest.fixture(scope="module")
def stories(network, samples):
    """Stories for training, and others."""
    return (
        Stories.read(network, samples[:N_STORIES]),
        Stories.read(network, samples[N_STORIES : 2 * N_STORIES]),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", HERE)
def test_machine_tells_and_steers_a_concept(name, stories, words, network, samples):
    """200 tokens with the concept and 200 without, as in the paper."""
    found = judge(CONCEPTS[name], *stories, words, n_train=400, n_test=2000)
    assert found["rfm"].auroc >= found["logistic"].auroc
    assert found["rfm"].auroc >= found["mean difference"].auroc

    unseen = samples[2 * N_STORIES :][:24, :64]
    mask = getattr(words, TOKENS[name])
    curve = steered(network, found["rfm"], unseen, mask, STRENGTHS)
    assert np.all(np.diff(curve) > 0)
    middle = STRENGTHS.index(0)
    assert curve[0] < curve[middle] / 2
    assert curve[-1] > 5 * curve[middle]

    # Steps of the same length in other directions do much less.
    generator = np.random.default_rng(0)
    changes = []
    for _ in range(4):
        direction = generator.standard_normal(64)
        other = Chosen(direction / np.linalg.norm(direction))
        random = replace(found["rfm"], concept=other)
        curve_there = steered(network, random, unseen, mask, (0, 1))
        changes.append(abs(curve_there[1] - curve_there[0]))
    assert max(changes) < (curve[-1] - curve[middle]) / 3


class Chosen:
    """A direction that was not found."""

    def __init__(self, direction):
        self.direction_ = direction


@pytest.mark.slow
def test_nothing_is_told_of_shuffled_labels(stories, words):
    generator = np.random.default_rng(0)

    def label(words, tokens):
        return generator.random(tokens.shape) < 0.5

    found = judge(label, *stories, words, n_train=200, n_test=2000)
    for judgement in found.values():
        assert abs(judgement.auroc - 0.5) < 0.06
