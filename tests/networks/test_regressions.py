"""Cases in which results once were wrong: shared weights, patches, padding, merging."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import jacrev, vmap

from agop import NetworkAGOP, activations


def draws(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def seeded(build):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().double()


@pytest.mark.parametrize("kind", ["auto", "full", "diagonal", "rows", "low_rank"])
def test_training_on_does_not_change_what_was_fitted(kind):
    network = seeded(lambda: nn.Sequential(nn.Linear(9, 4), nn.Tanh(), nn.Linear(4, 2)))
    model = NetworkAGOP(network, kind=kind).fit(draws(30, 9))
    before = model.agop_.copy(), model.feature_importances_.copy(), model.trace_
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3)
    after = model.agop_, model.feature_importances_, model.trace_
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("channels", [4, 9])  # 9 is as wide as a patch
def test_bootstrap_of_patches(channels):
    network = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(1, channels, 3),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(16 * channels, 3),
        )
    )
    X = draws(200, 1, 6, 6)
    model = NetworkAGOP(network, layers="0:patch", n_components=2).fit(X)
    bootstrap = model.bootstrap(X, n_resamples=100)["0:patch"]
    low, high = bootstrap.eigenvalue_intervals(0.99)
    values = torch.tensor(model.eigenvalues_["0:patch"])
    assert bool(((low <= values) & (values <= high)).all())


class Reader(nn.Module):
    """Scores at every token, from it and the one before; says nothing of padding."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 5)
        self.mix = nn.Linear(5, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, input_ids, attention_mask=None):
        x = self.embed(input_ids)
        before = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)
        return self.head(torch.tanh(self.mix(x) + before))


def padded():
    """Two texts of 4 and 2 tokens, the second padded on the right."""
    ids = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]])
    return {
        "input_ids": ids,
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
    }


def each_alone(outputs):
    """Sum of JᵀJ over the tokens of texts without their padding, and their number."""
    network = seeded(Reader)
    total, count = 0, 0
    for ids in ([1, 2, 3, 4], [5, 6]):
        batch = {"input_ids": torch.tensor([ids])}
        model = NetworkAGOP(network, layers="embed", outputs=outputs)
        total = total + len(ids) * model.fit(batch).agop_["embed"]
        count += len(ids)
    return total / count


@pytest.mark.parametrize("outputs", ["all", "last", "probabilities", "predicted", 1])
def test_padding_is_neither_input_nor_output(outputs):
    model = NetworkAGOP(seeded(Reader), layers="embed", outputs=outputs).fit(padded())
    np.testing.assert_allclose(model.agop_["embed"], each_alone(outputs), atol=1e-12)


def test_a_kept_position_that_is_padding_is_refused():
    model = NetworkAGOP(seeded(Reader), layers="embed", positions=-1)
    with pytest.raises(ValueError, match="Pad on the other side"):
        model.fit(padded())


def test_mean_activations_leave_padding_out():
    found = activations(seeded(Reader), "embed", padded())
    alone = activations(seeded(Reader), "embed", {"input_ids": torch.tensor([[5, 6]])})
    np.testing.assert_allclose(found[1], alone[0], atol=1e-12)


@pytest.mark.parametrize(
    "other", [{"outputs": 1}, {"center": True}, {"positions": "flatten"}]
)
def test_answers_to_other_questions_are_not_merged(other):
    network = seeded(lambda: nn.Linear(4, 3))
    X = draws(20, 4)
    first = NetworkAGOP(network, kind="full", outputs=0).fit(X)
    parameters = {"kind": "full", "outputs": 0, **other}
    with pytest.raises(ValueError, match="same question"):
        first.merge(NetworkAGOP(network, **parameters).fit(X))


def test_all_gradients_are_not_kept_for_ever():
    network = seeded(
        lambda: nn.Sequential(nn.Linear(600, 700), nn.Tanh(), nn.Linear(700, 2))
    )
    X = draws(300, 600)
    model = NetworkAGOP(network).fit(X[:4])
    assert model.kind_ == "rows"
    assert model.partial_fit(X[4:]).kind_ == "full"
    rows = vmap(jacrev(network))(X)
    expected = torch.einsum("nkd,nke->de", rows, rows) / len(X)
    np.testing.assert_allclose(model.agop_, expected.detach(), atol=1e-12)


def test_unfitted_attributes_say_so():
    with pytest.raises(AttributeError, match="not fitted yet"):
        NetworkAGOP(torch.sin).agop_  # noqa: B018 (asking is the test)
