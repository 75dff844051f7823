"""The 58 shared tabular sets: where they are, how they are split and prepared."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split
from sklearn.preprocessing import OneHotEncoder, StandardScaler

CHECKOUT = Path(__file__).resolve().parent.parent
HALVES_SEED = 2026
CROSS_VALIDATED_UP_TO = 1000
FEW_VALUES = range(3, 11)


@dataclass(frozen=True)
class Table:
    """One data set.

    Attributes
    ----------
    name : str
        Kind and file name without endings, as in ``regression/564_fried``.
    X : ndarray of shape (n, d)
    y : ndarray of shape (n,)
        Class codes 0 .. k - 1, or the target of a regression.
    categorical : ndarray of shape (d,)
        True for integer columns of 3 to 10 distinct values.
    """

    name: str
    X: np.ndarray
    y: np.ndarray
    categorical: np.ndarray

    @property
    def kind(self):
        """Either ``classification`` or ``regression``."""
        return self.name.split("/")[0]


def folder():
    """Find the tabular sets: under `AGOP_DATA`, else beside the checkout."""
    default = CHECKOUT.parent / "shared" / "data"
    path = Path(os.environ.get("AGOP_DATA", default)) / "tabular"
    if not (path / "INDEX.csv").exists():
        raise FileNotFoundError(
            f"no tabular sets in {path}: set AGOP_DATA to the folder that holds tabular"
        )
    return path


def names():
    """Name every set, sorted by kind and then by file."""
    files = pd.read_csv(folder() / "INDEX.csv")["file"]
    return sorted(file.removesuffix(".tsv.gz") for file in files)


def halves():
    """Split the sets in two: choices are made on one half and confirmed on the other.

    Returns
    -------
    half_of : dict
        ``development`` or ``held-out`` by the name of the set.
    """
    rng = np.random.default_rng(HALVES_SEED)
    half_of = {}
    for kind in ("classification", "regression"):
        members = [name for name in names() if name.startswith(kind)]
        shuffled = rng.permutation(members)
        cut = (len(members) + 1) // 2
        half_of |= {str(name): "development" for name in shuffled[:cut]}
        half_of |= {str(name): "held-out" for name in shuffled[cut:]}
    return half_of


def load(name, max_rows=None):
    """Read one set, at most `max_rows` of its rows drawn at random.

    Columns are marked as categorical on the whole table, before rows are drawn.
    """
    frame = pd.read_csv(folder() / f"{name}.tsv.gz", sep="\t")
    y = frame.pop("target").to_numpy()
    X = frame.to_numpy(dtype=np.float64)
    categorical = np.array([_is_categorical(column) for column in X.T])
    if max_rows is not None and len(X) > max_rows:
        rng = np.random.default_rng(0)
        rows = np.sort(rng.choice(len(X), max_rows, replace=False))
        X, y = X[rows], y[rows]
    if name.startswith("classification"):
        y = np.unique(y, return_inverse=True)[1]
    else:
        y = y.astype(np.float64)
    return Table(name, X, y, categorical)


def _is_categorical(column):
    values = np.unique(column)
    return len(values) in FEW_VALUES and np.array_equal(values, np.rint(values))


def folds(table):
    """Index the training and test rows: 5 folds up to 1,000 rows, else 75/25.

    Yields
    ------
    train, test : ndarray of int
    """
    if len(table.X) <= CROSS_VALIDATED_UP_TO:
        splitter = StratifiedKFold if table.kind == "classification" else KFold
        folder_ = splitter(n_splits=5, shuffle=True, random_state=0)
        yield from folder_.split(table.X, table.y)
    else:
        yield holdout(table.y, table.kind, 0.25)


def holdout(y, kind, fraction):
    """Set a fraction of the rows aside, the same rows at every call.

    Classes too rare to stratify (one row) are drawn as if of the commonest class.
    """
    strata = None
    if kind == "classification":
        values, strata, counts = np.unique(y, return_inverse=True, return_counts=True)
        strata = np.where(counts[strata] < 2, counts.argmax(), strata)
        if len(values) > fraction * len(y):
            strata = None
    rows = np.arange(len(y))
    return train_test_split(rows, test_size=fraction, random_state=0, stratify=strata)


def prepare(table, train, test):
    """Scale and encode: fitted on the training rows, the same for every model.

    Numbers are standardised, categorical columns become one-hot columns (all zero
    for a value unseen in training), the target of a regression is standardised.

    Returns
    -------
    X_train, y_train, X_test, y_test : ndarray
    """
    encoder = ColumnTransformer(
        [
            ("scale", StandardScaler(), ~table.categorical),
            (
                "encode",
                OneHotEncoder(handle_unknown="ignore", sparse_output=False),
                table.categorical,
            ),
        ]
    )
    X_train = encoder.fit_transform(table.X[train])
    X_test = encoder.transform(table.X[test])
    y_train, y_test = table.y[train], table.y[test]
    if table.kind == "regression":
        mean, deviation = y_train.mean(), y_train.std()
        y_train = (y_train - mean) / deviation
        y_test = (y_test - mean) / deviation
    return X_train, y_train, X_test, y_test
