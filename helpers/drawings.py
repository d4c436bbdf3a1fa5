"""Drawings that explain: a batch on its way, padding, attention, a split, accumulation, each made of the arrays given.

Each takes the axes it draws on, or makes its own figure on white, and returns them.
"""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap, ListedColormap
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.ticker import PercentFormatter

from helpers.plots import BLUE, GREY, ORANGE

INK, PALE = "#262626", "#d9e5ef"  # text, and what is neither text nor padding nor pointed at
WIDTH = 7.5  # inches, as in plots
MIDDLE = "#7fabd0"  # the darkest blue on which INK can be read
LEFT, ROW = 1.1, 0.26  # where tiles begin and how high they are, in inches


def _canvas(ax, height):
    """Axes without scales, in inches from the upper left corner."""
    if ax is None:
        ax = plt.figure(figsize=(WIDTH, height), facecolor="white").add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, WIDTH), ylim=(height, 0))
    ax.axis("off")
    return ax


def _panels(widths, height):
    """Axes side by side in one figure."""
    size = {"figsize": (WIDTH, height), "facecolor": "white", "layout": "constrained"}
    return plt.subplots(1, len(widths), width_ratios=widths, **size)[1]


def _frame(ax, title, xlabel=""):
    ax.set_facecolor("white")
    ax.set_title(title, fontsize=10, color=INK, loc="left", fontweight="bold")
    ax.set_xlabel(xlabel, fontsize=9, color=INK)
    ax.tick_params(labelsize=9, labelcolor=INK, length=0)
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _write(ax, x, y, words, ha="left", **more):
    return ax.text(x, y, words, **{"ha": ha, "va": "center", "fontsize": 9, "color": INK, "parse_math": False, **more})


def _tile(ax, x, y, width, height, fill, words="", **more):
    ax.add_patch(Rectangle((x, y), width, height, **{"facecolor": fill, "edgecolor": "white", **more}))
    if words != "":
        _write(ax, x + width / 2, y + height / 2, words, "center", color="white" if fill == BLUE else INK)


def _arrow(ax, y, words):
    ax.add_patch(
        FancyArrowPatch((LEFT + 0.2, y), (LEFT + 0.2, y + 0.36), arrowstyle="-|>", mutation_scale=11, color=INK)
    )
    _write(ax, LEFT + 0.4, y + 0.16, words, style="italic")
    return y + 0.4


def _cut(words, n_words, n_letters):
    """The first of the words, each cut to its first letters; where something is missing stands an ellipsis."""
    words = [word if len(word) <= n_letters else word[: n_letters - 1] + "…" for word in map(str, words)]
    return words if len(words) <= n_words else [*words[: n_words - 1], "…"]


def _step(ax, y, name, axis_names, shape, cells, fills=None, **tile):
    """Tiles of one step, a row a text; its name at the left, its shape at the right. Returns where it ends."""
    width = 4.7 / len(cells[0])
    for i, row in enumerate(cells):
        for k, words in enumerate(row):
            fill = PALE if fills is None else fills[i][k]
            _tile(ax, LEFT + k * width, y + i * ROW, width, ROW, fill, words, **tile)
    middle = y + len(cells) * ROW / 2
    _write(ax, 0.05, middle, name, fontweight="bold")
    _write(ax, LEFT + 4.85, middle, f"({axis_names})\n{tuple(map(int, shape))}")
    return y + len(cells) * ROW


