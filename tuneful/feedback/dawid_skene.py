"""What several raters' labels say together when some raters err, and each in a way of his own.

An item has one true class k, drawn with the prevalence rho_k. Rater r answers l with the probability pi_r[k, l], his
confusion matrix, whatever else he answered (Dawid and Skene 1979). Classes, matrices and prevalence are found by EM:

    E   q_i[k] ~ rho_k prod_r pi_r[k, l_ir]                         (their equation 2.5)
    M   pi_r[k, l] ~ a + b [k = l] + sum_i q_i[k] [l_ir = l],   rho_k ~ a + sum_i q_i[k]    (2.3, 2.4, with a = b = 0)

a is a pseudo-count in every cell, so that nothing seen a few times is held for certain; b leans every matrix to its
diagonal. Together they are a Dirichlet prior whose mode is a rater who is right in four cases of five, and who is
forgotten after a handful of labels. EM never lowers the log-posterior.

Without the lean the labels of one or two raters say nothing of who is right: two have three free shares, the model five
parameters, and with b = 0 it may call the items on which both agree the doubtful ones. Renaming the classes in every
matrix changes no likelihood either. EM begins at the shares of votes and stays on their side: most raters are taken to
mean what they say, as they are in `feedback.slopes`. One who does not has a matrix that is turned around, and still
informs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp

from tuneful.errors import DataError
from tuneful.feedback.votes import Floats
from tuneful.records import Judgment

PSEUDO_COUNT = 0.5

LEAN = 1.5
"""With PSEUDO_COUNT the mode of a rater is right with 2 / (2 + 1/2): as good as two people who agree on 68 %, a little
less than careful ones do (73 %). Twice as much would hide raters who are upside down until they have judged dozens."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelModel:
    """I items, W raters, K classes.

    posterior: float [I, K], of each item's class. confusion: float [W, K, K], rows the true class, columns the answer.
    prevalence: float [K]. log_posterior: of the parameters, up to a constant, after every round; it never falls.
    """

    posterior: Floats
    confusion: Floats
    prevalence: Floats
    log_posterior: tuple[float, ...]

    @property
    def accuracy(self) -> Floats:
        """Of each rater [W]: how often his answer is the true class, on items as they come."""
        return np.asarray(np.einsum("k,wkk->w", self.prevalence, self.confusion), np.float64)


@dataclass(frozen=True, slots=True)
class BinaryRater:
    """How a rater answers a question of yes and no.

    says_yes_when_yes and says_no_when_no are the diagonal of his confusion matrix (sensitivity and specificity); both
    1/2 is guessing, both near 0 a question read upside down. accuracy weighs them by how often yes is true.
    """

    rater: str
    num_judgments: int
    says_yes_when_yes: float
    says_no_when_no: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class BinaryConsensus:
    """Of one question: the probability of yes by item id, the raters by id, and how often yes is true."""

    criterion: str
    items: Mapping[str, float]
    raters: tuple[BinaryRater, ...]
    prevalence: float


