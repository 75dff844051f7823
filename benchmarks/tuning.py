"""The same budget for every model: random search judged on a fifth of the rows.

Spaces are published ones where the budget allows:

* xRFM: the `default` space of pytabkit 1.7.3;
* random forest, boosting: Grinsztajn et al. 2022 (arXiv:2207.08815), Appendix A, at
  a fixed 300 trees, without absolute-error criteria, boosting at 100 to 1,000 rounds;
* SVM: Hsu, Chang and Lin, "A practical guide to support vector classification", with
  C at most 1,000 so that the noisy sets end.
"""

import numpy as np
from ours import sample_ours
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from tables import holdout

BUDGET = 25


class Tuned(MetaEstimatorMixin, BaseEstimator):
    """Random search over `BUDGET` configurations, then a fit of the best on all rows.

    The first configuration is the model's own default. xRFM, which needs held-out rows
    at every fit, is given all rows and holds out exactly those that judge it here, as
    its own tuning tools do; its search therefore fits on as many rows as the others'.

    Parameters
    ----------
    estimator : estimator
    sample : callable
        ``sample(rng, kind)`` draws one dictionary of parameters.
    kind : {"classification", "regression"}
    """

    def __init__(self, estimator, sample, kind):
        self.estimator = estimator
        self.sample = sample
        self.kind = kind

    def fit(self, X, y):
        """Search and refit."""
        fit_rows, judge_rows = holdout(y, self.kind, 0.2)
        self.scores_, self.failures_ = [], []
        best = (-np.inf, None)
        for parameters in self._configurations():
            candidate = clone(self.estimator).set_params(**parameters)
            rows = slice(None) if _holds_out(candidate) else fit_rows
            try:
                candidate.fit(X[rows], y[rows])
                score = candidate.score(X[judge_rows], y[judge_rows])
            except (ValueError, RuntimeError, np.linalg.LinAlgError) as error:
                self.failures_.append(f"{parameters}: {error}")
                continue
            self.scores_.append(score)
            best = max(best, (score, parameters), key=lambda pair: pair[0])
        if best[1] is None:
            raise RuntimeError(f"every configuration failed: {self.failures_[0]}")
        self.best_params_ = best[1]
        self.best_estimator_ = clone(self.estimator).set_params(**best[1]).fit(X, y)
        self.classes_ = getattr(self.best_estimator_, "classes_", None)
        return self

    def _configurations(self):
        rng = np.random.default_rng(0)
        yield {}
        for _ in range(BUDGET - 1):
            yield self.sample(rng, self.kind)

    def predict(self, X):
        """Predict with the best configuration."""
        return self.best_estimator_.predict(X)

    def predict_proba(self, X):
        """Give the probabilities of the best configuration."""
        return self.best_estimator_.predict_proba(X)

    def __sklearn_tags__(self):
        return self.estimator.__sklearn_tags__()


def _holds_out(model):
    return getattr(model, "holds_out_rows", False)


def _log_uniform(rng, low, high):
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _sample_xrfm(rng, kind):
    kernel = "lpq" if rng.random() < 0.8 else "l2"
    exponent = rng.uniform(0.7, 1.4)
    model = {
        "kernel": kernel,
        "bandwidth": _log_uniform(rng, 0.5, 200),
        "exponent": exponent,
        "norm_p": exponent + (2 - exponent) * rng.uniform(0, 0.8),
        "diag": bool(rng.random() < 0.5),
    }
    return {
        "model": model,
        "reg": _log_uniform(rng, 1e-6, 10),
        "classification_mode": "prevalence",
    }


def _sample_ridge(rng, kind):
    return {
        "alpha": _log_uniform(rng, 1e-6, 10),
        "bandwidth_factor": _log_uniform(rng, 0.1, 10),
    }


def _sample_forest(rng, kind):
    criteria = {"classification": ["gini", "entropy"], "regression": ["squared_error"]}
    shares = ["sqrt", "log2", None, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    depth = rng.choice([0, 2, 3, 4], p=[0.7, 0.1, 0.1, 0.1])
    return {
        "n_estimators": 300,
        "criterion": str(rng.choice(criteria[kind])),
        "max_features": shares[rng.integers(len(shares))],
        "max_depth": int(depth) or None,
        "min_samples_split": int(rng.choice([2, 3], p=[0.95, 0.05])),
        "min_samples_leaf": round(_log_uniform(rng, 1.5, 50.5)),
        "bootstrap": bool(rng.random() < 0.5),
    }


def _sample_boosting(rng, kind):
    depth = rng.choice([0, 2, 3, 4], p=[0.1, 0.1, 0.7, 0.1])
    return {
        "learning_rate": _log_uniform(rng, 0.01, 0.5),
        "max_iter": round(_log_uniform(rng, 100, 1000)),
        "max_leaf_nodes": max(2, round(rng.normal(31, 5))),
        "max_depth": int(depth) or None,
        "min_samples_leaf": max(1, round(rng.normal(20, 2))),
        "l2_regularization": _log_uniform(rng, 1e-6, 10),
    }


def _sample_svm(rng, kind):
    return {
        "C": _log_uniform(rng, 2**-5, 1000),
        "gamma": _log_uniform(rng, 2**-15, 2**3),
    }


SAMPLERS = {
    "agop": sample_ours,
    "xrfm": _sample_xrfm,
    "kernel-ridge": _sample_ridge,
    "random-forest": _sample_forest,
    "boosting": _sample_boosting,
    "svm": _sample_svm,
}