def text_to_probabilities(texts, pieces, input_ids, attention_mask, width, label_names, ax=None):
    """What happens to a batch of texts on its way to probabilities, and the shape of each step.

    At most eight tokens and five labels are drawn; an ellipsis stands for the others.

    Parameters
    ----------
    texts, label_names : list of str, lengths batch and n_labels
    pieces : list of list of str, of shape (batch, length)
    input_ids, attention_mask : int arrays of shape (batch, length)
    width : int
        Numbers in a token's state.
    """
    batch, length = np.shape(input_ids)
    ax = _canvas(ax, 2.75 + 8 * ROW * batch)
    mask = [_cut(row, 8, 9) for row in np.asarray(attention_mask).tolist()]
    fills = [[GREY if cell == "0" else PALE for cell in row] for row in mask]
    _write(ax, 0.05, 0.07 + batch * ROW / 2, "texts", fontweight="bold")
    for i, text in enumerate(texts):
        _write(ax, LEFT, 0.07 + (i + 0.5) * ROW, f"“{text}”")
    y = _arrow(ax, 0.1 + batch * ROW, "tokenizer")
    for name, rows in (("pieces", pieces), ("ids", input_ids), ("mask", attention_mask)):
        cells = [_cut(row, 8, 9) for row in np.asarray(rows).tolist()]
        y = 0.1 + _step(ax, y, name, "batch, length", (batch, length), cells, fills)
    y = 0.1 + _arrow(ax, y - 0.08, "encoder: reads ids and mask, gives each token a vector, its state")
    for depth in (0.1, 0.05):
        _tile(ax, LEFT + depth, y - depth, 4.7, batch * ROW, PALE, linewidth=1.5)
    cells = [[width] * len(row) for row in mask]
    end = _step(ax, y, "states", f"batch, length, {width}", (batch, length, width), cells, fills)
    ax.add_patch(Rectangle((LEFT, y), 4.7 / len(mask[0]), end - y, fill=False, edgecolor=ORANGE, linewidth=2.5))
    y = _arrow(ax, end + 0.03, "the first token's state (or the mean of all whose mask is 1)")
    cells = [[f"{width} numbers"]] * batch
    y = _step(ax, y, "one vector", f"batch, {width}", (batch, width), cells, edgecolor=ORANGE, linewidth=2.5)
    y = 0.2 + _arrow(ax, y + 0.03, "head: linear, ReLU, dropout, linear")
    names, shape = _cut(label_names, 5, 11), (batch, len(label_names))
    for k, name in enumerate(names):
        _write(ax, LEFT + 4.7 / len(names) * (k + 0.5), y - 0.1, name, "center")
    y = _step(ax, y, "logits", "batch, n_labels", shape, [["any number"] * len(names)] * batch)
    y = _arrow(ax, y + 0.03, "sigmoid, each cell for itself")
    _step(ax, y, "probabilities", "batch, n_labels", shape, [["0 to 1"] * len(names)] * batch)
    return ax


