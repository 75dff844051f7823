"""A Hugging Face transformer, built from a configuration, on tokens."""

import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from agop import NetworkAGOP
from tests.networks.references import assert_same, average, numerical_at

transformers = pytest.importorskip(
    "transformers", reason="transformers (of Hugging Face) is not installed"
)

VOCABULARY, WIDTH, LENGTH = 19, 8, 5

#: Of steps: activations are small, and layer norms make the network steep.
SIZE = 5e-5


@pytest.fixture(scope="module")
def network():
    configuration = transformers.GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=16,
        n_embd=WIDTH,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        network = transformers.GPT2LMHeadModel(configuration).double()
        for parameter in network.parameters():
            parameter.data *= 3  # further from a linear network
    return network.train()  # as it comes out of training


@pytest.fixture(scope="module")
def tokens():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, VOCABULARY, (3, LENGTH), generator=generator)


def logits(network, **given):
    was = network.training
    try:
        return network.eval()(**given).logits
    finally:
        network.train(was)


def reference(network, tokens, layer, part="output", outputs=None, **given):
    module = network.get_submodule(layer)
    width = {"transformer.h.0.mlp.c_fc": 4 * WIDTH}.get(layer, WIDTH)

    def function(ids):
        found = logits(network, input_ids=ids, **given)
        return found if outputs is None else outputs(found)

    shape = len(tokens[0]), width
    return numerical_at(function, tokens, module, shape, part, size=SIZE)


LAYERS = [
    "transformer.wte",
    "transformer.drop",
    "transformer.h.0",
    "transformer.h.0.mlp",
    "transformer.h.0.mlp.c_fc",
    "transformer.h.1:input",
    "transformer.h.1.attn",
    "transformer.ln_f",
    "lm_head:input",
]


def test_residual_stream_and_perceptrons_in_one_pass(network, tokens):
    found = NetworkAGOP(network, layers=LAYERS, n_probes=None).fit(tokens)
    assert set(found.kind_.values()) == {"full"}
    for name in LAYERS:
        layer, _, part = name.partition(":")
        J = reference(network, tokens, layer, part or "output")
        assert_same(found.agop_[name], average(J, "tokens"))
    assert network.training


@pytest.mark.parametrize("outputs", ["last", "predicted", "log_probability", "loss"])
def test_outputs(network, tokens, outputs):
    labels = tokens.roll(-1, 1)

    def selected(z):
        p = torch.log_softmax(z, -1).gather(-1, labels[..., None])[..., 0]
        return {
            "last": z[:, -1],
            "predicted": z.max(-1).values,
            "log_probability": p,
            "loss": -p,
        }[outputs]

    layer = "transformer.h.0"
    expected = average(reference(network, tokens, layer, outputs=selected), "tokens")
    model = NetworkAGOP(network, layers=[layer], outputs=outputs, n_probes=None)
    y = None if outputs in ("last", "predicted") else labels
    assert_same(model.fit(tokens, y).agop_[layer], expected)
    batch = {"input_ids": tokens, "labels": labels}  # not given to the network
    assert_same(model.fit(batch).agop_[layer], expected)


def test_padding(network, tokens):
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0]])
    layer = "transformer.h.0"
    keep = lambda z: z[:, 0]  # noqa: E731
    J = reference(network, tokens, layer, outputs=keep, attention_mask=mask)
    expected = average(J, "tokens", weights=mask.flatten().numpy())
    batch = {"input_ids": tokens, "attention_mask": mask}
    model = NetworkAGOP(network, layers=[layer], outputs=keep)
    assert_same(model.fit(batch).agop_[layer], expected)
    loader = DataLoader(
        [{name: rows[k] for name, rows in batch.items()} for k in range(3)],
        batch_size=2,
    )
    assert_same(model.fit(loader).agop_[layer], expected)
    shorter = [{"input_ids": tokens[1:2, :3]}, {"input_ids": tokens[2:, :2]}]
    parts = NetworkAGOP(network, layers=[layer], outputs=keep).fit(
        [{"input_ids": tokens[:1]}, *shorter]
    )
    assert_same(parts.agop_[layer], expected)  # as if they had not been padded
    np.testing.assert_allclose(
        parts.set_params(n_components=2).transform({"input_ids": tokens[1:2, :3]}),
        parts.transform({"input_ids": tokens[1:2], "attention_mask": mask[1:2]}),
        atol=1e-12,
    )


def test_one_position(network, tokens):
    layer = "transformer.h.1.mlp"
    J = reference(network, tokens, layer)
    model = NetworkAGOP(network, layers=[layer], positions=-1, n_probes=None)
    assert_same(model.fit(tokens).agop_[layer], average(J[:, :, -1]))


def test_embeddings_as_input(network, tokens):
    embedded = network.transformer.wte(tokens).detach()
    model = NetworkAGOP(network, positions="tokens", n_probes=None)
    found = model.fit({"inputs_embeds": embedded})
    J = reference(network, tokens, "transformer.wte")
    assert_same(found.agop_, average(J, "tokens"))


def test_what_is_returned(network, tokens):
    body = network.transformer
    layer = "h.0"
    found = NetworkAGOP(body, layers=[layer], n_probes=None).fit(tokens)
    named = NetworkAGOP(
        body, layers=[layer], output_key="last_hidden_state", n_probes=None
    ).fit(tokens)
    assert np.array_equal(found.agop_[layer], named.agop_[layer])
    batch = {"input_ids": tokens, "output_hidden_states": True, "use_cache": False}
    hidden = NetworkAGOP(
        network, layers=["transformer.h.0"], output_key="logits", n_probes=None
    ).fit(batch)
    expected = average(reference(network, tokens, "transformer.h.0"), "tokens")
    assert_same(hidden.agop_["transformer.h.0"], expected)
    with pytest.raises(ValueError, match="output_key='scores': the network returns a"):
        NetworkAGOP(network, layers=["lm_head:input"], output_key="scores").fit(tokens)
    with pytest.raises(ValueError, match=r"for example layers='transformer\.wte'"):
        NetworkAGOP(network).fit(tokens)


def test_one_backward_pass_for_each_dimension_of_the_head(network, tokens):
    """19 scores at each position come from 8 numbers."""
    layer = "transformer.h.1"
    rows = NetworkAGOP(
        network, layers=[layer], outputs="last", kind="rows", n_probes=None
    ).fit(tokens)
    factor = rows._survey.parts[layer].product.value()
    assert factor.shape == (WIDTH, 3 * LENGTH * WIDTH)


def test_precision_and_patterns(network, tokens):
    found = NetworkAGOP(
        network, layers="transformer.h.*.mlp", n_probes=None, dtype="float32"
    ).fit(tokens)
    exact = NetworkAGOP(network, layers="transformer.h.*.mlp", n_probes=None)
    exact.fit(tokens)
    assert list(found.agop_) == ["transformer.h.0.mlp", "transformer.h.1.mlp"]
    for name, G in exact.agop_.items():
        assert_same(found.agop_[name], G, 1e-4)
