import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402

from helpers import plots  # noqa: E402

TABLE = pd.DataFrame({"macro-AP": [0.2, 0.6], "low": [0.1, 0.5], "high": [0.3, 0.7]}, index=["all zeros", "model"])
CASES = {
    "label_counts": (pd.Series({"a": 3, "b": 9}),),
    "model_scores": (TABLE,),
    "lengths": (np.array([3, 5, 90]), 64),
}


@pytest.mark.parametrize("name", CASES)
def test_each_plot_takes_and_returns_axes_and_names_its_own(name):
    fig, ax = plt.subplots()
    assert getattr(plots, name)(*CASES[name], ax=ax) is ax
    own = getattr(plots, name)(*CASES[name])
    assert own is not ax
    assert own.get_title(loc="left") or own.get_title()
    assert own.get_xlabel()
    plt.close("all")


def test_what_is_drawn_is_what_was_given():
    ax = plots.label_counts(CASES["label_counts"][0])
    assert {label.get_text(): bar.get_width() for label, bar in zip(ax.get_yticklabels(), ax.patches, strict=True)} == {
        "a": 3,
        "b": 9,
    }
    ax = plots.model_scores(TABLE)
    points = next(line for line in ax.lines if line.get_marker() == "o")
    assert sorted(points.get_xdata()) == [0.2, 0.6]
    bars = [segment[:, 0].tolist() for segment in ax.collections[0].get_segments()]
    assert np.allclose(sorted(bars), [[0.1, 0.3], [0.5, 0.7]])
    off = TABLE.assign(low=[0.25, 0.5])  # an interval need not hold its point: it is drawn where it is
    bars = [segment[:, 0].tolist() for segment in plots.model_scores(off).collections[0].get_segments()]
    assert np.allclose(sorted(bars), [[0.25, 0.3], [0.5, 0.7]])
    assert any("33.3%" in text.get_text() for text in plots.lengths(*CASES["lengths"]).texts)
    plt.close("all")


def table_of(n):
    return pd.DataFrame({"AP": np.linspace(0, 1, n)}, index=[f"label {k}" for k in range(n)])


def test_tables_of_many_labels_are_cut_to_the_commonest_and_say_so(capsys):
    counts = np.random.default_rng(0).permutation(67)
    shown = plots.commonest(table_of(67), counts)
    assert list(shown.index) == [f"label {k}" for k in np.argsort(-counts)[:20]]
    assert (shown["AP"] == table_of(67).loc[shown.index, "AP"]).all()
    assert list(plots.rarest(table_of(67), counts, n=3).index) == [f"label {k}" for k in np.argsort(counts)[:3]]
    assert capsys.readouterr().out == "67 labels, the 20 commonest\n67 labels, the 3 rarest\n"


def test_tables_of_few_labels_stay_as_they_are(capsys):
    for cut in (plots.commonest, plots.rarest):
        assert cut(table_of(20), np.arange(20)).equals(table_of(20))
    assert capsys.readouterr().out == ""


def test_bars_say_what_they_leave_out():
    many = plots.label_counts(pd.Series(range(67), index=[f"label {k}" for k in range(67)]))
    assert "(67 labels, the 40 commonest)" in many.get_title()
    assert {bar.get_width() for bar in many.patches} == set(range(27, 67))
    assert "(" not in plots.label_counts(CASES["label_counts"][0]).get_title()
    plt.close("all")


def test_whole_numbers_are_counted_in_bins_of_one_width_without_gaps():
    for values in (np.arange(33), np.arange(7, 700), np.array([5, 5])):
        edges = plots.whole_bins(values)
        in_bin, _ = np.histogram(values, edges)
        assert len(edges) <= 41
        assert in_bin.sum() == len(values)
        assert in_bin.min() > 0
        assert set(np.diff(edges)) == {np.diff(edges)[0]}
        assert (edges % 1 == 0.5).all()


# What red, green and blue (linear) become in eyes without one of the three cones: Machado et al., 2009, severity 1.
WITHOUT = {
    "none": np.eye(3),
    "long": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "middle": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "short": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


@pytest.mark.parametrize("cones", WITHOUT)
def test_colours_of_lines_stay_apart_in_colour_blind_eyes(cones):
    """Distances in CIELAB; under 2 nobody sees one, seaborn's own "colorblind" falls to 11."""
    rgb = np.array([mpl.colors.to_rgb(colour) for colour in plots.PALETTE])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(WITHOUT[cones]).T, 0, 1)
    xyz = seen @ np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]).T
    f = np.cbrt(xyz / [0.9505, 1, 1.089])
    lab = np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)
    apart = np.linalg.norm(lab[:, None] - lab, axis=2)[np.triu_indices(len(lab), 1)]
    assert len(plots.PALETTE) == 8
    assert apart.min() > 15
    assert lab[:, 0].max() < 80, "too faint on white"
