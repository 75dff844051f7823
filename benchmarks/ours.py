"""`agop` as the benchmarks call it: what to adapt when its interface moves.

The import stands inside the functions so that the peers can be run without `agop`.
"""

CLASS_OF_KIND = {"classification": "RFMClassifier", "regression": "RFMRegressor"}


def our_default_model(kind):
    """Make the estimator of this kind with every parameter at its default."""
    import agop

    return getattr(agop, CLASS_OF_KIND[kind])(random_state=0)


def our_fixed_model(n_iter=5):
    """Make the regressor that repeats the peers' fixed recursion.

    Nothing is left at "auto", so that nothing is selected and the last round is kept.
    The peers have no intercept and divide M by its largest entry.
    """
    import agop

    return agop.RFMRegressor(
        kernel="laplace",
        metric="full",
        n_iter=n_iter,
        bandwidth=10.0,
        alpha=1e-3,
        normalize="max",
        fit_intercept=False,
        random_state=0,
    )


def our_metric(model):
    """Give the matrix M of the distance that the fitted model predicts with."""
    return model.metric_factor_ @ model.metric_factor_.T


def sample_ours(rng, kind):
    """Draw what is not chosen inside fit: the rest stays at "auto"."""
    return {
        "power": float(rng.choice([0.25, 0.5, 0.75, 1.0])),
        "center": bool(rng.choice([False, True])),
        "fit_intercept": bool(rng.choice([False, True])),
    }
