"""Where to cut probabilities into decisions. Choose on validation data, never on test."""

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_curve

from helpers.metrics import CELLS, MIN_POSITIVES, check_arrays, known_rows


def tune_thresholds(y_true, y_prob, min_positives=MIN_POSITIVES, default=0.5):
    """For each label the threshold with the highest F1 on these (validation) data.

    The candidates are the midpoints between neighbouring probabilities, so that a prediction does not hang on the last
    digit of one of them. A label with fewer than `min_positives` positives keeps `default`: a threshold fitted on so
    few is noise.

    Parameters
    ----------
    y_true : 0/1 array of shape (n_examples, n_labels)
        UNKNOWN where a label is unknown; its threshold is chosen on the other examples.
    y_prob : float array of shape (n_examples, n_labels)

    Returns
    -------
    float array of shape (n_labels,)
    """
    y_true, y_prob = check_arrays(y_true, y_prob)
    return np.array(
        [
            best_f1_threshold(labels, scores) if labels.sum() >= min_positives else default
            for labels, scores in known_rows(y_true, y_prob)
        ]
    )


def best_f1_threshold(y_true, y_prob):
    """The threshold with the highest F1 for one label; arrays of shape (n_examples,)."""
    precision, recall, cuts = precision_recall_curve(y_true, y_prob)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = int(np.argmax(f1[:-1]))
    below = cuts[best - 1] if best > 0 else 0.0
    return float((below + cuts[best]) / 2)


def trusted_thresholds(y_true, y_prob, min_positives=MIN_POSITIVES, default=0.5):
    """What tuning gains for each label on these (validation) data, how much of it is luck, and the threshold to use.

    A threshold that is chosen and scored on the same examples looks better than it is: by its optimism, which
    `resampled_thresholds` estimates. Where a label has `min_positives` positives and gains more over `default` than
    that, its threshold is the mean of those chosen on resampled examples (bagging: Breiman, 1996,
    doi:10.1007/BF00058655), which is steadier than the one of highest F1; else it stays at the default.
    benchmarks/thresholds.py compares the rule with others.

    Parameters
    ----------
    y_true : 0/1 array of shape (n_examples, n_labels)
        UNKNOWN where a label is unknown.
    y_prob : float array of shape (n_examples, n_labels)
    min_positives : int
    default : float

    Returns
    -------
    pandas.DataFrame, a row a label, in their order: positives, gain (of the threshold of highest F1 over the default)
    and optimism, NaN where there are too few positives, and threshold.
    """
    y_true, y_prob = check_arrays(y_true, y_prob)
    rows = []
    for labels, scores in known_rows(y_true, y_prob):
        gain = optimism = float("nan")
        threshold = default
        if labels.sum() >= min_positives:
            cuts, differences = resampled_thresholds(labels, scores)
            at_best, at_default = (_f1(labels, scores >= cut) for cut in (best_f1_threshold(labels, scores), default))
            gain, optimism = at_best - at_default, differences.mean()
            threshold = cuts.mean() if gain > optimism else default
        rows.append({"positives": labels.sum(), "gain": gain, "optimism": optimism, "threshold": threshold})
    return pd.DataFrame(rows)


def resampled_thresholds(y_true, y_prob, n_draws=200, seed=0):
    """The threshold of highest F1 on examples drawn again with replacement, and what its F1 is higher there.

    The mean of the latter, F1 on the draw less F1 on the examples themselves, is the optimism of a threshold that is
    scored where it was chosen (Efron, 1983, doi:10.2307/2288636).

    Parameters
    ----------
    y_true : 0/1 array of shape (n_examples,)
    y_prob : float array of shape (n_examples,)

    Returns
    -------
    (thresholds, differences) : float arrays of shape (n_draws,)
    """
    order = np.argsort(-y_prob, kind="stable")
    y_true, y_prob = y_true[order], y_prob[order]
    last_of_ties = np.append(np.diff(y_prob) != 0, True)
    values = y_prob[last_of_ties]
    middles = (values + np.append(values[1:], 0.0)) / 2
    own = _f1_of_cuts(np.ones((1, len(y_true)), dtype=int), y_true, last_of_ties)[0]
    generator, chosen, differences = np.random.default_rng(seed), [], []
    at_once = max(1, CELLS // len(y_true))
    for start in range(0, n_draws, at_once):
        size = min(at_once, n_draws - start)
        weights = generator.multinomial(len(y_true), np.full(len(y_true), 1 / len(y_true)), size=size)
        drawn = _f1_of_cuts(weights, y_true, last_of_ties)
        best = drawn.argmax(axis=1)
        chosen.append(middles[best])
        differences.append(drawn[np.arange(size), best] - own[best])
    return np.concatenate(chosen), np.concatenate(differences)


def _f1_of_cuts(weights, y_true, places):
    """F1 of a yes for all rows down to each place, (n_draws, n_places); rows are sorted by falling probability."""
    hits, drawn = np.cumsum(weights * y_true, axis=1), np.cumsum(weights, axis=1)
    return (2 * hits / np.maximum(drawn + hits[:, -1:], 1))[:, places]


def _f1(y_true, y_pred):
    return 2 * (y_true & y_pred).sum() / max(1, y_true.sum() + y_pred.sum())
