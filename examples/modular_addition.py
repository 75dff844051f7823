"""A transformer that adds modulo 113, in plain torch: a network with a known answer.

One layer, four heads, 512 neurons, no normalisation; trained by the authors of
"Progress measures for grokking via mechanistic interpretability" (Nanda, Chan,
Lieberum, Smith and Steinhardt, ICLR 2023, arXiv:2301.05217). It adds by trigonometric
identities in a few frequencies. The file `models/mod_addition_transformer_p113.pt` is
expected under ``AGOP_DATA``.

The layers to look at are ``embedding`` (position 0 is a, 1 is b, 2 the sign "="),
``query``, ``key``, ``value``, ``mix``, ``hidden``, ``neurons`` and ``output``.
"""

import torch
from torch import nn

PRIME, N_HEADS = 113, 4  # token 113 is the sign "="


class ModularAddition(nn.Module):
    """From tokens (n, 3), which are a, b, "=", to the scores (n, 113) of the sums."""

    def __init__(self, dim=128, hidden=512):
        super().__init__()
        self.embedding = nn.Embedding(PRIME + 1, dim)
        self.position = nn.Parameter(torch.zeros(3, dim))
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.mix = nn.Linear(dim, dim, bias=False)
        self.hidden = nn.Linear(dim, hidden)
        self.neurons = nn.ReLU()
        self.back = nn.Linear(hidden, dim)
        self.output = nn.Linear(dim, PRIME, bias=False)

    def forward(self, tokens):
        x = self.embedding(tokens) + self.position
        last = x[:, -1]  # the only place that is read, and it sees all the others
        q = self.query(last).unflatten(1, (N_HEADS, 1, -1))  # (n, heads, 1, size)
        k, v = (
            layer(x).unflatten(2, (N_HEADS, -1)).transpose(1, 2)  # (n, heads, 3, size)
            for layer in (self.key, self.value)
        )
        weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        x = last + self.mix((weights @ v).flatten(1))
        return self.output(x + self.back(self.neurons(self.hidden(x))))


def load(path):
    """The trained network."""
    raw = torch.load(path, map_location="cpu", weights_only=True)["model"]
    raw = {name.removeprefix("blocks.0."): tensor for name, tensor in raw.items()}
    network = ModularAddition()
    weights = {
        "embedding.weight": raw["embed.W_E"].T,
        "position": raw["pos_embed.W_pos"],
        "query.weight": raw["attn.W_Q"].flatten(0, 1),
        "key.weight": raw["attn.W_K"].flatten(0, 1),
        "value.weight": raw["attn.W_V"].flatten(0, 1),
        "mix.weight": raw["attn.W_O"],
        "hidden.weight": raw["mlp.W_in"],
        "hidden.bias": raw["mlp.b_in"],
        "back.weight": raw["mlp.W_out"],
        "back.bias": raw["mlp.b_out"],
        "output.weight": raw["unembed.W_U"][:, :PRIME].T,
    }
    network.load_state_dict(weights)
    return network.eval()


def all_pairs():
    """Tokens (12769, 3) of every sum a + b, and its value modulo 113."""
    a, b = torch.cartesian_prod(torch.arange(PRIME), torch.arange(PRIME)).T
    return torch.stack([a, b, torch.full_like(a, PRIME)], 1), (a + b) % PRIME