def fit_labels(
    item: ArrayLike,
    rater: ArrayLike,
    label: ArrayLike,
    *,
    num_labels: int,
    pseudo_count: float = PSEUDO_COUNT,
    lean: float = LEAN,
    tolerance: float = 1e-7,
    max_rounds: int = 1000,
) -> LabelModel:
    """The model of R labels: int [R] each, all numbered from 0, label below num_labels.

    lean: added to pseudo_count on the diagonal of every matrix. A rater may label an item more than once. EM ends when
    a round gains less than `tolerance` per label. Raises DataError for arrays that do not align, numbers out of range,
    and when there are no labels.
    """
    items, raters, labels = (np.asarray(column, np.int64) for column in (item, rater, label))
    if not items.ndim == raters.ndim == labels.ndim == 1 or not len(items) == len(raters) == len(labels):
        raise DataError(f"labels: item, rater and label must align, got {items.shape}, {raters.shape}, {labels.shape}")
    if not len(items):
        raise DataError("labels: there are none")
    if min(items.min(), raters.min(), labels.min()) < 0 or labels.max() >= num_labels or num_labels < 2:
        raise DataError(
            f"labels: numbers start at 0, and labels lie below num_labels = {num_labels}, which is 2 or more"
        )
    if pseudo_count <= 0:
        raise DataError(f"labels: pseudo_count must be above 0, got {pseudo_count}; a tiny one is maximum likelihood")
    if lean < 0:
        raise DataError(f"labels: lean must not be below 0, got {lean}; 0 leans to nobody")
    prior = np.full((num_labels, num_labels), pseudo_count) + lean * np.eye(num_labels)
    num_items, num_raters = int(items.max()) + 1, int(raters.max()) + 1
    answer = raters * num_labels + labels
    votes = np.zeros((num_items, num_labels))
    np.add.at(votes, (items, labels), 1)
    posterior = np.asarray((votes + 1e-12) / (votes + 1e-12).sum(1, keepdims=True), np.float64)
    trace: list[float] = []
    while True:
        seen = [
            np.bincount(answer, posterior[items, k], num_raters * num_labels).reshape(num_raters, num_labels)
            for k in range(num_labels)
        ]
        confusion = np.asarray(np.stack(seen, axis=1) + prior, np.float64)
        confusion /= confusion.sum(2, keepdims=True)
        prevalence = posterior.sum(0) + pseudo_count
        prevalence /= prevalence.sum()
        said = np.log(confusion)[raters, :, labels]
        joint = np.log(prevalence) + np.stack([np.bincount(items, part, num_items) for part in said.T], axis=1)
        evidence = logsumexp(joint, axis=1)
        posterior = np.asarray(np.exp(joint - evidence[:, None]), np.float64)
        known = float((prior * np.log(confusion)).sum() + pseudo_count * np.log(prevalence).sum())
        trace.append(float(evidence.sum()) + known)
        if len(trace) >= max_rounds or (len(trace) > 1 and trace[-1] - trace[-2] < tolerance * len(items)):
            return LabelModel(posterior, confusion, np.asarray(prevalence, np.float64), tuple(trace))


def binary_consensus(judgments: Iterable[Judgment], criterion: str) -> BinaryConsensus:
    """The consensus of the binary judgments that answer `criterion` with 0 or 1.

    A judgment that another one `replaces` is dropped, and so are other kinds and judgments that do not answer. Raises
    DataError when none is left, when an id comes twice, and for an answer other than 0 and 1.
    """
    by_id: dict[str, Judgment] = {}
    for j in judgments:
        if j.id in by_id:
            raise DataError(f'judgment "{j.id}" comes twice; ids must be unique')
        by_id[j.id] = j
    replaced = {j.replaces for j in by_id.values()}
    answered = [j for j in by_id.values() if j.kind == "binary" and criterion in j.values and j.id not in replaced]
    if not answered:
        raise DataError(f'judgments: none of kind binary answers "{criterion}"')
    for j in answered:
        if j.values[criterion] not in (0, 1):
            raise DataError(f'judgment "{j.id}": "{criterion}" is {j.values[criterion]}; a binary answer is 0 or 1')
    answered.sort(key=lambda j: (j.item, j.id))
    items, raters = sorted({j.item for j in answered}), sorted({j.rater for j in answered})
    item_number = {name: n for n, name in enumerate(items)}
    rater_number = {name: n for n, name in enumerate(raters)}
    item, rater = [item_number[j.item] for j in answered], [rater_number[j.rater] for j in answered]
    model = fit_labels(item, rater, [int(j.values[criterion]) for j in answered], num_labels=2)
    count, accuracy = np.bincount(rater), model.accuracy
    return BinaryConsensus(
        criterion=criterion,
        items=dict(zip(items, model.posterior[:, 1].tolist(), strict=True)),
        raters=tuple(
            BinaryRater(
                rater=name,
                num_judgments=int(count[n]),
                says_yes_when_yes=float(model.confusion[n, 1, 1]),
                says_no_when_no=float(model.confusion[n, 0, 0]),
                accuracy=float(accuracy[n]),
            )
            for n, name in enumerate(raters)
        ),
        prevalence=float(model.prevalence[1]),
    )
