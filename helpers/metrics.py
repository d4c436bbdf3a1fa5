"""Scores for multi-label predictions, from probabilities.

Everywhere `y_true` is a 0/1 array and `y_prob` a float array, both of shape (n_examples, n_labels). A cell of `y_true`
that is UNKNOWN (-100) takes part in no score: a label is scored on the examples of which it is known, cells are counted
where they are known, and of an example its known cells are looked at.
"""

import numpy as np
import pandas as pd
from scipy.stats import norm
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    hamming_loss,
    precision_recall_fscore_support,
)

from helpers.labels import UNKNOWN, count_positives, known

CELLS = 2**21  # of draws x examples, worked on at once: some 100 MB
DECISION_SCORES = ("subset accuracy", "F1 micro", "F1 macro", "F1 samples", "Hamming loss", "Hamming score")
MIN_POSITIVES = 10  # a label with fewer, in the data by which something is chosen, carries no decision


def check_arrays(y_true, y_prob):
    """Raise ValueError unless the two arrays have one shape, y_true is 0/1 (or UNKNOWN) and y_prob lies in [0, 1]."""
    y_true, y_prob = np.asarray(y_true), np.asarray(y_prob)
    if y_true.shape != y_prob.shape or y_true.ndim != 2:
        raise ValueError(f"y_true {y_true.shape} and y_prob {y_prob.shape} must have one shape (n_examples, n_labels)")
    if not np.isin(y_true, (0, 1, UNKNOWN)).all():
        raise ValueError(f"y_true must hold only 0 and 1, or {UNKNOWN} where a label is unknown")
    if not (np.isfinite(y_prob).all() and y_prob.min(initial=0) >= 0 and y_prob.max(initial=0) <= 1):
        raise ValueError("y_prob must hold probabilities between 0 and 1: apply a sigmoid to logits first")
    return y_true.astype(int), y_prob.astype(float)


def decide(y_prob, thresholds=0.5):
    """0/1 decisions, int array of shape (n_examples, n_labels): 1 where a probability reaches its label's threshold.

    Parameters
    ----------
    y_prob : float array of shape (n_examples, n_labels)
    thresholds : float, or float array of shape (n_labels,)
    """
    return (np.asarray(y_prob) >= np.asarray(thresholds)).astype(int)


def known_rows(y_true, y_prob):
    """Each label's (y_true, y_prob) on the examples of which it is known: arrays of shape (n_known,)."""
    return [(y_true[rows, k], y_prob[rows, k]) for k, rows in enumerate(known(y_true).T)]


def label_average_precision(y_true, y_prob):
    """Average precision of each label; NaN where the label has no positive, so no ranking can be judged.

    Returns a float array of shape (n_labels,).
    """
    y_true, y_prob = check_arrays(y_true, y_prob)
    return np.array(
        [
            average_precision_score(labels, scores) if labels.any() else np.nan
            for labels, scores in known_rows(y_true, y_prob)
        ]
    )


def labels_that_count(y_true, min_positives=MIN_POSITIVES):
    """Which labels have enough positives to be averaged and to decide by; bool array of shape (n_labels,)."""
    return count_positives(y_true) >= min_positives


def macro_average_precision(y_true, y_prob, min_positives=MIN_POSITIVES):
    """Mean of the labels' average precision, over the labels with at least `min_positives` positives.

    By it an epoch, a model or a recipe is chosen. One positive more or less at the top moves a rare label's average
    precision by tenths, so a label with fewer does not take part; where no label has as many, the average precision of
    all cells in one ranking (micro) takes its place. NaN without any positive.
    """
    y_true, y_prob = check_arrays(y_true, y_prob)
    if not count_positives(y_true).any():
        return float("nan")
    return float(np.mean([average_precision_score(*one) for one, _ in _rankings(y_true, y_prob, min_positives)]))


def _rankings(y_true, y_prob, min_positives):
    """((y_true, y_prob), row of each) of the labels that count; where none does, of all known cells as one label."""
    counts, cells = labels_that_count(y_true, max(1, min_positives)), known(y_true)
    if counts.any():
        labels = known_rows(y_true, y_prob)
        return [(labels[k], np.flatnonzero(cells[:, k])) for k in np.flatnonzero(counts)]
    return [((y_true[cells], y_prob[cells]), np.nonzero(cells)[0])]


