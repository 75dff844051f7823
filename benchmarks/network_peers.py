"""Those who compute AGOPs of networks in `network_agop`: us, loops, other libraries."""

import numpy as np
import torch
from torch.func import jacrev, vmap

from agop import NetworkAGOP

BATCH = 256


# ------------------------------------------------------------------ G at the input
def agop(network, X, layers):
    """The estimator; the matrices are formed."""
    if layers is None:
        return [NetworkAGOP(network, n_probes=None).fit(X).agop_]
    model = NetworkAGOP(network, layers=list(layers), n_probes=None).fit(X)
    return [model.agop_[layer] for layer in layers]


def loop(network, X, layers):
    """One ``autograd.grad`` for each output, parameters frozen; one product a batch."""
    network.requires_grad_(False)
    total = 0
    for batch in X.split(BATCH):
        given = batch.clone().requires_grad_()
        output = network(given)
        rows = torch.stack(
            [
                torch.autograd.grad(column.sum(), given, retain_graph=True)[0]
                for column in output.T
            ],
            1,
        )
        rows = rows.reshape(-1, given[0].numel())
        total = total + rows.T @ rows
    return [(total / len(X)).numpy()]


def backward_loop(network, X, layers):
    """``backward`` for each output, as in tutorials: parameters get gradients too."""
    network.requires_grad_(True)
    total = 0
    for batch in X.split(BATCH):
        given = batch.clone().requires_grad_()
        output = network(given)
        rows = []
        for column in output.T:
            given.grad = None
            network.zero_grad()
            column.sum().backward(retain_graph=True)
            rows.append(given.grad.flatten(1))
        rows = torch.stack(rows, 1).reshape(-1, given[0].numel())
        total = total + rows.T @ rows
    network.requires_grad_(False)
    return [(total / len(X)).numpy()]


def functional(network, X, layers):
    """``vmap(jacrev)`` and one product a batch."""
    network.requires_grad_(False)
    jacobian = vmap(jacrev(lambda x: network(x[None])[0]))
    total = 0
    for batch in X.split(64):
        rows = jacobian(batch).reshape(-1, batch[0].numel())
        total = total + rows.T @ rows
    return [(total / len(X)).numpy()]


def captum(network, X, layers):
    """captum's Saliency for each target, then the products."""
    from captum.attr import Saliency

    saliency = Saliency(network)
    total = 0
    for batch in X.split(BATCH):
        rows = torch.stack(
            [
                saliency.attribute(batch.requires_grad_(), target=target, abs=False)
                for target in range(10)
            ],
            1,
        )
        rows = rows.detach().reshape(-1, batch[0].numel())
        total = total + rows.T @ rows
    return [(total / len(X)).numpy()]


class _Shifted(torch.nn.Module):
    """A network whose input is moved by a parameter: then the GGN is the AGOP."""

    def __init__(self, network, shape):
        super().__init__()
        self.network = network
        self.shift = torch.nn.Parameter(torch.zeros(shape))

    def forward(self, x):
        return self.network(x + self.shift)


def _ggn(network, X):
    from curvlinops import GGNLinearOperator

    network.requires_grad_(False)
    shifted = _Shifted(network, X.shape[1:])
    loss = torch.nn.MSELoss(reduction="sum")
    with torch.no_grad():
        data = [(batch, network(batch)) for batch in X.split(BATCH)]
    return GGNLinearOperator(
        shifted, loss, [shifted.shift], data, check_deterministic=False
    )


def curvlinops(network, X, layers):
    """The generalised Gauss-Newton matrix of an input shift, column by column: 2nG."""
    operator = _ggn(network, X)
    size = X[0].numel()
    columns = [
        operator @ torch.eye(size)[:, start : start + 64]
        for start in range(0, size, 64)
    ]
    return [(torch.cat(columns, 1) / (2 * len(X))).detach().numpy()]


def curvlinops_top(network, X, layers):
    """Ten eigenpairs of the same operator by scipy's Lanczos method."""
    from scipy.sparse.linalg import eigsh

    eigsh(_ggn(network, X).to_scipy(), k=10)


# ------------------------------------------------------------------- G at layers
def _hooked(network, X, layers, batch_size):
    """All layers in one pass: inputs kept, one gradient for each output."""
    network.requires_grad_(False)
    modules = dict(network.named_modules())
    kept, totals, counts = {}, {}, {}

    def keep(name):
        def hook(module, arguments):
            given = arguments[0]
            if not given.requires_grad:
                given = given.detach().requires_grad_()
            kept[name] = given
            return (given,)

        return hook

    handles = [
        modules[name.removesuffix(":input")].register_forward_pre_hook(keep(name))
        for name in layers
    ]
    try:
        for batch in X.split(batch_size):
            output = network(batch)
            tensors = [kept[name] for name in layers]
            for column in output.T:
                gradients = torch.autograd.grad(
                    column.sum(), tensors, retain_graph=True
                )
                for name, gradient in zip(layers, gradients, strict=True):
                    rows = _positions(gradient)
                    totals[name] = totals.get(name, 0) + rows.T @ rows
            for name, tensor in zip(layers, tensors, strict=True):
                counts[name] = counts.get(name, 0) + len(_positions(tensor))
    finally:
        for handle in handles:
            handle.remove()
    return [(totals[name] / counts[name]).numpy() for name in layers]


def _positions(tensor):
    """Channels of pixels, or features of tokens, as rows."""
    if tensor.ndim == 4:
        return tensor.permute(0, 2, 3, 1).reshape(-1, tensor.shape[1])
    return tensor.reshape(-1, tensor.shape[-1])


def hook_loop(network, X, layers):
    """The loop by hand with hooks, all layers in one pass."""
    return _hooked(network, X, layers, 32)


def layer_by_layer(network, X, layers):
    """The loop by hand, one pass for each layer."""
    return [_hooked(network, X, [layer], 32)[0] for layer in layers]


def agop_layer_by_layer(network, X, layers):
    """The estimator, one fit for each layer."""
    return [agop(network, X, (layer,))[0] for layer in layers]


CONTENDERS = {
    "agop": agop,
    "autograd.grad loop": loop,
    "backward loop": backward_loop,
    "vmap(jacrev)": functional,
    "captum": captum,
    "curvlinops": curvlinops,
    "curvlinops top 10": curvlinops_top,
}
LAYERWISE = {
    "agop": agop,
    "agop, layer by layer": agop_layer_by_layer,
    "loop with hooks": hook_loop,
    "loop, layer by layer": layer_by_layer,
}


# ------------------------------------------------------------- directions of wide data
def _of_kind(kind):
    def contender(network, X):
        model = NetworkAGOP(network, kind=kind, n_components=10).fit(X)
        np.asarray(model.components_)  # decomposed when asked for
        return model

    return contender


SKETCHES = {
    "agop low_rank": _of_kind("low_rank"),
    "all gradients": _of_kind("rows"),
    "full matrix": _of_kind("full"),
}
