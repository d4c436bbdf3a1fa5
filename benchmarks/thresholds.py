"""Macro F1 at 0.5, at the thresholds of highest F1 on validation, and at those of the course: three sets, five seeds.

python benchmarks/thresholds.py [GOEMOTIONS]    GOEMOTIONS: a folder with train.csv.gz, dev.csv.gz and test.csv.gz

Models are trained with the course's recipe, or taken from a run of benchmarks/recipes.py. "halves": thresholds are
chosen on one half of the validation rows and scored on the other, three divisions both ways; rules were compared by
that. "test": chosen on all of validation, scored on test. Results: results/thresholds.csv.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import recipes
from common import save_results

from helpers.data import label_matrix
from helpers.metrics import decision_scores
from helpers.thresholds import trusted_thresholds, tune_thresholds


def rules(y_true, y_prob):
    """Thresholds of each rule, arrays of shape (n_labels,), from validation data."""
    return {
        "0.5": np.full(y_true.shape[1], 0.5),
        "highest F1": tune_thresholds(y_true, y_prob, min_positives=1),
        "highest F1, ten positives": tune_thresholds(y_true, y_prob),
        "the course's": trusted_thresholds(y_true, y_prob)["threshold"].to_numpy(),
    }


def scored(y_true, y_prob, thresholds):
    """Macro F1 over the labels that count."""
    return decision_scores(y_true, y_prob, thresholds)["F1 macro"]


def halves(y_true, y_prob):
    """Macro F1 of each rule, chosen on one half and scored on the other: {rule: mean}."""
    scores = {}
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(y_true))
        one, other = order[: len(order) // 2], order[len(order) // 2 :]
        for here, there in ((one, other), (other, one)):
            for rule, thresholds in rules(y_true[here], y_prob[here]).items():
                scores.setdefault(rule, []).append(scored(y_true[there], y_prob[there], thresholds))
    return {rule: np.mean(values) for rule, values in scores.items()}


def measure(name, dataset):
    """A row a seed, rule and way of scoring."""
    run, splits = recipes.open_run(dataset)
    y_valid, y_test = (label_matrix(splits[split]) for split in ("validation", "test"))
    for seed in recipes.SEEDS:
        y_prob, _ = recipes.course_predictions(name, run, splits, seed)
        found = {"halves": halves(y_valid, y_prob["validation"])}
        cuts = rules(y_valid, y_prob["validation"])
        found["test"] = {rule: scored(y_test, y_prob["test"], chosen) for rule, chosen in cuts.items()}
        for where, scores in found.items():
            print(name, seed, where, {rule: round(score, 3) for rule, score in scores.items()}, flush=True)
            for rule, score in scores.items():
                yield {"dataset": name, "seed": seed, "scored on": where, "rule": rule, "F1 macro": score}


def main(goemotions=None):
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        sets = {"movies": "movies", "comments": "comments"}
        if goemotions:
            sets["goemotions, 2,000 rows"] = recipes.some_goemotions(goemotions, Path(folder) / "goemotions.csv")
        for name, dataset in sets.items():
            rows += measure(name, dataset)
            save_results("thresholds", pd.DataFrame(rows))


if __name__ == "__main__":
    main(*sys.argv[1:2])
