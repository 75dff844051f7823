"""What of a network's output is differentiated, against formulas written out."""

import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from agop import NetworkAGOP
from agop.networks.outputs import needs_target, pick_output, selection_of
from tests.networks.nets import Scalar, Text, mlp, numbers, seeded
from tests.networks.references import assert_same, average, rowwise

Y = torch.tensor([0, 2, 1, 1, 0])
NUMBERS = numbers(5, 3, seed=4)


def selected(outputs, output, target=None):
    return selection_of(outputs, owner="Test")(output, target)


# ------------------------------------------------------------------------ selections
def chosen_by_loops(name, z, y):
    """One number, or one list of numbers, for each row."""
    rows = []
    for row, label in zip(z, y, strict=True):
        p = torch.exp(row) / torch.exp(row).sum()
        others = torch.stack([row[k] for k in range(len(row)) if k != label])
        rows.append(
            {
                "all": row,
                "probabilities": p,
                "label": row[label],
                "predicted": row.max(),
                "log_probability": torch.log(p[label]),
                "margin": row[label] - others.max(),
                "loss": -torch.log(p[label]),
            }[name]
        )
    return torch.stack(rows).reshape(len(rows), -1)


CLASSES = [
    "all",
    "probabilities",
    "label",
    "predicted",
    "log_probability",
    "margin",
    "loss",
]


@pytest.mark.parametrize("name", CLASSES)
def test_values_for_classes(name):
    z = numbers(5, 4)
    torch.testing.assert_close(selected(name, z, Y), chosen_by_loops(name, z, Y))
    floats = Y.double()  # as they come from some files
    if name != "loss":
        torch.testing.assert_close(
            selected(name, z, floats), chosen_by_loops(name, z, Y)
        )


@pytest.mark.parametrize("name", CLASSES)
def test_gradients_for_classes(name):
    network, X = seeded(mlp), numbers(5, 6)
    found = NetworkAGOP(network, outputs=name, kind="full").fit(X, Y).agop_
    rows = [
        rowwise(lambda x, y=y: chosen_by_loops(name, network(x), y[None]), x[None])
        for x, y in zip(X, Y, strict=True)
    ]
    assert_same(found, average(np.concatenate(rows)))


def test_the_squared_error():
    network, X = seeded(mlp), numbers(5, 6)
    found = NetworkAGOP(network, outputs="loss", kind="full").fit(X, NUMBERS).agop_
    rows = [
        rowwise(lambda x, y=y: (network(x) - y).square().sum(1, True) / 2, x[None])
        for x, y in zip(X, NUMBERS, strict=True)
    ]
    assert_same(found, average(np.concatenate(rows)))
    network = seeded(Scalar)
    numbers_of_one = NUMBERS[:, 0]
    for y in (numbers_of_one, numbers_of_one[:, None], numbers_of_one.float()):
        again = NetworkAGOP(network, outputs="loss").fit(X, y).trace_
        rows = [
            rowwise(lambda x, t=t: (network(x) - t).square() / 2, x[None])
            for x, t in zip(X, numbers_of_one, strict=True)
        ]
        expected = np.trace(average(np.concatenate(rows)))
        np.testing.assert_allclose(again, expected, rtol=1e-6)


def test_indices():
    network, X = seeded(mlp), numbers(5, 6)
    J = rowwise(network, X)
    for outputs, rows in {
        1: [1],
        -1: [2],
        (0, 2): [0, 2],
        range(2): [0, 1],
        (0, 0): [0, 0],
    }.items():
        found = NetworkAGOP(network, outputs=outputs, kind="full").fit(X).agop_
        assert_same(found, average(J[:, rows]))
    for outputs in ([0, 2], np.array([0, 2]), [np.int64(0), 2]):
        found = NetworkAGOP(network, outputs=outputs, kind="full").fit(X).agop_
        assert_same(found, average(J[:, [0, 2]]))


def test_functions():
    network, X = seeded(mlp), numbers(5, 6)
    J = rowwise(network, X)

    def agop(outputs, y=None):
        return NetworkAGOP(network, outputs=outputs, kind="full").fit(X, y).agop_

    assert_same(
        agop(lambda z: z[:, 0] + 2 * z[:, 1]), average(J[:, :1] + 2 * J[:, 1:2])
    )
    assert_same(agop(lambda z: z[:, :2, None]), average(J[:, :2]))
    assert_same(agop(lambda z, scale=2: scale * z), 4 * average(J))
    rows = np.stack([J[i, Y[i]] for i in range(5)])[:, None]
    assert_same(agop(lambda z, y: z[range(len(y)), y], Y), average(rows))
    loss = nn.CrossEntropyLoss(reduction="none")
    assert needs_target(loss)
    expected = NetworkAGOP(network, outputs="loss", kind="full").fit(X, Y).agop_
    assert_same(agop(loss, Y), expected)
    assert_same(agop(nn.Softmax(1)), agop("probabilities"))


