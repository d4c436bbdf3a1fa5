"""Where to cut probabilities into decisions. Choose on validation data, never on test."""

import numpy as np
from sklearn.metrics import precision_recall_curve

from helpers.metrics import check_arrays


def tune_thresholds(y_true, y_prob, min_positives=5, default=0.5):
    """For each label the threshold with the highest F1 on these (validation) data.

    The candidates are the midpoints between neighbouring probabilities, so that a prediction does not hang on the last
    digit of one of them. A label with fewer than `min_positives` positives keeps `default`: a threshold fitted on so
    few is noise.

    Parameters
    ----------
    y_true : 0/1 array of shape (n_examples, n_labels)
    y_prob : float array of shape (n_examples, n_labels)

    Returns
    -------
    float array of shape (n_labels,)
    """
    y_true, y_prob = check_arrays(y_true, y_prob)
    return np.array(
        [
            best_f1_threshold(y_true[:, k], y_prob[:, k]) if y_true[:, k].sum() >= min_positives else default
            for k in range(y_true.shape[1])
        ]
    )


def best_f1_threshold(y_true, y_prob):
    """The threshold with the highest F1 for one label; arrays of shape (n_examples,)."""
    precision, recall, cuts = precision_recall_curve(y_true, y_prob)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = int(np.argmax(f1[:-1]))
    below = cuts[best - 1] if best > 0 else 0.0
    return float((below + cuts[best]) / 2)
