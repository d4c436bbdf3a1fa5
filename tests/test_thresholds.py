import numpy as np
from sklearn.metrics import f1_score

from helpers.thresholds import best_f1_threshold, tune_thresholds


def test_no_other_threshold_does_better():
    rng = np.random.default_rng(1)
    for _ in range(20):
        y_true = (rng.random(60) < 0.3).astype(int)
        y_prob = np.clip(0.2 * y_true + rng.random(60).round(2) * 0.8, 0, 1)
        tuned = f1_score(y_true, y_prob >= best_f1_threshold(y_true, y_prob))
        assert tuned == max(f1_score(y_true, y_prob >= cut) for cut in np.unique(y_prob))


def test_the_threshold_lies_between_two_probabilities():
    assert best_f1_threshold(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.6, 0.9])) == 0.4


def test_few_positives_keep_the_default():
    y_true = np.zeros((50, 2), int)
    y_true[:4, 0] = 1
    y_true[:5, 1] = 1
    y_prob = np.where(y_true == 1, 0.2, 0.1)
    thresholds = tune_thresholds(y_true, y_prob)
    assert thresholds[0] == 0.5
    assert 0.1 < thresholds[1] < 0.2