def test_which_need_targets():
    for outputs in ("label", "log_probability", "margin", "loss", lambda z, y: z):
        assert needs_target(outputs)
    for outputs in ("all", "last", "probabilities", "predicted", 0, [0], lambda z: z):
        assert not needs_target(outputs)


def test_one_logit():
    z = numbers(5, 1)
    torch.testing.assert_close(selected("probabilities", z), 1 / (1 + torch.exp(-z)))
    assert torch.equal(selected("predicted", z), z)
    for name in ("label", "log_probability", "margin", "loss"):
        with pytest.raises(ValueError, match="needs a score for each class"):
            selected(name, z, torch.zeros(5, dtype=torch.long))


def test_ties_have_one_winner():
    z = torch.zeros(2, 3, requires_grad=True)
    for name in ("predicted", "margin"):
        target = torch.tensor([2, 0])
        (gradient,) = torch.autograd.grad(selected(name, z, target).sum(), z)
        expected = {
            "predicted": [[1, 0, 0], [1, 0, 0]],
            "margin": [[-1, 0, 1], [1, -1, 0]],
        }[name]
        assert torch.equal(gradient, torch.tensor(expected).float())


def test_sequences():
    z = numbers(4, 5, 3)
    y = torch.arange(20).view(4, 5) % 3
    assert torch.equal(selected("last", z), z[:, -1])
    assert torch.equal(selected("all", z), z.view(4, 15))
    expected = z.gather(2, y[..., None])[..., 0]
    assert torch.equal(selected("label", z, y), expected)
    assert selected("loss", z, y).shape == (4, 5)
    with pytest.raises(ValueError, match="'last' is for sequences"):
        selected("last", z[0])


@pytest.mark.parametrize(
    ("outputs", "target", "message"),
    [
        ("label", None, "outputs='label' needs the targets: pass y to fit"),
        ("loss", None, "outputs='loss' needs the targets"),
        (lambda z, y: z, None, "needs the targets"),
        ("label", torch.tensor([0, 1, 2, 3, 0]), r"classes 0 … 2; got 0 … 3"),
        ("margin", torch.tensor([0, 1, -1, 2, 0]), r"classes 0 … 2; got -1 … 2"),
        ("loss", torch.tensor([0, 1, 2, 3, 0]), "outputs='loss': targets must be"),
        ("label", Y + 0.5, "needs classes as targets; these are not whole numbers"),
        ("label", Y[:, None], r"targets of shape \(5, 1\) do not fit"),
        ("loss", Y + 0.5, r"targets of shape \(5,\) do not fit an output of"),
        ("loss", NUMBERS[:, :2], r"targets of shape \(5, 2\) do not fit an output of"),
        ([0, 3], None, r"outputs=\[0, 3\] does not fit a network with 3 outputs"),
        (-4, None, r"does not fit a network with 3 outputs"),
        (lambda z: z.sum(), None, "for each of the 5 samples .no sum"),
        (lambda z: z.mean(0), None, r"it returned \(3,\)"),
        (lambda z: z.detach().numpy(), None, r"it returned \(5, 3\)"),
        (lambda z: None, None, "it returned NoneType"),
    ],
)
def test_what_does_not_fit(outputs, target, message):
    with pytest.raises(ValueError, match=message):
        selected(outputs, numbers(5, 3), target)


@pytest.mark.parametrize(
    "outputs", ["every", None, True, [], [0.5], [True], 1.0, [[0]], {"a": 1}, ["0"]]
)
def test_unknown_outputs(outputs):
    with pytest.raises(ValueError, match="The 'outputs' parameter of Test must be"):
        selection_of(outputs, owner="Test")
    with pytest.raises(TypeError):
        selection_of(outputs, owner="Test")


@pytest.mark.parametrize("outputs", ["all", "margin", 1, [0, 2], nn.Softmax(1)])
def test_selections_can_be_pickled(outputs):
    """F56: a fitted estimator holds one."""
    z = numbers(5, 3)
    again = pickle.loads(pickle.dumps(selection_of(outputs, owner="Test")))
    assert torch.equal(again(z, Y), selected(outputs, z, Y))


