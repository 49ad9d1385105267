r"""Dawid and Skene's model against crowd-kit, which fits it by maximum likelihood and no prior.

pip install --no-deps --target DIR crowd-kit==1.4.2 scikit-learn joblib cloudpickle narwhals threadpoolctl nltk regex \
    attrs click tqdm pyarrow
PYTHONPATH=DIR python -m pytest tests/parity/test_crowd_kit.py
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pytest

from tuneful.feedback.dawid_skene import fit_labels

PINNED = "1.4.2"
ROUNDS = 400
LIKELIHOOD: dict[str, Any] = {"pseudo_count": 1e-10, "lean": 0, "tolerance": -1, "max_rounds": ROUNDS}
"""Settings under which nothing is known beforehand. As many rounds for both: crowd-kit's own measure of progress is not
monotone, and may end its search early."""


@pytest.fixture(scope="module")
def crowd_kit() -> Any:
    try:
        found = version("crowd-kit")
    except PackageNotFoundError:
        pytest.skip("crowd-kit is not installed")
    if found != PINNED:
        pytest.skip(f"crowd-kit {found} is installed, the comparison is with {PINNED}")
    return pytest.importorskip("crowdkit.aggregation", reason="crowd-kit lacks what it needs")


@pytest.mark.filterwarnings("ignore")  # its own: old pandas idioms, the logarithm of 0
@pytest.mark.parametrize(("num_labels", "seed"), [(2, 0), (2, 1), (4, 2)])
def test_the_same_labels_and_matrices(crowd_kit: Any, num_labels: int, seed: int) -> None:
    import pandas

    rng = np.random.default_rng(seed)
    num_items, num_raters = 300, 8
    truth = rng.integers(num_labels, size=num_items)
    item, rater = (grid.ravel() for grid in np.mgrid[:num_items, :num_raters])
    kept = rng.random(len(item)) < 0.6
    item, rater = item[kept], rater[kept]
    accuracy = np.linspace(0.5, 0.9, num_raters)
    right = rng.random(len(item)) < accuracy[rater]
    label = np.where(right, truth[item], rng.integers(num_labels, size=len(item)))

    ours = fit_labels(item, rater, label, num_labels=num_labels, **LIKELIHOOD)
    theirs = crowd_kit.DawidSkene(n_iter=ROUNDS, tol=-np.inf)
    theirs.fit(pandas.DataFrame({"task": item, "worker": rater, "label": label}))
    posterior = theirs.probas_.sort_index()[list(range(num_labels))].to_numpy()
    assert ours.posterior == pytest.approx(posterior, abs=1e-6)
    confusion = np.zeros_like(ours.confusion)
    for (worker, answer), row in theirs.errors_.iterrows():
        confusion[worker, :, answer] = row[list(range(num_labels))]
    assert ours.confusion == pytest.approx(confusion, abs=1e-6)
    assert ours.prevalence == pytest.approx(theirs.priors_.sort_index().to_numpy(), abs=1e-6)

    # How far our prior takes us away from it: under .01 on the mean and .05 in the matrices, since there are 180 labels
    # of a rater; single items on which raters tell little move more, one of 900 to another label.
    usual = fit_labels(item, rater, label, num_labels=num_labels)
    assert np.abs(usual.posterior - posterior).mean() < 0.01
    assert usual.confusion == pytest.approx(confusion, abs=0.05)
    assert (usual.posterior.argmax(1) != posterior.argmax(1)).sum() <= 1
