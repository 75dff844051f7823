"""NetworkAGOP: the directions that the output of a trained network depends on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from agop.core.arrays import InvalidParameterError, check_number, follow_input, to_numpy
from agop.core.spectrum import Spectrum
from agop.networks.base import NetworkEstimator
from agop.networks.data import Batch
from agop.networks.guards import untouched
from agop.networks.layers import INPUT, Site
from agop.networks.padding import mean_position
from agop.networks.sources import as_module
from agop.networks.survey import Part, Survey

#: Eigenvalues among which the widest gap is sought.
_LEADING = 11


class NetworkAGOP(ClassNamePrefixFeaturesOutMixin, TransformerMixin, NetworkEstimator):
    """Average gradient outer products of a trained network.

    For the input x of a network f, or for the activations x of a layer,

        G = 1/n Σᵢ J(xᵢ)ᵀ J(xᵢ),    J = ∂f/∂x of shape (n_outputs, n_features),

    says which directions of x the output depends on (Radhakrishnan, Beaglehole, Pandit
    and Belkin, Science 383:1461, 2024, :arxiv:`2212.13881`): vᵀGv is the mean squared
    change of the output for a unit step along v. The network is used in eval mode and
    is left exactly as it was.

    Parameters
    ----------
    network : Module, skorch net, MLPClassifier, MLPRegressor, Pipeline or callable
        A trained torch module; a fitted network of skorch or scikit-learn; a fitted
        pipeline of affine steps that ends in one of these, whose results are in the
        units of its own input; or a differentiable function of a batch of tensors.
    layers : str, Module, Pattern, callable, or a list of these, default=None
        Where: the input of the network by default. A dotted name ("layer1.0.conv1")
        or pattern ("blocks.*.mlp") means what a layer returns; with ":input" after
        it, what it is given; with ":patch", the patches that a convolution reads;
        "@0" or "@sum" tell the calls of a layer apart that is called repeatedly.
        "input" is the input of the network. All are done in one pass.
    outputs : str, int, list of int or callable, default="all"
        What is differentiated: "all" numbers of the output; those at the "last"
        position of a sequence; "probabilities" (softmax); the score of the true class
        ("label") or of the "predicted" one; the "log_probability" or the "margin" of
        the true class, or the "loss"; some indices into the last dimension; or a
        function of the output, or of output and targets, that returns one row of
        numbers for each sample. Options that need targets take them from y or from
        the batches.
    kind : {"auto", "full", "linear", "diagonal", "rows", "low_rank"}, default="auto"
        What is kept: the "full" matrix, its "diagonal", all gradients ("rows", for
        fewer gradients than features), or a sketch of the leading directions
        ("low_rank", frequent directions) that never forms the matrix. "linear" is
        exact: where one linear layer h = Wx + b with fewer outputs than inputs reads
        x, G = WᵀSW with S the matrix at h. "auto" takes "linear" where it can, "full"
        up to 4096 features, and otherwise "rows" or "low_rank", by size; `kind_` says
        which.
    positions : {"auto", "flatten", "tokens", "pixels"}, int or tuple, default="auto"
        How the activation of a sample becomes vectors: all of it is one ("flatten");
        one for each token, (n_tokens, n_features); one for each pixel, (n_channels,
        height, width). Each position then counts as a sample. An int keeps one token,
        a tuple of ints one pixel. By default the input is flattened and layers give
        tokens or pixels.
    n_components : int, default=None
        Number of directions; by default those before the widest relative gap of the
        eigenvalues, at most 10.
    center : bool, default=False
        Subtract the mean Jacobian of each output.
    n_probes : int, "auto" or None, default="auto"
        Random combinations of the outputs, instead of each output. None: each one;
        "auto": each one up to 64, or with `center`, and beyond that 32 probes, with a
        warning. Where the last layer is linear, no more outputs than its rank count.
    output_key : str, int or callable, default=None
        Which tensor is the output, if the network returns several.
    batch_size : int or "auto", default="auto"
        Samples at a time. Halved, with a warning, when memory runs out.
    max_batches : int, default=None
        Stop after so many batches; needed for data without end.
    device : str, default="auto"
        That of the network's parameters by default. On another one a copy is used.
    dtype : {"float32", "float64"}, default=None
        That of the network's parameters by default. In another one a copy is used.
        Sums are float64 always.
    random_state : int, RandomState instance or None, default=None
        For random probes and resamples.
    verbose : int, default=0
        From 1, progress is shown.

    Attributes
    ----------
    agop_ : ndarray of shape (n_features, n_features), or dict of these by layer
        G, formed when asked for; of shape (n_features,) if only the diagonal is kept.
        This attribute and the next ones are arrays if the input alone was asked for
        (``layers=None``), dicts by layer otherwise.
    eigenvalues_ : ndarray of shape (n_components,), or dict
        Descending.
    components_ : ndarray of shape (n_components, n_features), or dict
        Directions, of unit norm; the entry of largest magnitude is positive.
    explained_ratio_ : ndarray of shape (n_components,), or dict
        Eigenvalues over the exact trace.
    trace_ : float, or dict
        Exact trace of G, also of a sketch: the mean squared norm of J.
    feature_importances_ : ndarray of shape (n_features,), or dict
        Diagonal of G over its sum.
    kind_ : str, or dict
        How G was kept.
    probe_error_ : float, or dict
        Standard error of G in Frobenius norm that random probes leave, over the norm
        of G; 0 if every output was differentiated, NaN for a single probe.
    n_samples_seen_ : int
    sample_shape_ : tuple of int
        Shape of one sample of the input.
    n_features_in_ : int
        Number of features of X, for a table.
    feature_names_in_ : ndarray of shape (n_features,)
        If X had names.

    See Also
    --------
    agop.RFMClassifier : Learns features with the same matrix.
    agop.SpectrumDisplay : Draws the eigenvalues.
    agop.DirectionDisplay : Draws directions, or the diagonal, in the input's shape.

    Notes
    -----
    Whole numbers in arrays are read as numbers, unless the network has an
    ``nn.Embedding``; integer tensors are always tokens. Tokens have no derivative:
    give a layer behind the embedding.

    Examples
    --------
    >>> import torch
    >>> from agop import NetworkAGOP
    >>> W = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    >>> X = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    >>> NetworkAGOP(lambda x: x @ W.T).fit(X).agop_  # of a linear function: WᵀW
    array([[4., 0., 0.],
           [0., 1., 1.],
           [0., 1., 1.]])
    >>> network = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU())
    >>> NetworkAGOP(network, layers=["input", "0"]).fit(X).kind_
    {'input': 'full', '0': 'full'}
    """

    def __init__(
        self,
        network,
        *,
        layers=None,
        outputs="all",
        kind="auto",
        positions="auto",
        n_components=None,
        center=False,
        n_probes="auto",
        output_key=None,
        batch_size="auto",
        max_batches=None,
        device="auto",
        dtype=None,
        random_state=None,
        verbose=0,
    ):
        self.network = network
        self.layers = layers
        self.outputs = outputs
        self.kind = kind
        self.positions = positions
        self.n_components = n_components
        self.center = center
        self.n_probes = n_probes
        self.output_key = output_key
        self.batch_size = batch_size
        self.max_batches = max_batches
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose

    # ------------------------------------------------------------------------- fit

    def fit(self, X, y=None, sample_weight=None):
        """Compute the AGOPs on data.

        Parameters
        ----------
        X : array-like, tensor, dict, tuple, Dataset, DataLoader or iterable of batches
            Samples along the first dimension; a dict holds keyword arguments of the
            network, a tuple positional ones. Batches are inputs, (inputs, targets) or
            dicts.
        y : array-like of shape (n_samples, ...), default=None
            Targets, for those `outputs` that need them.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative. A weight of k is the same as k copies of a sample.

        Returns
        -------
        self
        """
        return self._add(X, y, sample_weight, again=True)

    def partial_fit(self, X, y=None, sample_weight=None):
        """Add more samples.

        A sketch is not refined by a second look at the data, as in :meth:`fit`: its
        eigenvalues are lower bounds.

        Parameters
        ----------
        X : array-like, tensor, dict, tuple, Dataset, DataLoader or iterable of batches
        y : array-like of shape (n_samples, ...), default=None
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        self
        """
        return self._add(X, y, sample_weight, again=False)

    def _add(self, X, y, sample_weight, *, again: bool):
        before = dict(vars(self))
        try:
            return self._added(X, y, sample_weight, again=again)
        except BaseException:  # what was fitted before stays
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _added(self, X, y, sample_weight, *, again: bool):
        module = as_module(self.network)
        fresh = again or not hasattr(self, "n_samples_seen_")
        question = self._question(module)
        batches = self._batches(module, X, y, sample_weight, reset=fresh)
        network, place = self._placed(module)
        survey = Survey(question) if fresh else self._survey.copy()
        shapes: list[tuple[int, ...]] = []

        def noted(batch: Batch) -> Batch:
            if not shapes:
                shapes.append(tuple(batch.input.shape[1:]))
            return place(batch)

        survey.add(network, batches, noted, whole=again)
        if again and batches.repeatable and survey.sketched:
            survey.refine(network, batches, place)
        self._store(survey, shapes[0])
        return self

    def merge(self, other):
        """Add what another estimator, fitted on other samples, has seen.

        Parameters
        ----------
        other : NetworkAGOP
            Fitted with the same parameters, on the same network.

        Returns
        -------
        self
        """
        check_is_fitted(self)
        check_is_fitted(other)
        survey = self._survey.copy()
        survey.merge(other._survey)
        self._store(survey, self.sample_shape_)
        return self

    def all_reduce(self, group=None):
        """Add up what all processes of ``torch.distributed`` have seen.

        Every process fits on its own part of the data, then calls this; all end with
        the AGOPs of all data.

        Parameters
        ----------
        group : ProcessGroup, default=None
            All processes by default.

        Returns
        -------
        self
        """
        check_is_fitted(self)
        survey = self._survey.copy()
        survey.all_reduce(group)
        self._store(survey, self.sample_shape_)
        return self

    def _store(self, survey: Survey, sample_shape: tuple[int, ...]) -> None:
        self._survey = survey
        self._leading: dict[str, Spectrum] = {}  # as far as they were asked for
        self.n_samples_seen_ = survey.n_samples
        self.sample_shape_ = sample_shape

    # --------------------------------------------------------------------- results

    def _by_layer(self, value: Callable[[str], Any]) -> Any:
        """One value if the input alone was asked for, else a dict by layer."""
        check_is_fitted(self)
        if self.layers is None:
            return value(INPUT)
        return {name: value(name) for name in self._survey.parts}

    def _part(self, name: str) -> Part:
        return self._survey.parts[name]

    def _leading_of(self, name: str) -> Spectrum:
        """The directions that are components; found when they are first asked for."""
        if name not in self._leading:
            spectrum = self._part(name).spectrum(self.n_components or _LEADING)
            count = self.n_components or spectrum.n_separated()
            leading = spectrum.truncated(count)
            directions = leading.directions.double()
            self._leading[name] = replace(leading, directions=directions)
        return self._leading[name]

    @property
    def agop_(self):
        """The matrices G, or their diagonals if these alone are kept."""
        return self._by_layer(lambda name: to_numpy(self._part(name).matrix()))

    @property
    def eigenvalues_(self):
        """Leading eigenvalues, descending."""
        return self._by_layer(lambda name: to_numpy(self._leading_of(name).eigenvalues))

    @property
    def components_(self):
        """Leading directions, as rows."""
        return self._by_layer(lambda name: to_numpy(self._leading_of(name).directions))

    @property
    def explained_ratio_(self):
        """Eigenvalues over the trace."""
        return self._by_layer(lambda name: to_numpy(self._leading_of(name).shares))

    @property
    def trace_(self):
        """Exact traces."""
        return self._by_layer(lambda name: self._part(name).product.trace)

    @property
    def feature_importances_(self):
        """Diagonals over their sums."""
        return self._by_layer(lambda name: to_numpy(self._part(name).importances()))

    @property
    def kind_(self):
        """How each G is kept."""
        return self._by_layer(lambda name: self._part(name).kind)

    @property
    def probe_error_(self):
        """Standard errors that random probes leave, relative to the norms."""
        return self._by_layer(lambda name: self._part(name).relative_error())

    def spectrum(self, layer=None) -> Spectrum:
        """All eigenvalues and directions that are known.

        Parameters
        ----------
        layer : str, default=None
            May be left out if there is one only.

        Returns
        -------
        Spectrum
        """
        check_is_fitted(self)
        return self._part(self._layer(layer)).spectrum()

    def _layer(self, layer) -> str:
        names = list(self._survey.parts)
        if layer is None and len(names) == 1:
            return names[0]
        if layer not in names:
            raise ValueError(
                f"layer={layer!r}: this was fitted at {', '.join(map(repr, names))}; "
                "name one of them."
            )
        return layer

    def bootstrap(self, X, y=None, sample_weight=None, *, n_resamples=200):
        """How much the results depend on which samples were at hand.

        Another pass over the data: every sample gets a random Poisson weight of mean
        1 in each resample (the bootstrap for streams; memory does not grow with n).

        Parameters
        ----------
        X : array-like, tensor, dict, tuple, Dataset, DataLoader or iterable of batches
            The data of the fit.
        y : array-like of shape (n_samples, ...), default=None
        sample_weight : array-like of shape (n_samples,), default=None
        n_resamples : int, default=200

        Returns
        -------
        Bootstrap, or dict of Bootstrap by layer
        """
        check_is_fitted(self)
        owner = type(self).__name__
        check_number("n_resamples", n_resamples, owner=owner, integer=True, low=2)
        if self.kind == "diagonal":
            raise InvalidParameterError(
                "kind='diagonal' keeps no directions whose eigenvalues could be "
                "resampled. Fit with another kind, for example kind='auto'."
            )
        module = as_module(self.network)
        batches = self._batches(module, X, y, sample_weight, reset=False)
        network, place = self._placed(module)
        results = self._survey.bootstrap(
            network,
            batches,
            place,
            n_resamples=n_resamples,
            n_components={
                name: len(self._leading_of(name).eigenvalues)
                for name in self._survey.parts
            },
        )
        return self._by_layer(results.__getitem__)

    # ------------------------------------------------------------------- transform

    def transform(self, X):
        """Coordinates along the components.

        Parameters
        ----------
        X : array-like, tensor, dict, tuple, Dataset, DataLoader or iterable of batches

        Returns
        -------
        ndarray of shape (n_samples, n_components)
            For several layers, those of one beside those of the next. Where a layer
            has several positions, the mean over those that are not masked.
        """
        check_is_fitted(self)
        module = as_module(self.network)
        batches = self._batches(module, X, None, None, reset=False, targets=False)
        network, place = self._placed(module)
        jacobian = self._survey.question.jacobian(
            network, self._sites(), torch.Generator(), shortcuts=False
        )
        rows = []
        with untouched(network), torch.no_grad():
            for batch in map(place, batches):
                found = jacobian.activations(batch)
                projected = [
                    self._projected(site.name, mean_position(activation, batch))
                    for site, activation in zip(self._sites(), found, strict=True)
                ]
                dtype = torch.promote_types(found[0].dtype, torch.float32)
                rows.append(torch.cat(projected, 1).to(dtype))
        return follow_input(to_numpy(torch.cat(rows)), X)

    def _projected(self, name: str, points: torch.Tensor) -> torch.Tensor:
        spectrum = self._leading_of(name)
        width = spectrum.directions.shape[1]
        if points.shape[1] != width:
            raise ValueError(
                f"At {name!r} there are {points.shape[1]} features now; "
                f"{type(self).__name__} was fitted with {width}."
            )
        return spectrum.project(points.to(spectrum.directions))

    @property
    def _n_features_out(self) -> int:
        names = self._survey.parts
        return sum(len(self._leading_of(name).eigenvalues) for name in names)

    def _sites(self) -> list[Site]:
        return self._survey.question.sites

    def __sklearn_tags__(self):
        """Tags: dense tables, images and sequences."""
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.requires_fit = True
        return tags
