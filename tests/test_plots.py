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
