"""Networks of every kind as torch modules, against finite differences."""

import copy
import functools
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import SelectKBest, VarianceThreshold, f_regression
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.random_projection import GaussianRandomProjection
from sklearn.tree import DecisionTreeRegressor
from torch import nn

from agop.networks.affine import Scaling
from agop.networks.sources import Function, as_module
from tests.devices import DEVICES

N, D = 60, 5
SPREAD = np.array([1e-2, 1.0, 10.0, 300.0, 1.0])
OFFSET = np.array([0.0, 5.0, -30.0, 1000.0, 0.1])


def data(seed=0):
    """Features of very different units, and a target with two columns."""
    Z = np.random.default_rng(seed).normal(size=(N, D))
    y = np.column_stack([np.tanh(Z[:, 0] + Z[:, 1]), Z[:, 2] * Z[:, 3]])
    return Z * SPREAD + OFFSET, y


def perceptron(kind=MLPRegressor, **settings):
    settings = {"hidden_layer_sizes": (6, 4), "max_iter": 30} | settings
    return kind(random_state=0, **settings)


def fit(model, X, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 30 iterations are not many
        return model.fit(X, y)


def jacobian(function, X):
    """By autograd, one output at a time."""
    X = torch.as_tensor(np.asarray(X)).requires_grad_()
    outputs = function(X)
    rows = [
        torch.autograd.grad(out.sum(), X, retain_graph=True)[0] for out in outputs.T
    ]
    return torch.stack(rows, dim=1).numpy()


def differences(predict, X):
    """By central finite differences, in the units of each feature."""
    columns = []
    for j in range(X.shape[1]):
        step = np.zeros(X.shape[1])
        step[j] = 1e-5 * X[:, j].std()
        up, down = predict(X + step), predict(X - step)
        columns.append((up - down).reshape(len(X), -1) / (2 * step[j]))
    return np.stack(columns, axis=2)


def agop(jacobian):
    return np.einsum("ncd,nce->de", jacobian, jacobian) / len(jacobian)


def close(actual, expected, rtol=1e-6):
    """Entry by entry, relative to the size of row and column of a matrix."""
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    assert (abs(actual - expected) <= rtol * scale).all()


# ---------------------------------------------------------------------- perceptrons
ACTIVATIONS = ["identity", "logistic", "tanh", "relu"]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_regressor(activation):
    X, y = data()
    model = fit(perceptron(activation=activation), X / SPREAD, y)
    module = as_module(model)
    X = X / SPREAD
    out = module(torch.from_numpy(X)).detach().numpy()
    np.testing.assert_allclose(out, model.predict(X), rtol=1e-10, atol=1e-12)
    close(agop(jacobian(module, X)), agop(differences(model.predict, X)))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_classifier_gives_scores(activation, n_classes):
    X, y = data()
    labels = np.digitize(y[:, 0], [0.0, 0.5][: n_classes - 1])
    X = X / SPREAD
    model = fit(perceptron(MLPClassifier, activation=activation), X, labels)
    module = as_module(model)
    scores = module(torch.from_numpy(X))

    def probabilities(X):
        scores = module(X)
        return scores.sigmoid() if n_classes == 2 else scores.softmax(-1)

    def predict(X):
        found = model.predict_proba(X)
        return found[:, 1:] if n_classes == 2 else found

    assert scores.shape == (N, 1 if n_classes == 2 else 3)
    np.testing.assert_allclose(
        probabilities(torch.from_numpy(X)).detach(), predict(X), rtol=1e-10
    )
    close(agop(jacobian(probabilities, X)), agop(differences(predict, X)))


def test_multilabel_classifier():
    X, y = data()
    X = X / SPREAD
    model = fit(perceptron(MLPClassifier), X, (y > 0).astype(int))
    probabilities = as_module(model)(torch.from_numpy(X)).sigmoid().detach()
    np.testing.assert_allclose(probabilities, model.predict_proba(X), rtol=1e-10)


@pytest.mark.skipif(
    "loss" not in MLPRegressor().get_params(), reason="scikit-learn has no such loss"
)
def test_poisson_regression_predicts_counts():
    X, y = data()
    X = X / SPREAD
    model = fit(perceptron(loss="poisson"), X, np.exp(y[:, 0]))
    out = as_module(model)(torch.from_numpy(X))[:, 0].detach()
    np.testing.assert_allclose(out, model.predict(X), rtol=1e-10)


def test_layers_have_names():
    X, y = data()
    names = [name for name, _ in as_module(fit(perceptron(), X, y)).named_children()]
    assert names == [
        "hidden0",
        "hidden0_activation",
        "hidden1",
        "hidden1_activation",
        "output",
    ]


def test_dtype_is_that_of_the_weights():
    X, y = data()
    model = fit(perceptron(), X.astype(np.float32), y.astype(np.float32))
    dtypes = {parameter.dtype for parameter in as_module(model).parameters()}
    assert dtypes == {torch.from_numpy(model.coefs_[0]).dtype} == {torch.float32}


def test_the_model_is_copied():
    X, y = data()
    model = fit(perceptron(hidden_layer_sizes=(1,)), X, y)
    before = copy.deepcopy((model.coefs_, model.intercepts_))
    with torch.no_grad():
        for parameter in as_module(model).parameters():
            parameter.add_(1)
    for old, new in zip(before, (model.coefs_, model.intercepts_), strict=True):
        assert all(map(np.array_equal, old, new))


# ------------------------------------------------------------------------ pipelines
AFFINE = {
    "StandardScaler": StandardScaler(),
    "StandardScaler, in place": StandardScaler(copy=False),
    "MinMaxScaler": MinMaxScaler(),
    "MaxAbsScaler": MaxAbsScaler(),
    "RobustScaler": RobustScaler(),
    "PCA": make_pipeline(StandardScaler(), PCA(3)),
    "PCA, whitened": PCA(whiten=True),
    "TruncatedSVD": make_pipeline(MaxAbsScaler(), TruncatedSVD(3, random_state=0)),
    "SelectKBest": make_pipeline(StandardScaler(), SelectKBest(f_regression, k=3)),
    "VarianceThreshold": make_pipeline(VarianceThreshold(1e-3), StandardScaler()),
    "random projection": make_pipeline(
        StandardScaler(), GaussianRandomProjection(4, random_state=0)
    ),
    "passthrough": make_pipeline("passthrough", StandardScaler(), "passthrough"),
    "FunctionTransformer": FunctionTransformer(lambda X: (X - OFFSET) / SPREAD),
    "FeatureUnion": FeatureUnion(
        [("a", StandardScaler()), ("b", make_pipeline(MinMaxScaler(), PCA(2)))]
    ),
    "ColumnTransformer": ColumnTransformer(
        [("a", StandardScaler(), [3, 0]), ("b", MinMaxScaler(), slice(2, 3))],
        remainder="passthrough",
    ),
}


@pytest.mark.parametrize("name", AFFINE)
def test_pipeline_in_the_units_of_the_user(name):
    X, y = data()
    model = make_pipeline(AFFINE[name], perceptron())
    fit(model, X.copy(), y[:, 0])
    module = as_module(model)

    def predict(X):
        return model.predict(X.copy())

    out = module(torch.from_numpy(X))[:, 0].detach()
    np.testing.assert_allclose(out, predict(X), rtol=1e-9, atol=1e-11)
    close(agop(jacobian(module, X)), agop(differences(predict, X)), rtol=1e-5)


def test_classifier_in_a_pipeline():
    X, y = data()
    model = make_pipeline(StandardScaler(), PCA(4), perceptron(MLPClassifier))
    fit(model, X, np.digitize(y[:, 0], [0.0, 0.5]))
    module = as_module(model)
    close(
        agop(jacobian(lambda X: module(X).softmax(-1), X)),
        agop(differences(model.predict_proba, X)),
        rtol=1e-5,
    )


def test_steps_are_layers_and_scalers_stay_diagonal():
    X, y = data()
    model = make_pipeline(StandardScaler(), PCA(3), perceptron())
    module = as_module(fit(model, X, y))
    kinds = {name: type(layer) for name, layer in module.named_modules()}
    assert kinds["standardscaler"] is Scaling
    assert kinds["pca"] is kinds["mlpregressor.hidden0"] is nn.Linear
    trained = {
        n.partition(".")[0]: p.requires_grad for n, p in module.named_parameters()
    }
    assert trained == {"standardscaler": False, "pca": False, "mlpregressor": True}


@pytest.mark.parametrize("columns", [["a", "c"], [0, 2]])
def test_data_frames_and_names_of_columns(columns):
    X, y = data()
    table = pd.DataFrame(X, columns=list("abcde"))
    choice = ColumnTransformer([("some", StandardScaler(), columns)])
    model = make_pipeline(choice, MinMaxScaler(), perceptron())
    fit(model.set_output(transform="pandas"), table, y)
    out = as_module(model)(torch.from_numpy(X)).detach()
    np.testing.assert_allclose(out, model.predict(table), rtol=1e-10, atol=1e-12)


def test_pipeline_in_a_pipeline_and_a_search():
    X, y = data()
    inner = make_pipeline(MinMaxScaler(), perceptron())
    grid = {"mlpregressor__alpha": [0.1, 1.0]}
    search = GridSearchCV(inner, grid, cv=2)
    model = fit(make_pipeline(StandardScaler(), search), X, y)
    module = as_module(model)
    out = module(torch.from_numpy(X)).detach()
    np.testing.assert_allclose(out, model.predict(X), rtol=1e-10, atol=1e-12)
    assert module.get_submodule("gridsearchcv.mlpregressor.output").out_features == 2
    frozen = as_module(FrozenEstimator(model))
    torch.testing.assert_close(frozen(torch.from_numpy(X)).detach(), out)


def test_transformed_target():
    X, y = data()
    model = TransformedTargetRegressor(
        make_pipeline(StandardScaler(), perceptron()), transformer=StandardScaler()
    )
    for target in (100 + 7 * y, 100 + 7 * y[:, 0]):
        fit(model, X, target)
        module = as_module(model)
        out = module(torch.from_numpy(X)).detach().numpy()
        np.testing.assert_allclose(out.squeeze(), model.predict(X), rtol=1e-10)
        found, expected = jacobian(module, X), differences(model.predict, X)
        close(agop(found), agop(expected), rtol=1e-5)


def test_transformed_target_that_is_not_affine():
    X, y = data()
    model = TransformedTargetRegressor(perceptron(), func=np.log, inverse_func=np.exp)
    fit(model, X, np.exp(y))
    with pytest.raises(ValueError, match="back from the transformed target is not aff"):
        as_module(model)


BENT = {
    "PolynomialFeatures": PolynomialFeatures(),
    "QuantileTransformer": QuantileTransformer(n_quantiles=10),
    "PowerTransformer": PowerTransformer(),
    "KBinsDiscretizer": KBinsDiscretizer(
        3, encode="ordinal", strategy="uniform", subsample=None
    ),
    "MinMaxScaler": MinMaxScaler(clip=True),
    "OneHotEncoder": OneHotEncoder(handle_unknown="ignore", sparse_output=False),
}


@pytest.mark.parametrize("name", BENT)
def test_other_steps_are_refused_by_name(name):
    X, y = data()
    model = Pipeline([("first", StandardScaler()), ("bent", BENT[name])])
    model.steps.append(("network", perceptron()))
    fit(model, X, y)
    message = rf"The step 'bent' \({name}\) (is not affine|has outputs that no number)"
    with pytest.raises(ValueError, match=message) as error:
        as_module(model)
    assert "pipeline[:-1].transform(X)" in str(error.value)


def test_encoders_of_unknown_categories_are_refused():
    X, y = data()
    model = make_pipeline(OneHotEncoder(sparse_output=False), perceptron())
    with pytest.raises(ValueError, match=r"'onehotencoder' .*cannot be tried on numb"):
        as_module(fit(model, X, y))


class NoWidth(StandardScaler):
    """A step of one's own that sets no n_features_in_."""

    def fit(self, X, y=None):
        super().fit(X, y)
        del self.n_features_in_
        return self

    def transform(self, X):
        return (X - self.mean_) / self.scale_


def test_steps_must_say_how_wide_they_are():
    X, y = data()
    with pytest.raises(ValueError, match=r"'nowidth' \(NoWidth\) is not fitted, or"):
        as_module(fit(make_pipeline(NoWidth(), perceptron()), X, y))
    model = make_pipeline(StandardScaler(), NoWidth(), perceptron())
    as_module(fit(model, X, y))  # the step before says it


@pytest.mark.parametrize("name", ["forward", "a.b", "training", "add_module"])
def test_any_name_of_a_step(name):
    X, y = data()
    model = fit(Pipeline([(name, StandardScaler()), ("a_b", perceptron())]), X, y)
    module = as_module(model)
    out = module(torch.from_numpy(X)).detach()
    np.testing.assert_allclose(out, model.predict(X), rtol=1e-10, atol=1e-12)


# --------------------------------------------------------------- torch and skorch
class Skorch:
    """What matters of a skorch net: ``module``, ``initialize`` and ``module_``."""

    def __init__(self, module):
        self.module = module

    def initialize(self):
        self.module_ = self.module
        return self

    fit = predict = initialize

    def __sklearn_is_fitted__(self):
        return hasattr(self, "module_")


def test_skorch():
    net = nn.Tanh()
    assert as_module(Skorch(net).initialize()) is net
    with pytest.raises(NotFittedError, match=r"This Skorch has no module_: it is not"):
        as_module(Skorch(net))


@pytest.mark.parametrize("device", DEVICES)
def test_float32_network_behind_a_scaler(device):
    X, _ = data()
    X = X + 1e7  # float32 at the input would see steps of 1
    scaler = StandardScaler().fit(X)
    with torch.random.fork_rng():
        net = nn.Sequential(nn.Linear(D, 8), nn.Tanh(), nn.Linear(8, 2)).to(device)
    module = as_module(Pipeline([("s", scaler), ("net", Skorch(net).initialize())]))
    assert {parameter.device.type for parameter in module.parameters()} == {device}
    expected = net(
        torch.tensor(scaler.transform(X), dtype=torch.float32, device=device)
    )
    found = module(torch.tensor(X, device=device))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


def test_modules_are_taken_as_they_are():
    with torch.random.fork_rng():
        net = nn.Sequential(nn.Linear(2, 3), nn.Dropout())
    assert as_module(net) is net
    assert net.training
    traced = torch.jit.ScriptModule()
    assert as_module(traced) is traced


def test_wrappers_are_taken_off():
    with torch.random.fork_rng():
        net = nn.Linear(2, 3)
    parallel = nn.DataParallel(net)
    assert as_module(parallel) is net
    distributed = nn.parallel.DistributedDataParallel
    wrapper = distributed.__new__(distributed)  # made without a process group
    nn.Module.__init__(wrapper)
    wrapper.module = parallel
    assert as_module(wrapper) is net


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compiled_modules():
    with torch.random.fork_rng():
        net = nn.Linear(2, 3)
    assert as_module(torch.compile(nn.DataParallel(net))) is net


# ------------------------------------------------------------------------ functions
def test_function():
    module = as_module(torch.sin)
    x = torch.tensor([[0.5]])
    assert isinstance(module, nn.Module)
    torch.testing.assert_close(module(x), x.sin())
    both = as_module(lambda x, *, scale: x * scale)
    torch.testing.assert_close(both(x, scale=x), x * x)
    as_module(functools.partial(torch.add, 1))
    copy.deepcopy(module)


NETWORK = nn.Sequential(nn.Dropout(0.5))


def test_modules_in_a_function_are_its_children():
    local = nn.Sequential(nn.Identity())
    module = as_module(lambda x: NETWORK(local(x)))
    assert dict(module.named_children()) == {"NETWORK": NETWORK, "local": local}
    module.eval()
    assert not NETWORK[0].training
    NETWORK.train()
    assert dict(as_module(local.forward).named_children()) == {"owner": local}


def test_a_function_is_not_copied_apart_from_its_modules():
    # The copy would go on computing with the modules of the original.
    with pytest.raises(TypeError, match="cannot be copied together with the modules"):
        copy.deepcopy(Function(lambda x: NETWORK(x) + 1))


# ------------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    "model",
    [
        DecisionTreeRegressor(),
        RandomForestClassifier(),
        HistGradientBoostingRegressor(),
        make_pipeline(StandardScaler(), RandomForestClassifier()),
    ],
)
def test_trees_have_no_gradient(model):
    with pytest.raises(TypeError, match="made of trees: it is piecewise constant"):
        as_module(model)


@pytest.mark.parametrize("source", [None, 3, "resnet20", LogisticRegression(), {}, [1]])
def test_what_is_accepted_is_listed(source):
    with pytest.raises(TypeError, match=r"A network is a torch\.nn\.Module, a fi"):
        as_module(source)


@pytest.mark.parametrize("kind", [nn.Linear, MLPRegressor])
def test_classes_are_not_instances(kind):
    with pytest.raises(TypeError, match=f"the class {kind.__name__}: pass a trained"):
        as_module(kind)


@pytest.mark.parametrize(
    "model",
    [
        MLPClassifier(),
        make_pipeline(StandardScaler(), MLPRegressor()),
        GridSearchCV(MLPRegressor(), {}),
        TransformedTargetRegressor(MLPRegressor()),
        FrozenEstimator(MLPRegressor()),
    ],
)
def test_unfitted(model):
    with pytest.raises(NotFittedError):
        as_module(model)
