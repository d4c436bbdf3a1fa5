import numpy as np
import pytest
from sklearn.metrics import f1_score

from helpers.labels import UNKNOWN
from helpers.thresholds import best_f1_threshold, resampled_thresholds, trusted_thresholds, tune_thresholds


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
    y_true[:9, 0] = 1
    y_true[:10, 1] = 1
    y_prob = np.where(y_true == 1, 0.2, 0.1)
    thresholds = tune_thresholds(y_true, y_prob)
    assert thresholds[0] == 0.5
    assert 0.1 < thresholds[1] < 0.2


def f1(y_true, y_pred):
    return f1_score(y_true, y_pred, zero_division=0)


def test_resampled_thresholds_are_those_of_the_drawn_rows():
    rng = np.random.default_rng(3)
    y_true = (rng.random(70) < 0.3).astype(int)
    y_prob = np.clip(0.3 * y_true + rng.random(70).round(2) * 0.7, 0, 1)
    order = np.argsort(-y_prob, kind="stable")  # the draws are of rows in this order
    y_true, y_prob = y_true[order], y_prob[order]
    thresholds, differences = resampled_thresholds(y_true, y_prob, n_draws=20, seed=7)
    weights = np.random.default_rng(7).multinomial(70, np.full(70, 1 / 70), size=20)
    for cut, difference, counts in zip(thresholds, differences, weights, strict=True):
        rows = np.repeat(np.arange(70), counts)
        there = max(f1(y_true[rows], y_prob[rows] >= other) for other in np.unique(y_prob))
        assert f1(y_true[rows], y_prob[rows] >= cut) == pytest.approx(there)
        assert difference == pytest.approx(there - f1(y_true, y_prob >= cut))


def test_resampling_in_chunks_changes_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    data = (rng.random(50) < 0.4).astype(int), rng.random(50)
    whole = resampled_thresholds(*data)
    monkeypatch.setattr("helpers.thresholds.CELLS", 50 * 7)
    assert np.array_equal(whole, resampled_thresholds(*data))


def test_only_a_gain_above_its_optimism_moves_a_threshold():
    rng = np.random.default_rng(0)
    n = 400
    y_true = np.zeros((n, 3), int)
    y_true[:60], y_true[9:, 2] = 1, 0
    y_prob = np.column_stack(
        [
            np.where(y_true[:, 0] == 1, 0.3, 0.1) + rng.random(n) * 0.15,  # a cut at 0.5 finds none of them
            rng.random(n),  # knows nothing
            np.where(y_true[:, 2] == 1, 0.3, 0.1),  # nine positives
        ]
    )
    table = trusted_thresholds(y_true, y_prob)
    assert table["positives"].tolist() == [60, 60, 9]
    assert 0.2 < table["threshold"][0] < 0.4
    assert table["gain"][0] > 0.8 > table["optimism"][0]
    assert table["threshold"][1:].tolist() == [0.5, 0.5]
    assert 0 < table["gain"][1] <= table["optimism"][1], "what it gains is luck"
    assert table.loc[2, ["gain", "optimism"]].isna().all()


def test_a_threshold_is_chosen_on_the_rows_of_which_the_label_is_known():
    rng = np.random.default_rng(2)
    y_true = (rng.random((200, 3)) < [0.3, 0.3, 0.06]).astype(int)
    y_prob = np.clip(0.2 * y_true + rng.random((200, 3)) * 0.4, 0, 1)
    y_true[rng.random((200, 3)) < 0.3] = UNKNOWN
    assert 0 < (y_true[:, 2] == 1).sum() < 10
    table, tuned = trusted_thresholds(y_true, y_prob), tune_thresholds(y_true, y_prob)
    for k in range(3):
        rows = y_true[:, k] != UNKNOWN
        alone = y_true[rows, k : k + 1], y_prob[rows, k : k + 1]
        assert tuned[k] == tune_thresholds(*alone)[0]
        assert table.loc[[k]].reset_index(drop=True).equals(trusted_thresholds(*alone))
    assert tuned[0] != 0.5 == tuned[2]
