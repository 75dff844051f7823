"""Small networks of every kind, in float64, with fixed weights and fixed data."""

import warnings

import torch
from torch import nn


def seeded(build, *args, **kwargs):
    """Build with weights of its own generator state; the global one stays."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(*args, **kwargs).double()


def numbers(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def mlp(n_features=6, n_outputs=3, width=8):
    return nn.Sequential(
        nn.Linear(n_features, width),
        nn.Tanh(),
        nn.Linear(width, 5),
        nn.SiLU(),
        nn.Linear(5, n_outputs),
    )


def narrow():
    """Its first layer has fewer outputs than inputs."""
    return mlp(width=4)


def wide_head():
    """More outputs than the last layer has inputs."""
    return mlp(n_outputs=9)


def cnn():
    network = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(6 * 2 * 2, 3),
    )
    norm = network[1]
    norm.running_mean.uniform_(-0.3, 0.3)
    norm.running_var.uniform_(0.5, 2)
    nn.init.uniform_(norm.weight, 0.5, 2)
    return network.eval()


class Recurrent(nn.Module):
    def __init__(self, kind=nn.LSTM):
        super().__init__()
        self.rnn = kind(3, 5, batch_first=True)
        self.head = nn.Linear(5, 2)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


class Encoder(nn.Module):
    """nn.TransformerEncoder, whose fast path in eval mode calls no hooks."""

    def __init__(self, norm_first=False):
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            4, 2, 8, batch_first=True, activation="gelu", norm_first=norm_first
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.encoder(x).mean(1))


class Reused(nn.Module):
    """One layer that is called three times."""

    def __init__(self):
        super().__init__()
        self.enter = nn.Linear(6, 4)
        self.again = nn.Linear(4, 4)
        self.leave = nn.Linear(4, 2)

    def forward(self, x):
        h = self.enter(x)
        for _ in range(3):
            h = torch.tanh(self.again(h))
        return self.leave(h)


class Tied(nn.Module):
    """The way out has the weights of the way in, transposed."""

    def __init__(self):
        super().__init__()
        self.enter = nn.Linear(6, 4)

    def forward(self, x):
        h = torch.tanh(self.enter(x))
        return nn.functional.linear(h, self.enter.weight.T)


class Shared(nn.Module):
    """Two layers with one and the same parameter."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 6)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


class Residual(nn.Module):
    """A connection around the first layer: the input acts in two ways."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 4)
        self.around = nn.Linear(6, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(torch.tanh(self.first(x)) + x[:, :4] ** 2)


class InPlace(nn.Module):
    """Writes to its input, and to what its layers return."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 4)
        self.second = nn.Linear(4, 3)

    def forward(self, x):
        x.mul_(2).add_(0.5)
        h = self.first(x)
        h.mul_(1.5)
        h += 0.5
        return self.second(h.tanh_())


class Scalar(nn.Module):
    """One number for each sample, without a dimension for it."""

    def __init__(self):
        super().__init__()
        self.body = mlp(n_outputs=1)

    def forward(self, x):
        return self.body(x).squeeze(1)


class Squares(torch.autograd.Function):
    """Of the old style, without setup_context: functorch refuses it."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 2 * x * gradient


class OldFunction(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 4)

    def forward(self, x):
        return Squares.apply(self.first(x))


class Branch(nn.Module):
    """Control flow that asks for a number."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 4)

    def forward(self, x):
        h = self.first(x)
        return torch.tanh(h) if h.abs().sum().item() > 0 else h


class Fourier(nn.Module):
    """Complex numbers inside."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(torch.fft.rfft(x).abs() + 0.1)


class Text(nn.Module):
    """Tokens in, a score for each token of a vocabulary at each position out."""

    def __init__(self, vocabulary=11, width=4):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.block = nn.TransformerEncoderLayer(width, 2, 8, batch_first=True)
        self.unembed = nn.Linear(width, vocabulary, bias=False)

    def forward(self, input_ids, attention_mask=None):
        hidden = None if attention_mask is None else attention_mask == 0
        h = self.block(self.embed(input_ids), src_key_padding_mask=hidden)
        return self.unembed(h)


def frozen():
    network = mlp()
    network.requires_grad_(False)
    return network


def scripted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(mlp())


#: Networks by name, and the shape of one sample.
NETWORKS = {
    "mlp": (mlp, (6,)),
    "narrow mlp": (narrow, (6,)),
    "wide head": (wide_head, (6,)),
    "frozen": (frozen, (6,)),
    "cnn": (cnn, (2, 8, 8)),
    "lstm": (Recurrent, (4, 3)),
    "gru": (lambda: Recurrent(nn.GRU), (4, 3)),
    "encoder": (Encoder, (5, 4)),
    "encoder, norm first": (lambda: Encoder(norm_first=True), (5, 4)),
    "reused": (Reused, (6,)),
    "tied": (Tied, (6,)),
    "shared": (Shared, (6,)),
    "residual": (Residual, (6,)),
    "in place": (InPlace, (6,)),
    "scalar": (Scalar, (6,)),
    "old function": (OldFunction, (6,)),
    "branch": (Branch, (6,)),
    "fourier": (Fourier, (6,)),
    "scripted": (scripted, (6,)),
}

#: Those that functorch cannot do.
NOT_FOR_FUNCTORCH = ("lstm", "gru", "old function", "branch", "in place", "scripted")


def network_and_data(name, n_samples=5):
    build, shape = NETWORKS[name]
    return seeded(build).eval(), numbers(n_samples, *shape)
