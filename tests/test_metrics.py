import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, jaccard_score

from helpers import metrics
from helpers.labels import UNKNOWN


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    y_true = (rng.random((160, 4)) < [0.5, 0.3, 0.15, 0.12]).astype(int)
    y_prob = np.clip(0.3 * y_true + rng.random((160, 4)).round(1) * 0.7, 0, 1)  # rounded, so that there are ties
    assert y_true.sum(axis=0).min() >= metrics.MIN_POSITIVES
    return y_true, y_prob


def few_positives(y_true, label, n):
    """The same array with only the first n positives of one label."""
    y_true = y_true.copy()
    y_true[np.flatnonzero(y_true[:, label])[n:], label] = 0
    return y_true


def test_macro_average_precision_is_the_librarys(arrays):
    assert metrics.macro_average_precision(*arrays) == pytest.approx(average_precision_score(*arrays, average="macro"))


@pytest.mark.parametrize("n", [0, 1, metrics.MIN_POSITIVES - 1])
def test_a_label_with_few_positives_takes_part_in_no_score_that_decides(arrays, n):
    y_true, y_prob = arrays
    y_true = few_positives(y_true, 3, n)
    others = y_true[:, :3], y_prob[:, :3]
    assert metrics.labels_that_count(y_true).tolist() == [True, True, True, False]
    assert np.isnan(metrics.label_average_precision(y_true, y_prob)[3]) == (n == 0)
    assert metrics.macro_average_precision(y_true, y_prob) == metrics.macro_average_precision(*others)
    assert np.array_equal(metrics.resampled_macro_ap(y_true, y_prob, 20), metrics.resampled_macro_ap(*others, 20))
    scores, without = metrics.decision_scores(y_true, y_prob), metrics.decision_scores(*others)
    assert scores["F1 macro"] == without["F1 macro"] == f1_score(*others_decided(others), average="macro")
    assert scores["F1 micro"] != without["F1 micro"], "what is counted over cells leaves no cell out"


def others_decided(others):
    return others[0], metrics.decide(others[1])


def test_where_no_label_counts_all_cells_are_one_ranking(arrays):
    y_true, y_prob = arrays
    for label in range(4):
        y_true = few_positives(y_true, label, metrics.MIN_POSITIVES - 1)
    score = metrics.macro_average_precision(y_true, y_prob)
    assert score == pytest.approx(average_precision_score(y_true, y_prob, average="micro"))
    draws = metrics.resampled_macro_ap(y_true, y_prob, n_draws=5, seed=7)
    weights = np.random.default_rng(7).multinomial(160, np.full(160, 1 / 160), size=5)
    for draw, counts in zip(draws, weights, strict=True):
        rows = np.repeat(np.arange(160), counts)
        assert draw == pytest.approx(average_precision_score(y_true[rows], y_prob[rows], average="micro"))
    scores = metrics.decision_scores(y_true, y_prob)
    assert scores["F1 macro"] == scores["F1 micro"]
    assert np.isnan(metrics.macro_average_precision(np.zeros_like(y_true), y_prob))


def test_trivial_answers_get_the_labels_shares(arrays):
    y_true, _ = arrays
    for constant in (0.0, 0.3):
        assert metrics.macro_average_precision(y_true, np.full(y_true.shape, constant)) == pytest.approx(y_true.mean())


def test_resampling_equals_scoring_the_resampled_rows(arrays):
    y_true, y_prob = arrays
    draws = metrics.resampled_macro_ap(y_true, y_prob, n_draws=5, seed=7)
    weights = np.random.default_rng(7).multinomial(160, np.full(160, 1 / 160), size=5)
    for draw, counts in zip(draws, weights, strict=True):
        rows = np.repeat(np.arange(160), counts)
        assert draw == pytest.approx(average_precision_score(y_true[rows], y_prob[rows], average="macro"))