def padding(lengths, batch_size, fixed, axes=None):
    """Three ways to pad the same texts: all to one width, to the longest of a batch, and batches of similar length.

    Parameters
    ----------
    lengths : int array of shape (n_examples,)
        Tokens of each text, in the order in which they are drawn; cut at `fixed`.
    batch_size, fixed : int
    axes : three matplotlib.axes.Axes, optional

    Returns
    -------
    the three axes
        The image of each has the shape (n_examples, fixed): 2 is text, 1 padding, 0 no position at all.
    """
    lengths = np.minimum(lengths, fixed)
    axes = _panels([1, 1, 1], 2.9) if axes is None else axes
    first = np.arange(0, len(lengths), batch_size)
    by_length = np.sort(lengths)
    ways = {
        f"fixed {fixed}": (lengths, np.full(len(first), fixed)),
        "dynamic": (lengths, np.maximum.reduceat(lengths, first)),
        "length-grouped": (by_length, np.maximum.reduceat(by_length, first)),
    }
    colours = ListedColormap(["white", GREY, BLUE])
    for ax, (name, (own, widths)) in zip(axes, ways.items(), strict=True):
        widths = widths.repeat(batch_size)[: len(own)]
        cells = sum((np.arange(fixed) < ends[:, None]).astype(int) for ends in (widths, own))
        ax.imshow(cells, cmap=colours, vmin=0, vmax=2, aspect="auto", interpolation="none")
        ax.hlines(first[1:] - 0.5, -0.5, fixed - 0.5, color="white", linewidth=1.5)
        _frame(ax, f"{name}\n{1 - own.sum() / widths.sum():.0%} padding", "position in the row")
        ax.set(xticks=[fixed // 4, fixed // 2, 3 * fixed // 4], yticks=[], xlim=(-0.5, 1.05 * fixed))
    axes[0].set_ylabel(f"texts, in batches of {batch_size}", fontsize=9, color=INK)
    handles = [
        Rectangle((0, 0), 1, 1, color=colour, label=word) for colour, word in ((BLUE, "text"), (GREY, "padding"))
    ]
    axes[2].legend(handles=handles, loc="upper right", fontsize=9, labelcolor=INK, frameon=False)
    return axes


def encoder(pieces, attention_mask, weights, n_layers, axes=None):
    """The encoder as boxes, and what each token of a text takes from which; columns that the mask hides are grey.

    Parameters
    ----------
    pieces : list of str, length `length`
    attention_mask : int array of shape (length,)
    weights : float array of shape (length, length)
        Attention in one layer: row i says how much token i takes from each. Rows of padding are not drawn.
    n_layers : int
    axes : two matplotlib.axes.Axes, optional

    Returns
    -------
    the two axes
        The second's image is a masked array of shape (tokens that are text, length).
    """
    left, right = _panels([1, 1.6], 3.6) if axes is None else axes
    _boxes(left, n_layers)
    text = np.asarray(attention_mask) == 1
    shown = np.ma.array(np.asarray(weights)[text], mask=np.tile(~text, (text.sum(), 1)))
    colours = LinearSegmentedColormap.from_list("", ["white", MIDDLE]).with_extremes(bad=GREY)
    right.imshow(shown, cmap=colours, vmin=0, aspect="auto")
    for (i, k), weight in np.ndenumerate(shown):
        if text[k]:
            _write(right, k, i, f"{weight:.0%}", "center")
    _frame(right, "Attention in a layer:\nwhat each row takes from the columns")
    right.set_xticks(range(len(text)), pieces, rotation=45, ha="right", rotation_mode="anchor")
    right.set_yticks(range(text.sum()), np.asarray(pieces)[text])
    return left, right


def _boxes(ax, n_layers):
    _frame(ax, f"The encoder: {n_layers} layers,\none after the other")
    ax.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[])
    ax.add_patch(Rectangle((0.01, 0.38), 0.98, 0.46, fill=False, edgecolor=BLUE, linewidth=2))
    _write(ax, 0.06, 0.42, "a layer", fontweight="bold")
    boxes = {
        (0.02, 0.08): "ids",
        (0.18, 0.14): "embeddings: a vector a\npiece, and one a position",
        (0.46, 0.14): "attention: weighted mean\nof tokens with mask 1",
        (0.67, 0.14): "feed-forward: each\ntoken for itself",
        (0.9, 0.08): "states",
    }
    ends = []
    for (y, height), words in boxes.items():
        _tile(ax, 0.06, y, 0.88, height, PALE, words)
        ends.append((y, y + height))
    for (_, end), (y, _) in pairwise(ends):
        ax.add_patch(FancyArrowPatch((0.5, end), (0.5, y), arrowstyle="-|>", mutation_scale=10, color=INK))


def split(side, groups, shares, title, axes=None):
    """A split: a tile for each row, near-duplicates with one number, and each label's share in both parts.

    A group's tiles are blue where it is in one part, orange where both parts have some of it.

    Parameters
    ----------
    side : array of str, shape (n_examples,)
        "train" or "validation"; some hundred rows are legible.
    groups : int array of shape (n_examples,)
        Rows with one number are near-duplicates of each other.
    shares : pandas.DataFrame
        Indexed by label name, with the columns train and validation; six labels or fewer are legible.
    title : str
    """
    left, right = _panels([2.2, 1], 2.1) if axes is None else axes
    parts = [np.flatnonzero(side == part) for part in ("train", "validation")]
    _, groups, size = np.unique(groups, return_inverse=True, return_counts=True)
    number = dict(zip(np.flatnonzero(size > 1), range(1, len(size) + 1), strict=False))
    torn = np.intersect1d(*(groups[rows] for rows in parts))
    x = 0
    for part, rows in zip(("train", "validation"), parts, strict=True):
        rows = rows[np.lexsort([groups[rows], size[groups[rows]] == 1])]
        columns = -(-len(rows) // 5)
        _write(left, x, -0.5, f"{part}, {len(rows)} rows")
        for k, group in enumerate(groups[rows]):
            fill = ORANGE if group in torn else BLUE if group in number else PALE
            _tile(left, x + k % columns, k // columns, 1, 1, fill, number.get(group, ""))
        x += columns + 1
    _frame(left, f"{title}: {len(torn)} group{'s' * (len(torn) != 1)} on both sides")
    left.set(xlim=(0, x - 1), ylim=(5, -1), xticks=[], yticks=[])
    names = _cut(shares.index, len(shares), 14)
    for column, colour, marker in (("train", BLUE, "o"), ("validation", ORANGE, "D")):
        right.plot(shares[column], range(len(names)), marker, color=colour, label=column)
    right.hlines(range(len(names)), shares.min(axis=1), shares.max(axis=1), color=GREY, zorder=0)
    _frame(right, "share of each label", "● train   ◆ validation")
    right.set(ylim=(len(names) - 0.5, -0.5), xlim=(0, 1.15 * max(shares.to_numpy().max(), 0.01)))
    right.set_yticks(range(len(names)), names, parse_math=False)
    right.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return left, right


def accumulation(cells, n_first, ax=None):
    """The loss of a batch, and what two parts of it add up to: each by its own mean, and as sums over all known cells.

    Parameters
    ----------
    cells : float array of shape (n_examples, n_labels)
        The loss of each cell; NaN where nobody knows the answer. Some five rows and three labels are legible.
    n_first : int
        Examples in the first part, at least one and fewer than all.
    """
    cells = np.asarray(cells, dtype=float)
    parts, n = (cells[:n_first], cells[n_first:]), np.isfinite(cells).sum()
    ax = _canvas(ax, 1.95 + 0.3 * len(cells))
    own = [max(1, np.isfinite(part).sum()) for part in parts]
    ways = {
        "one batch": ((cells,), (n,)),
        "two parts, a mean for each": (parts, own),
        "two parts, sums over all cells": (parts, (n, n)),
    }
    for k, (title, (drawn, divisors)) in enumerate(ways.items()):
        x, y, losses = 0.1 + 2.55 * k, 0.5, []
        _write(ax, x, 0.2, title, fontweight="bold")
        for part, divisor in zip(drawn, divisors, strict=True):
            losses.append(np.nansum(part) / divisor)
            words = f"{np.nansum(part):.2g} / {divisor} = {losses[-1]:.2f}"
            _cells(ax, x, y, part)
            _write(ax, x + 1.2, y + 0.15 * len(part), words)
            y += 0.3 * (len(part) + 1)
        wrong = not np.isclose(sum(losses), np.nansum(cells) / n)
        y = 0.72 + 0.3 * (len(cells) + 1)
        _tile(ax, x, y, 2.3, 0.36, ORANGE if wrong else PALE, "added: " * (len(losses) > 1) + f"{sum(losses):.2f}")
    words = "a row is a text, a column a label; grey: nobody knows the answer"
    _write(ax, 0.1, 1.75 + 0.3 * len(cells), words, style="italic")
    return ax


def _cells(ax, x, y, cells):
    """A part of a batch: a tile with its loss for each cell, grey where it is not known."""
    width = 1.1 / cells.shape[1]
    for (i, k), loss in np.ndenumerate(cells):
        known = np.isfinite(loss)
        _tile(ax, x + k * width, y + i * 0.3, width, 0.3, PALE if known else GREY, f"{loss:.2g}" if known else "")


def batch_order(longest, axes=None):
    """The longest text of each batch in the order of an epoch, one panel a sampler.

    Parameters
    ----------
    longest : dict of int lists
        For each sampler's name, tokens of the longest text, batch after batch.
    """
    axes = _panels([1] * len(longest), 2.3) if axes is None else axes
    for ax, (name, tokens) in zip(axes, longest.items(), strict=True):
        ax.stairs(tokens, np.arange(len(tokens) + 1) + 0.5, fill=True, color=BLUE)
        _frame(ax, name, "batch")
        ax.set_ylim(0, 1.05 * max(map(max, longest.values())))
    axes[0].set_ylabel("tokens of its longest text", fontsize=9, color=INK)
    return axes