def resampled_macro_ap(y_true, y_prob, n_draws=1000, seed=0):
    """Macro-AP on examples drawn again with replacement (the bootstrap; Efron, 1979).

    With one seed and one number of examples the draws are the same for every model, so the difference of two results
    is the difference on the same examples. A draw of n examples is a weight (how often) on each of them: every label is
    sorted once, and many draws are scored together. The labels are those that count on the examples themselves.

    Returns
    -------
    float array of shape (n_draws,); a label without a positive in a draw is left out of that draw's mean.
    """
    y_true, y_prob = check_arrays(y_true, y_prob)
    if not count_positives(y_true).any():
        return np.full(n_draws, np.nan)
    n_examples = len(y_true)
    sorted_labels = []
    for (labels, scores), rows in _rankings(y_true, y_prob, MIN_POSITIVES):
        order = np.argsort(-scores, kind="stable")
        last_of_ties = np.append(np.diff(scores[order]) != 0, True)
        sorted_labels.append((rows[order], labels[order], last_of_ties))
    scores = np.full((len(sorted_labels), n_draws), np.nan)
    cells = max(len(labels) for _, labels, _ in sorted_labels)
    generator, at_once = np.random.default_rng(seed), max(1, CELLS // max(1, cells))
    for start in range(0, n_draws, at_once):
        n = min(at_once, n_draws - start)
        weights = generator.multinomial(n_examples, np.full(n_examples, 1 / n_examples), size=n)
        for k, (rows, labels, last_of_ties) in enumerate(sorted_labels):
            drawn = np.cumsum(weights[:, rows], axis=1)[:, last_of_ties]
            hits = np.cumsum(weights[:, rows] * labels, axis=1)[:, last_of_ties]
            some = hits[:, -1] > 0
            precision = hits[some] / np.maximum(drawn[some], 1)
            recall_steps = np.diff(hits[some], axis=1, prepend=0) / hits[some, -1:]
            scores[k, start + np.flatnonzero(some)] = (precision * recall_steps).sum(axis=1)
    with_positive = np.isfinite(scores).sum(axis=0)
    return np.nansum(scores, axis=0) / np.where(with_positive, with_positive, np.nan)


def interval(draws, point=None, level=0.95):
    """Percentile interval (low, high) of the draws; given the score itself, corrected for bias (Efron, 1981).

    Average precision on few positives comes out higher in the draws than on the examples themselves. Given `point`, the
    percentiles are moved by as much as it lies off the draws' median (doi:10.2307/3314608). In the difference of two
    models that are alike the bias cancels, and plain percentiles hold the truth more often: benchmarks/intervals.py.

    Parameters
    ----------
    draws : float array of shape (n_draws,)
        Of `resampled_macro_ap`, or the difference of two.
    point : float, optional
        The score on the examples themselves.
    level : float
    """
    draws = np.asarray(draws)[np.isfinite(draws)]
    if not len(draws) or (point is not None and not np.isfinite(point)):
        return float("nan"), float("nan")
    shift = 0.0
    if point is not None:
        below = np.mean(draws < point) + np.mean(draws == point) / 2
        shift = norm.ppf(np.clip(below, 0.5 / len(draws), 1 - 0.5 / len(draws)))
    tails = norm.cdf(2 * shift + norm.ppf([0.5 - level / 2, 0.5 + level / 2]))
    low, high = np.quantile(draws, tails)
    return float(low), float(high)


def hamming_score(y_true, y_pred):
    """Mean over examples of |true and predicted| / |true or predicted|; 1 where both are empty.

    Of an example the known labels count; one of which none is known is left out. Godbole and Sarawagi (2004), who call
    it accuracy. scikit-learn's `jaccard_score(average="samples")` is the same but for the value at empty sets.
    """
    y_true, y_pred = (some.astype(bool) for some in _known_sets(np.asarray(y_true), np.asarray(y_pred)))
    both, either = (y_true & y_pred).sum(1), (y_true | y_pred).sum(1)
    return float(np.where(either == 0, 1.0, both / np.maximum(either, 1)).mean())


def _known_sets(y_true, y_pred):
    """Both as 0/1 arrays of the examples of which something is known, with a no on both sides in unknown cells.

    What F1, the Hamming score and subset accuracy count is the same then as on the known cells alone.
    """
    cells = known(y_true)
    rows = cells.any(axis=1)
    return (y_true * cells)[rows], (y_pred * cells)[rows]


def decision_scores(y_true, y_prob, thresholds=0.5, min_positives=MIN_POSITIVES):
    """The scores that need decisions, which `decide` makes (one threshold for all, or one a label).

    F1 macro is the mean over the labels with at least `min_positives` positives, those of `macro_average_precision`;
    where there is none, F1 micro takes its place. The other scores are over all known cells. Subset accuracy asks
    whether the known cells of an example are all right; an example of which nothing is known counts neither there nor
    in F1 samples and the Hamming score.

    Returns a dict: subset accuracy, F1 micro / macro / samples, Hamming loss, Hamming score; NaN if nothing is known.
    """
    y_true, y_prob = check_arrays(y_true, y_prob)
    y_pred, cells = decide(y_prob, thresholds), known(y_true)
    if not cells.any():
        return dict.fromkeys(DECISION_SCORES, float("nan"))
    wrong = hamming_loss(y_true[cells], y_pred[cells])
    y_true, y_pred = _known_sets(y_true, y_pred)
    counts = np.flatnonzero(labels_that_count(y_true, min_positives))
    micro = f1_score(y_true, y_pred, average="micro", zero_division=0)
    return {
        "subset accuracy": accuracy_score(y_true, y_pred),
        "F1 micro": micro,
        "F1 macro": f1_score(y_true, y_pred, average=None, zero_division=0)[counts].mean() if len(counts) else micro,
        "F1 samples": f1_score(y_true, y_pred, average="samples", zero_division=1),
        "Hamming loss": wrong,
        "Hamming score": hamming_score(y_true, y_pred),
    }


def per_label_table(y_true, y_prob, label_names, thresholds=0.5):
    """A DataFrame with a row a label: support, average precision, threshold, precision, recall, F1."""
    y_true, y_prob = check_arrays(y_true, y_prob)
    thresholds, cells = np.broadcast_to(np.asarray(thresholds, float), y_prob.shape[1:]), known(y_true)
    y_pred = decide(y_prob, thresholds)
    precision, recall, f1, support = precision_recall_fscore_support(
        y_true * cells, y_pred * cells, average=None, labels=range(y_true.shape[1]), zero_division=0
    )
    return pd.DataFrame(
        {
            "support": support,
            "AP": label_average_precision(y_true, y_prob),
            "threshold": thresholds,
            "precision": precision,
            "recall": recall,
            "F1": f1,
        },
        index=list(label_names),
    )


def compare(y_true, predictions, thresholds=0.5):
    """Put models side by side.

    Parameters
    ----------
    predictions : dict
        From the model's name to its y_prob.

    Returns
    -------
    pandas.DataFrame, a row a model: macro-AP with its 95% interval, then `decision_scores` at the thresholds.
    """
    rows = {}
    for name, y_prob in predictions.items():
        score = macro_average_precision(y_true, y_prob)
        low, high = interval(resampled_macro_ap(y_true, y_prob), score)
        rows[name] = {
            "macro-AP": score,
            "low": low,
            "high": high,
            **decision_scores(y_true, y_prob, thresholds),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def differences(y_true, predictions, model):
    """What a model is ahead of each other one in macro-AP, on the same resampled examples.

    Parameters
    ----------
    y_true : 0/1 array of shape (n_examples, n_labels)
        UNKNOWN where a label is unknown.
    predictions : dict
        From each model's name to its y_prob.
    model : str
        One of the names.

    Returns
    -------
    pandas.DataFrame, a row another model: difference, its 95% interval (low, high), and how the model stands on these
    texts. That is of one training of each: how far another seed would move it, the interval does not know.
    """
    draws = {name: resampled_macro_ap(y_true, y_prob) for name, y_prob in predictions.items()}
    points = {name: macro_average_precision(y_true, y_prob) for name, y_prob in predictions.items()}
    rows = {}
    for name in predictions:
        if name != model:
            point = points[model] - points[name]
            low, high = interval(draws[model] - draws[name])
            where = "ahead" if low > 0 else "behind" if high < 0 else "can't be told apart"
            rows[name] = [point, low, high, where]
    return pd.DataFrame.from_dict(rows, orient="index", columns=["difference", "low", "high", "on these texts"])