def test_the_interval_holds_the_score_and_shrinks_with_more_examples(arrays):
    y_true, y_prob = arrays
    score = metrics.macro_average_precision(y_true, y_prob)
    low, high = metrics.interval(metrics.resampled_macro_ap(y_true, y_prob), score)
    assert low < score < high
    more = metrics.interval(metrics.resampled_macro_ap(np.tile(y_true, (9, 1)), np.tile(y_prob, (9, 1))), score)
    assert more[1] - more[0] < 0.5 * (high - low)


def test_the_interval_is_the_plain_one_around_the_median_and_moves_away_from_the_bias():
    draws = np.random.default_rng(0).normal(0.6, 0.05, 20_000)
    plain = np.quantile(draws, [0.025, 0.975])
    assert metrics.interval(draws) == pytest.approx(plain)
    assert metrics.interval(draws, np.median(draws)) == pytest.approx(plain, abs=1e-3)
    low, high = metrics.interval(draws, 0.57)  # the draws lie too high
    assert low < plain[0] - 0.02
    assert high < plain[1] - 0.02
    assert low < 0.57 < high
    assert metrics.interval(np.append(draws, np.nan), 0.57) == (low, high)
    assert metrics.interval(draws, 0.9)[1] == draws.max(), "never outside the draws"
    assert np.isnan(metrics.interval(np.full(5, np.nan), 0.5)).all()


def test_the_corrected_interval_holds_the_truth_more_often():
    """Twenty labels of some twenty positives: the truth is known, since the examples are drawn from it."""
    rng = np.random.default_rng(0)

    def examples(n, n_labels):
        y_true = (rng.random((n, n_labels)) < 0.1).astype(int)
        return y_true, 1 / (1 + np.exp(-rng.normal(2.0 * y_true)))

    truth, hits = metrics.macro_average_precision(*examples(200_000, 1)), {"plain": 0, "corrected": 0}
    for _ in range(60):
        y_true, y_prob = examples(200, 20)
        draws = metrics.resampled_macro_ap(y_true, y_prob, n_draws=300)
        for kind, point in (
            ("plain", np.median(draws)),
            ("corrected", metrics.macro_average_precision(y_true, y_prob)),
        ):
            low, high = metrics.interval(draws, point)
            hits[kind] += low <= truth <= high
    assert hits["corrected"] > hits["plain"] + 6
    assert hits["corrected"] > 0.7 * 60


def test_resampling_in_chunks_changes_nothing(arrays, monkeypatch):
    whole = metrics.resampled_macro_ap(*arrays, n_draws=50)
    monkeypatch.setattr(metrics, "CELLS", 160 * 7)
    assert np.array_equal(metrics.resampled_macro_ap(*arrays, n_draws=50), whole)


def test_differences_are_those_of_the_same_draws(arrays):
    y_true, y_prob = arrays
    predictions = {"model": y_prob, "the same": y_prob, "nothing": np.zeros_like(y_prob)}
    table = metrics.differences(y_true, predictions, "model")
    assert table.index.tolist() == ["the same", "nothing"]
    assert table.loc["the same", ["difference", "low", "high"]].tolist() == [0, 0, 0]
    assert table["on these texts"].tolist() == ["can't be told apart", "ahead"]
    score = metrics.macro_average_precision(y_true, y_prob)
    assert table.loc["nothing", "difference"] == pytest.approx(score - y_true.mean())
    assert metrics.differences(y_true, predictions, "nothing").loc["model", "on these texts"] == "behind"


def test_hamming_score_by_hand_and_against_jaccard(arrays):
    y_true = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1]])
    y_pred = np.array([[1, 0, 0], [1, 0, 0], [0, 0, 0], [1, 0, 0]])
    assert metrics.hamming_score(y_true, y_pred) == (1 + 0.5 + 1 + 0) / 4
    some, decided = arrays[0], arrays[1] >= 0.5
    filled = some.any(1) | decided.any(1)
    assert metrics.hamming_score(some[filled], decided[filled]) == pytest.approx(
        jaccard_score(some[filled], decided[filled], average="samples", zero_division=0)
    )


