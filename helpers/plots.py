"""Plots that more than one notebook draws. Each takes `ax=` and returns it; the numbers come first."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

BLUE, ORANGE, GREY = "#2f6c9e", "#d9822b", "#9aa5ae"


def set_style():
    """One look for all figures: light grid, readable sizes."""
    sns.set_theme(
        style="whitegrid",
        rc={
            "figure.figsize": (7.5, 3.6),
            "figure.dpi": 110,
            "axes.titlelocation": "left",
            "axes.titleweight": "bold",
            "axes.spines.top": False,
            "axes.spines.right": False,
        },
    )


def _axes(ax, height=3.6):
    return ax if ax is not None else plt.subplots(figsize=(7.5, height), layout="constrained")[1]


def label_counts(counts, ax=None):
    """Bars of label counts, the commonest first, at most 40.

    Parameters
    ----------
    counts : pandas.Series
        Number of examples, indexed by label name.
    """
    counts = counts.sort_values().tail(40)
    ax = _axes(ax, 0.9 + 0.3 * len(counts))
    ax.barh(counts.index, counts, color=BLUE)
    ax.bar_label(ax.containers[0], padding=3)
    ax.grid(False, axis="y")
    ax.set(title="Examples with each label", xlabel="number of examples", ylabel="")
    return ax


def model_scores(table, ax=None, title="Validation macro-AP"):
    """Models side by side: a point and its 95% interval each.

    Parameters
    ----------
    table : pandas.DataFrame
        From `helpers.metrics.compare`: a row a model, with the columns macro-AP, low and high.
    """
    table = table.iloc[::-1]
    ax = _axes(ax, 0.9 + 0.42 * len(table))
    middle, half = (table["low"] + table["high"]) / 2, (table["high"] - table["low"]) / 2
    ax.errorbar(middle, table.index, xerr=half, fmt="none", ecolor=GREY, elinewidth=2, capsize=4)
    ax.plot(table["macro-AP"], table.index, "o", color=BLUE, markersize=8)
    for y, value in enumerate(table["macro-AP"]):
        ax.annotate(f"{value:.2f}", (value, y), textcoords="offset points", xytext=(0, 8), ha="center", fontsize=9)
    ax.set(title=title, xlabel="macro-AP (bar: 95% interval over resampled examples)", ylabel="", xlim=(0, 1))
    ax.margins(y=0.2)
    return ax


def lengths(n_tokens, max_len, ax=None):
    """Histogram of text lengths with the line at which they are cut.

    Parameters
    ----------
    n_tokens : int array of shape (n_examples,)
    max_len : int
    """
    n_tokens = np.asarray(n_tokens)
    ax = _axes(ax)
    end = max(np.quantile(n_tokens, 0.995), min(max_len, n_tokens.max()))
    ax.hist(n_tokens.clip(max=end), bins=40, color=BLUE)
    if max_len <= end:
        ax.axvline(max_len, color=ORANGE, linewidth=2)
    left = max_len > end / 2
    ax.annotate(
        f" cut at {max_len}: \n {np.mean(n_tokens > max_len):.1%} of the texts ",
        (min(max_len, end), ax.get_ylim()[1] * 0.8),
        color=ORANGE,
        ha="right" if left else "left",
    )
    ax.set(title="Length of the texts", xlabel="tokens, special tokens included", ylabel="number of texts")
    return ax
