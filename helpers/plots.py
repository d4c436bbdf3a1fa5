"""Plots that more than one notebook draws, and how many labels a table or a plot can hold.

Each plot takes `ax=` and returns it; the numbers come first.
"""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

BLUE, ORANGE, GREY = "#2f6c9e", "#d9822b", "#9aa5ae"
# For lines, apart in colour-blind eyes too: Okabe and Ito (2008), with a dark red for their yellow, which is faint
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#000000", "#882255")
IN_TABLE = 20  # labels that a table or a heat map can show: pandas cuts longer ones in the middle


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


def commonest(table, counts, n=IN_TABLE):
    """A table with a row a label, cut to the commonest labels, the commonest first; a line then says so.

    Parameters
    ----------
    table : pandas.DataFrame or pandas.Series, length n_labels
    counts : int array of shape (n_labels,)
        How often each label occurs, in the order of the rows.
    n : int
        With no more labels than these the table stays as it is.
    """
    return _cut(table, -np.asarray(counts), n, "commonest")


def rarest(table, counts, n=IN_TABLE):
    """As `commonest`, for the labels that occur least."""
    return _cut(table, np.asarray(counts), n, "rarest")


def _cut(table, keys, n, which):
    if len(table) <= n:
        return table
    print(cut_to(len(table), n, which))
    return table.iloc[np.argsort(keys, kind="stable")[:n]]


def cut_to(n_labels, n, which="commonest"):
    """What is shown of many labels, for a title: "67 labels, the 20 commonest"; "" where all are."""
    return f"{n_labels} labels, the {n} {which}" if n_labels > n else ""


def label_counts(counts, ax=None):
    """Bars of label counts, the commonest first, at most 40, which the title then says.

    Parameters
    ----------
    counts : pandas.Series
        Number of examples, indexed by label name.
    """
    cut = cut_to(len(counts), 40)
    counts = counts.sort_values(kind="stable").tail(40)
    ax = _axes(ax, 0.9 + 0.3 * len(counts))
    ax.barh(counts.index, counts, color=BLUE)
    ax.bar_label(ax.containers[0], padding=3)
    ax.grid(False, axis="y")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.margins(y=0.5 / len(counts))
    ax.set(title="Examples with each label" + f" ({cut})" * bool(cut), xlabel="number of examples", ylabel="")
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
    ax.hist(n_tokens.clip(max=end), bins=whole_bins(n_tokens.clip(max=end)), color=BLUE)
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


def whole_bins(values, n=40):
    """Edges of at most `n` bins for whole numbers: as many numbers in each, and none empty for want of one.

    Parameters
    ----------
    values : array of shape (n_examples,)

    Returns
    -------
    float array of shape (n_bins + 1,)
    """
    low, high = int(np.min(values)), int(np.ceil(np.max(values)))
    width = -(-(high - low + 1) // n)
    return np.arange(low, high + width + 1, width) - 0.5
