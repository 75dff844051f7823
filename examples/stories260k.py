"""A transformer of 260,000 weights that tells stories, in plain torch.

`stories260K` of the project llama2.c (MIT licence) is a Llama of five layers that was
trained on TinyStories: small enough to look inside in seconds, large enough to write
sentences. Its files are expected in one folder, ``models/stories260K`` under
``AGOP_DATA``: `stories260K.bin` (the weights), `tok512.bin` (the tokenizer) and
`self_samples_2048x256.npz` (tokens that the network wrote itself).

The parts to look at have names: ``layers.0`` … ``layers.4`` give the residual stream
after a layer, ``layers.0.attention`` and ``layers.0.feed_forward`` what the halves of a
layer add to it, and ``layers.0.feed_forward.gate`` the 172 neurons of the second half.
"""

import struct
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

N_HEADS, SHARED, EPSILON = 8, 2, 1e-5  # SHARED query heads use the same keys and values


def rotate(x):
    """Turn pair i of each head at position t by the angle t · 10000^(−2i / size)."""
    t, size = x.shape[-2:]
    rates = 10000.0 ** (-torch.arange(0, size, 2, device=x.device) / size)
    angles = torch.outer(torch.arange(t, device=x.device), rates).to(x.dtype)
    a, b, cos, sin = x[..., 0::2], x[..., 1::2], angles.cos(), angles.sin()
    return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)


class Attention(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim // SHARED, bias=False)
        self.value = nn.Linear(dim, dim // SHARED, bias=False)
        self.output = nn.Linear(dim, dim, bias=False)

    def forward(self, x):
        size = x.shape[-1] // N_HEADS
        parts = (self.query(x), self.key(x), self.value(x))
        q, k, v = (part.unflatten(-1, (-1, size)).transpose(1, 2) for part in parts)
        k, v = (part.repeat_interleave(SHARED, dim=1) for part in (rotate(k), v))
        scores = rotate(q) @ k.mT / size**0.5  # (n, N_HEADS, t, t)
        later = torch.ones_like(scores[0, 0], dtype=torch.bool).triu(1)
        heads = scores.masked_fill(later, -torch.inf).softmax(-1) @ v
        return self.output(heads.transpose(1, 2).flatten(-2))


class Gate(nn.Module):
    def forward(self, a, b):
        return F.silu(a) * b


class FeedForward(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.w1 = nn.Linear(dim, hidden, bias=False)
        self.w2 = nn.Linear(hidden, dim, bias=False)
        self.w3 = nn.Linear(dim, hidden, bias=False)
        self.gate = Gate()

    def forward(self, x):
        return self.w2(self.gate(self.w1(x), self.w3(x)))


class Layer(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.attention_norm = nn.RMSNorm(dim, EPSILON)
        self.attention = Attention(dim)
        self.feed_forward_norm = nn.RMSNorm(dim, EPSILON)
        self.feed_forward = FeedForward(dim, hidden)

    def forward(self, x):
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.feed_forward_norm(x))


class Llama(nn.Module):
    """From tokens (n, t) to logits (n, t, n_tokens) of the token that comes next."""

    def __init__(self, dim=64, hidden=172, n_layers=5, n_tokens=512):
        super().__init__()
        self.embedding = nn.Embedding(n_tokens, dim)
        self.layers = nn.Sequential(*(Layer(dim, hidden) for _ in range(n_layers)))
        self.norm = nn.RMSNorm(dim, EPSILON)

    def forward(self, tokens):
        x = self.layers(self.embedding(tokens))
        return F.linear(self.norm(x), self.embedding.weight)


def load(folder):
    """Read the weights: seven integers, then the matrices of one kind after the other.

    The two tables of rotary angles at the end of the file are not needed.
    """
    raw = Path(folder, "stories260K.bin").read_bytes()
    dim, hidden, n_layers, _, _, n_tokens, _ = struct.unpack("<7i", raw[:28])
    network = Llama(dim, hidden, n_layers, n_tokens)
    kinds = (
        "attention_norm attention.query attention.key attention.value attention.output "
        "feed_forward_norm feed_forward.w1 feed_forward.w2 feed_forward.w3"
    ).split()
    layered = [f"layers.{i}.{kind}" for kind in kinds for i in range(n_layers)]
    weights = torch.from_numpy(np.frombuffer(raw, "<f4", offset=28).copy())
    for name in ["embedding", *layered, "norm"]:
        weight = network.get_submodule(name).weight
        values, weights = weights.tensor_split([weight.numel()])
        weight.data = values.view_as(weight)
    return network.eval()


def load_samples(folder):
    """Tokens that the network wrote, of shape (2048, 256); each row is a story."""
    with np.load(Path(folder, "self_samples_2048x256.npz")) as file:
        return file["tokens"].astype(np.int64)


class Tokenizer:
    """Pieces of text by number: 0 to 2 are marks, 3 to 258 bytes, the others merges."""

    def __init__(self, folder):
        raw = Path(folder, "tok512.bin").read_bytes()
        self.pieces, self.scores, position = [], [], 4
        while position < len(raw):
            score, length = struct.unpack_from("<fi", raw, position)
            position += 8 + length
            self.scores.append(score)
            self.pieces.append(raw[position - length : position])
        self.pieces[:259] = [b""] * 3 + [bytes([value]) for value in range(256)]

    def decode(self, tokens):
        """The text of a sequence of tokens."""
        return b"".join(self.pieces[token] for token in tokens).decode(errors="replace")

    def encode(self, text):
        """The tokens of a text after the begin mark: the best pair is merged first."""
        known = {piece: token for token, piece in enumerate(self.pieces)}
        parts = []
        for piece in (character.encode() for character in " " + text):
            parts += [piece] if piece in known else [bytes([value]) for value in piece]
        while True:
            merged = [known.get(a + b) for a, b in pairwise(parts)]
            ranks = [(self.scores[t], -i) for i, t in enumerate(merged) if t]
            if not ranks:
                return [1, *(known[part] for part in parts)]
            start = -max(ranks)[1]
            parts[start : start + 2] = [parts[start] + parts[start + 1]]