def test_decision_scores_by_hand():
    y_true = np.array([[1, 0], [1, 1], [0, 0], [0, 1]])
    y_prob = np.array([[0.9, 0.1], [0.7, 0.4], [0.2, 0.3], [0.6, 0.1]])
    scores = metrics.decision_scores(y_true, y_prob, min_positives=1)
    assert scores["subset accuracy"] == 2 / 4
    assert scores["Hamming loss"] == 3 / 8
    assert scores["F1 micro"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 2))
    assert scores["F1 macro"] == pytest.approx((4 / 5 + 0) / 2)
    lower = metrics.decision_scores(y_true, y_prob, [0.65, 0.35])
    assert lower["subset accuracy"] == 3 / 4


def test_per_label_table_and_compare(arrays):
    y_true, y_prob = arrays
    table = metrics.per_label_table(y_true, y_prob, list("abcd"), [0.5, 0.4, 0.3, 0.2])
    assert table.loc["a", "support"] == y_true[:, 0].sum()
    assert table["threshold"].tolist() == [0.5, 0.4, 0.3, 0.2]
    both = metrics.compare(y_true, {"model": y_prob, "all zeros": np.zeros_like(y_prob)})
    assert both.loc["model", "macro-AP"] > both.loc["all zeros", "macro-AP"]
    score = metrics.macro_average_precision(y_true, y_prob)
    low, high = metrics.interval(metrics.resampled_macro_ap(y_true, y_prob), score)
    assert both.loc["model", ["macro-AP", "low", "high"]].tolist() == [score, low, high]
    assert both.loc["all zeros", "F1 macro"] == 0


@pytest.mark.parametrize(
    ("y_true", "y_prob", "message"),
    [
        (np.ones((3, 2)), np.ones((3, 3)), "one shape"),
        (np.ones(3), np.ones(3), "n_examples, n_labels"),
        (np.full((3, 2), 2), np.ones((3, 2)), "only 0 and 1, or -100"),
        (np.full((3, 2), -1), np.ones((3, 2)), "only 0 and 1, or -100"),
        (np.ones((3, 2)), np.full((3, 2), 3.7), "apply a sigmoid"),
        (np.ones((3, 2)), np.full((3, 2), np.nan), "probabilities"),
    ],
)
def test_arrays_that_cannot_be_scored_are_refused(y_true, y_prob, message):
    with pytest.raises(ValueError, match=message):
        metrics.macro_average_precision(y_true, y_prob)


def test_decide_reaches_and_broadcasts():
    assert metrics.decide([[0.5, 0.5], [0.4, 0.6]], [0.5, 0.6]).tolist() == [[1, 0], [0, 1]]
    assert metrics.decide([[0.5, 0.5], [0.4, 0.6]], 0.5).tolist() == [[1, 1], [0, 1]]


# Unknown labels -------------------------------------------------------------------------------------------------------


@pytest.fixture
def partly(arrays):
    """y_true with unknown cells and a row without any known one, y_prob, and where y_true is known."""
    y_true, y_prob = arrays[0].copy(), arrays[1]
    hidden = np.random.default_rng(1).random(y_true.shape) < [0.3, 0.1, 0.05, 0]
    hidden[5] = True
    y_true[hidden] = UNKNOWN
    assert metrics.labels_that_count(y_true).all()
    return y_true, y_prob, ~hidden


def test_a_label_is_ranked_on_the_rows_of_which_it_is_known(partly):
    y_true, y_prob, known = partly
    alone = [average_precision_score(y_true[known[:, k], k], y_prob[known[:, k], k]) for k in range(4)]
    assert metrics.label_average_precision(y_true, y_prob).tolist() == alone
    assert metrics.macro_average_precision(y_true, y_prob) == np.mean(alone)
    assert metrics.per_label_table(y_true, y_prob, list("abcd"))["AP"].tolist() == alone