# ------------------------------------------------------------- what a network returns
@dataclass
class Output:
    hidden: object
    logits: object = None


Z = numbers(4, 3)
H = numbers(4, 7)


@pytest.mark.parametrize(
    ("returned", "key"),
    [
        (Z, None),
        ((Z, None), None),
        ((torch.arange(4), Z, "text"), None),
        ({"logits": Z, "hidden": H}, None),
        ({"y": Z, "tokens": torch.arange(4)}, None),
        (Output(H, Z), None),
        (Output(Z), None),
        ((H, Z), 1),
        ((H, Z), -1),
        ([H, Z], 1),
        ({"a": H, "b": Z}, "b"),
        (Output(Z, H), "hidden"),
        (Output(Z, H), lambda out: out.hidden),
        (({"a": [H, Z]},), lambda out: out[0]["a"][1]),
        ({"a": H, 0: Z}, 0),
    ],
)
def test_the_output_is_picked(returned, key):
    assert pick_output(returned, key) is Z


@pytest.mark.parametrize(
    ("returned", "key", "message"),
    [
        ((Z, H), None, "returns a tuple of length 2. Say with output_key="),
        ({"a": Z, "b": H}, None, "returns a dict with 'a', 'b'"),
        (Output(Z.long(), None), None, "returns a Output with 'hidden', 'logits'"),
        (None, None, "returns a NoneType with no tensors"),
        ({}, None, "returns a dict with no tensors"),
        ((Z, H), 2, "output_key=2: the network returns a tuple of length 2"),
        ({"a": Z}, "b", "output_key='b': the network returns a dict with 'a'"),
        ({"a": Z}, ["a"], "the network returns a dict with 'a'"),
        ((Z, None), 1, "output_key=1 gives a NoneType, not a tensor"),
        (Z, 0, "returns one tensor, which is the output"),
        (Z, "logits", "returns one tensor, which is the output"),
        ((Z, H), lambda out: out, "gives a tuple, not a tensor"),
    ],
)
def test_nf_what_cannot_be_picked(returned, key, message):
    """Nf: an error that lists the keys or the length."""
    with pytest.raises(ValueError, match=message):
        pick_output(returned, key)


def test_nf_through_the_front_door():
    body, X = seeded(mlp), numbers(5, 6)
    expected = NetworkAGOP(body, kind="full").fit(X).agop_
    for function, key in [
        (lambda x: {"logits": body(x), "other": x}, None),
        (lambda x: (body(x), x), 0),
        (lambda x: Output(x, body(x)), "logits"),
    ]:
        found = NetworkAGOP(function, output_key=key, kind="full").fit(X).agop_
        assert_same(found, expected, 1e-12)
    with pytest.raises(ValueError, match="tuple of length 2"):
        NetworkAGOP(lambda x: (body(x), x)).fit(X)


# ------------------------------------------------------------- shapes of the output
def test_outputs_of_many_dimensions():
    network = seeded(Text).eval()
    tokens = torch.arange(10).view(2, 5)
    every = NetworkAGOP(network, layers=["embed"], n_probes=None).fit(tokens)
    parts = [
        NetworkAGOP(network, layers=["embed"], outputs=lambda z, t=t: z[:, t])
        .fit(tokens)
        .agop_["embed"]
        for t in range(5)
    ]
    assert_same(every.agop_["embed"], sum(parts), 1e-9)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.sum(),
        lambda x: x.sum(0),
        lambda x: x.T,
        lambda x: torch.cat([x, x]),
        lambda x: x[:1],
    ],
)
def test_a_row_for_each_sample_is_needed(function):
    with pytest.raises(ValueError, match="one row for each is needed"):
        NetworkAGOP(function).fit(numbers(5, 6))


def test_complex_outputs_are_refused():
    """Autograd would silently give the derivative of the real part."""
    for function in (torch.fft.rfft, lambda x: {"logits": torch.complex(x, x)}):
        with pytest.raises(ValueError, match="The output is complex"):
            NetworkAGOP(function).fit(numbers(5, 6))
    found = NetworkAGOP(lambda x: torch.view_as_real(torch.fft.rfft(x)), kind="full")
    basis = np.fft.rfft(np.eye(6))
    expected = (basis @ basis.conj().T).real
    assert_same(found.fit(numbers(5, 6)).agop_, expected)
