"""How often 95% intervals hold the truth: plain percentiles of the bootstrap, and the course's, corrected for bias.

python benchmarks/intervals.py

Examples are drawn from a known distribution: a share of positives a label, and scores that are normal, higher by SHIFT
for positives. The truth is the average precision of 600,000 such examples. Each row of the table is 200 data sets, an
interval of 500 draws each; labels with fewer than ten positives are left out. Coverage itself is known to within 0.03.
Results: results/intervals.csv.
"""

import numpy as np
import pandas as pd
from common import save_results

from helpers.metrics import interval, macro_average_precision, resampled_macro_ap

REPEATS, DRAWS, MIN_POSITIVES = 200, 500, 10
SITUATIONS = [  # examples, share of positives, labels
    (315, 0.04, 3),
    (315, 0.04, 6),
    (1800, 0.037, 6),
    (1000, 0.03, 28),
    (200, 0.1, 20),
]
SHIFT, LESS = 2.0, 1.7  # of a model, and of another with which it is compared


def examples(rng, n, share, n_labels):
    """Labels, and the scores of two models that err on the same examples for a half."""
    y_true = (rng.random((n, n_labels)) < share).astype(int)
    common = rng.normal(size=y_true.shape)
    scores = [np.sqrt(0.5) * (common + rng.normal(size=y_true.shape)) + shift * y_true for shift in (SHIFT, LESS)]
    return y_true, [1 / (1 + np.exp(-s)) for s in scores]


def cover(n, share, n_labels):
    """Two rows: a model's score, and its difference to another's."""
    rng = np.random.default_rng(0)
    y_true, models = examples(rng, 600_000, share, 1)
    truths = [macro_average_precision(y_true, y_prob) for y_prob in models]
    truth = {"score": truths[0], "difference": truths[0] - truths[1]}
    found = {what: [] for what in truth}
    while len(found["score"]) < REPEATS:
        y_true, models = examples(rng, n, share, n_labels)
        counts = y_true.sum(axis=0) >= MIN_POSITIVES
        if not counts.any():
            continue
        y_true, models = y_true[:, counts], [y_prob[:, counts] for y_prob in models]
        points = [macro_average_precision(y_true, y_prob) for y_prob in models]
        draws = [resampled_macro_ap(y_true, y_prob, DRAWS) for y_prob in models]
        for what, point, drawn in (
            ("score", points[0], draws[0]),
            ("difference", points[0] - points[1], draws[0] - draws[1]),
        ):
            plain, corrected = interval(drawn), interval(drawn, point)
            held = [low <= truth[what] <= high for low, high in (plain, corrected)]
            found[what].append([drawn.mean() - point, *held, corrected[1] - corrected[0]])
    for what, values in found.items():
        bias, plain, corrected, width = np.mean(values, axis=0)
        yield {
            "examples": n,
            "share": share,
            "labels": n_labels,
            "of": what,
            "truth": truth[what],
            "draws lie higher by": bias,
            "plain holds it": plain,
            "corrected holds it": corrected,
            "width": width,
        }


def main():
    rows = []
    for situation in SITUATIONS:
        rows += cover(*situation)
        print(pd.DataFrame(rows[-2:]).round(3).to_string(index=False), flush=True)
    save_results("intervals", pd.DataFrame(rows))


if __name__ == "__main__":
    main()