def test_unknown_is_no_positive_when_labels_are_counted(partly):
    y_true, y_prob, _ = partly
    y_true[:, 3] = UNKNOWN
    y_true[:9, 3] = 1
    assert metrics.labels_that_count(y_true).tolist() == [True, True, True, False]
    y_true[:9, 3] = 0
    y_true[:, 2] = UNKNOWN
    assert metrics.labels_that_count(y_true).tolist() == [True, True, False, False]
    assert np.isnan(metrics.label_average_precision(y_true, y_prob)).tolist() == [False, False, True, True]


def test_draws_of_rows_score_the_cells_that_are_known_in_them(partly):
    y_true, y_prob, known = partly
    draws = metrics.resampled_macro_ap(y_true, y_prob, n_draws=5, seed=7)
    few = y_true.copy()
    few[20:] = np.where(known[20:], 0, UNKNOWN)  # no label counts: all known cells are one ranking
    assert not metrics.labels_that_count(few).any()
    assert metrics.macro_average_precision(few, y_prob) == average_precision_score(few[known], y_prob[known])
    micro_draws = metrics.resampled_macro_ap(few, y_prob, n_draws=5, seed=7)
    weights = np.random.default_rng(7).multinomial(160, np.full(160, 1 / 160), size=5)
    for draw, micro, counts in zip(draws, micro_draws, weights, strict=True):
        rows = np.repeat(np.arange(160), counts)
        cells = [(rows[known[rows, k]], k) for k in range(4)]
        assert draw == pytest.approx(np.mean([average_precision_score(y_true[cell], y_prob[cell]) for cell in cells]))
        there = known[rows]
        assert micro == pytest.approx(average_precision_score(few[rows][there], y_prob[rows][there]))


def test_decisions_are_scored_on_known_cells(partly):
    y_true, y_prob, known = partly
    y_pred, rows = metrics.decide(y_prob), [i for i in range(160) if i != 5]
    scores = metrics.decision_scores(y_true, y_prob)
    by_label = [f1_score(y_true[known[:, k], k], y_pred[known[:, k], k]) for k in range(4)]
    assert scores["F1 macro"] == pytest.approx(np.mean(by_label))
    assert scores["F1 micro"] == pytest.approx(f1_score(y_true[known], y_pred[known]))
    assert scores["Hamming loss"] == pytest.approx((y_true != y_pred)[known].mean())
    pairs = [(y_true[i][known[i]], y_pred[i][known[i]]) for i in rows]
    assert scores["subset accuracy"] == pytest.approx(np.mean([(a == b).all() for a, b in pairs]))
    assert scores["F1 samples"] == pytest.approx(np.mean([f1_score(a, b, zero_division=1) for a, b in pairs]))
    jaccard = np.mean([1.0 if not (a | b).any() else (a & b).sum() / (a | b).sum() for a, b in pairs])
    assert scores["Hamming score"] == metrics.hamming_score(y_true, y_pred) == pytest.approx(jaccard)
    table = metrics.per_label_table(y_true, y_prob, list("abcd"))
    assert table["F1"].tolist() == pytest.approx(by_label)
    assert table["support"].tolist() == (y_true == 1).sum(axis=0).tolist()


def test_what_unknown_cells_are_predicted_changes_no_score(partly):
    y_true, y_prob, known = partly
    other = np.where(known, y_prob, 1 - y_prob)
    tables = [metrics.compare(y_true, {"model": p, "nothing": np.zeros_like(p)}) for p in (y_prob, other)]
    assert tables[0].equals(tables[1])
    table = metrics.differences(y_true, {"one": y_prob, "other": other}, "one")
    assert table.loc["other", ["difference", "low", "high"]].tolist() == [0, 0, 0]


def test_where_nothing_is_known_no_score_is_a_number_and_none_fails():
    y_true, y_prob = np.full((12, 2), UNKNOWN, dtype=np.float32), np.full((12, 2), 0.7)
    assert np.isnan(metrics.compare(y_true, {"model": y_prob}).to_numpy(dtype=float)).all()
    table = metrics.per_label_table(y_true, y_prob, ["a", "b"])
    assert table["support"].tolist() == [0, 0]
    assert table["AP"].isna().all()
