import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.colors import to_rgb, to_rgba  # noqa: E402
from matplotlib.patches import Rectangle  # noqa: E402

from helpers import drawings  # noqa: E402
from helpers.drawings import BLUE, GREY, ORANGE, PALE  # noqa: E402

PIECES = [["[CLS]", "two", "he", "##ists", "[SEP]"], ["[CLS]", "quiet", "[SEP]", "[PAD]", "[PAD]"]]
IDS = np.array([[101, 2048, 2002, 5130, 102], [101, 4251, 102, 0, 0]])
MASK = (IDS > 0).astype(int)
NAMES = ["drama", "comedy", "$1 to $2", "science fiction"]
LENGTHS = np.array([3, 40, 8, 30, 2, 9, 7])  # the last batch of three is short
WEIGHTS = np.where(MASK[1], 1 / 3, 0) * np.ones((5, 1))
SIDE = np.array(["train", "train", "validation", "train", "validation", "validation", "train", "train"])
GROUPS = np.array([7, 7, 3, 3, 5, 5, 1, 2])
SHARES = pd.DataFrame({"train": [0.5, 0.2], "validation": [0.4, 0.3]}, index=["drama", "comedy"])
CELLS = np.array([[0.1, 0.3], [0.5, 0.2], [0.9, np.nan], [0.4, 1.1]])
LONGEST = {"theirs": [9, 7, 2], "ours": [2, 9, 7]}

CASES = {
    "text_to_probabilities": (["Two heists", "Quiet"], PIECES, IDS, MASK, 384, NAMES),
    "padding": (LENGTHS, 3, 32),
    "encoder": (PIECES[1], MASK[1], WEIGHTS, 6),
    "split": (SIDE, GROUPS, SHARES, "random"),
    "accumulation": (CELLS, 2),
    "batch_order": (LONGEST,),
}


@pytest.fixture(autouse=True)
def no_figure_stays():
    yield
    plt.close("all")


def draw(name, *args, **more):
    """The axes that a drawing returns, as a list."""
    return np.ravel(getattr(drawings, name)(*(args or CASES[name]), **more)).tolist()


def tiles(ax):
    return [patch for patch in ax.patches if isinstance(patch, Rectangle) and patch.get_fill()]


def coloured(ax, colour):
    return [tile for tile in tiles(ax) if tile.get_facecolor() == to_rgba(colour)]


def words(ax):
    return [text.get_text() for text in ax.texts]


# What is drawn is what was given --------------------------------------------------------------------------------------


def test_a_batch_on_its_way_names_pieces_ids_and_mask_in_order():
    found = words(draw("text_to_probabilities")[0])
    start = found.index("[CLS]")
    assert found[start : start + 10] == PIECES[0] + PIECES[1]
    start = found.index("101")
    assert found[start : start + 10] == [str(number) for number in IDS.ravel()]
    start = found.index("1")
    assert found[start : start + 10] == [str(number) for number in MASK.ravel()]
    assert {"“Two heists”", "“Quiet”"} <= set(found)
    assert [word for word in found if word in {*NAMES, "science fi…"}] == [*NAMES[:3], "science fi…"]


def test_a_batch_on_its_way_has_the_shapes_of_its_arrays():
    for n in (2, 3):  # texts
        repeated = [part[:1] * (n - 1) + part[1:] for part in (["a", "b"], PIECES, IDS.tolist(), MASK.tolist())]
        shapes = [word for word in words(draw("text_to_probabilities", *repeated, 16, NAMES)[0]) if "\n" in word]
        assert [shape.split("\n")[1] for shape in shapes] == [
            *[f"({n}, 5)"] * 3,
            f"({n}, 5, 16)",
            f"({n}, 16)",
            *[f"({n}, 4)"] * 2,
        ]
        assert shapes[3].startswith("(batch, length, 16)")


def test_a_batch_on_its_way_greys_its_padding_in_each_step_before_the_one_vector():
    assert len(coloured(draw("text_to_probabilities")[0], GREY)) == 4 * (MASK == 0).sum()
    none = draw("text_to_probabilities", ["a", "b"], PIECES, IDS, np.ones_like(MASK), 384, NAMES)
    assert coloured(none[0], GREY) == []


def test_many_tokens_and_labels_are_cut_and_an_ellipsis_says_so():
    ids = np.arange(100, 120)[None]
    found = words(
        draw("text_to_probabilities", ["a"], [list("abcdefghijklmnopqrst")], ids, ids > 0, 8, list("uvwxyz"))[0]
    )
    start = found.index("100")
    assert found[start : start + 8] == ["100", "101", "102", "103", "104", "105", "106", "…"]
    assert "z" not in found
    assert "(1, 20)" in found[start + 9]
    assert any(word.endswith("(1, 6)") for word in found)


def images(axes):
    return [np.asarray(ax.images[0].get_array()) for ax in axes]


def test_padding_has_a_cell_for_each_position():
    cut = LENGTHS.clip(max=32)
    fixed, dynamic, similar = images(draw("padding"))
    for cells, lengths in ((fixed, cut), (dynamic, cut), (similar, np.sort(cut))):
        assert cells.shape == (7, 32)
        assert ((cells == 2).sum(axis=1) == lengths).all()
    assert ((fixed > 0).sum(axis=1) == 32).all()
    assert (dynamic > 0).sum(axis=1).tolist() == [32] * 3 + [30] * 3 + [7]
    assert (similar > 0).sum(axis=1).tolist() == [7] * 3 + [30] * 3 + [32]


def test_padding_says_its_share():
    for ax, cells in zip(draw("padding"), images(draw("padding")), strict=True):
        assert ax.get_title(loc="left").endswith(f"{(cells == 1).sum() / (cells > 0).sum():.0%} padding")


def test_attention_is_grey_where_the_mask_is_0_and_nowhere_else():
    weights = np.array([[0.5, 0.3, 0.2, 0, 0], [0, 0.9, 0.1, 0, 0], [0.25, 0.25, 0.5, 0, 0], *[[0.2] * 5] * 2])
    _, ax = draw("encoder", PIECES[1], MASK[1], weights, 6)
    cells = ax.images[0].get_array()
    assert cells.mask.tolist() == [[False] * 3 + [True] * 2] * 3
    assert np.array_equal(cells[:, :3], weights[:3, :3])
    assert ax.images[0].cmap.get_bad().tolist() == list(to_rgba(GREY))
    assert words(ax) == [f"{weight:.0%}" for weight in weights[:3, :3].ravel()]
    assert [label.get_text() for label in ax.get_xticklabels()] == PIECES[1]
    assert [label.get_text() for label in ax.get_yticklabels()] == PIECES[1][:3]


def test_attention_says_how_many_layers():
    assert "12 layers" in draw("encoder", *CASES["encoder"][:3], 12)[0].get_title(loc="left")


def test_a_split_has_a_tile_for_each_row_and_the_torn_groups_are_orange():
    ax, _ = draw("split")
    assert len(tiles(ax)) == len(SIDE)
    assert len(coloured(ax, ORANGE)) == 2, "group 3 is on both sides"
    assert len(coloured(ax, BLUE)) == 4, "groups 5 and 7 are on one"
    assert len(coloured(ax, PALE)) == 2
    numbers = [word for word in words(ax) if word.isdigit()]
    assert {number: numbers.count(number) for number in numbers} == {"1": 2, "2": 2, "3": 2}
    assert ax.get_title(loc="left") == "random: 1 group on both sides"
    assert {"train, 5 rows", "validation, 3 rows"} <= set(words(ax))


def test_a_split_that_tears_nothing_has_no_orange():
    together = np.array(["train", "train", "train", "train", "validation", "validation", "train", "validation"])
    ax, _ = draw("split", together, GROUPS, SHARES, "grouped")
    assert coloured(ax, ORANGE) == []
    assert ax.get_title(loc="left") == "grouped: 0 groups on both sides"


def test_rows_of_a_split_stand_on_their_side():
    ax, _ = draw("split")
    gap = {tile.get_x() for tile in tiles(ax)}
    assert gap == {0, 2}, "five train rows in one column, then a free one, then validation"
    assert sum(tile.get_x() == 2 for tile in tiles(ax)) == 3


def test_shares_of_a_split_are_those_given():
    _, ax = draw("split")
    points = {line.get_label(): list(line.get_xdata()) for line in ax.lines}
    assert points == {"train": [0.5, 0.2], "validation": [0.4, 0.3]}
    assert [label.get_text() for label in ax.get_yticklabels()] == ["drama", "comedy"]
    low, high = ax.get_xlim()
    assert low == 0
    assert high > 0.5


def test_accumulation_adds_means_and_sums():
    found = words(draw("accumulation")[0])
    assert "3.5 / 7 = 0.50" in found
    assert [word for word in found if "/ 4" in word or "/ 3" in word] == ["1.1 / 4 = 0.28", "2.4 / 3 = 0.80"]
    assert [word for word in found if "added" in word] == ["added: 1.08", "added: 0.50"]
    assert len(coloured(draw("accumulation")[0], GREY)) == 3, "the unknown cell, in each of the three"


def test_accumulation_marks_the_way_that_is_wrong():
    assert len(coloured(draw("accumulation")[0], ORANGE)) == 1
    assert len(coloured(draw("accumulation", CELLS, 1)[0], ORANGE)) == 1
    found = words(draw("accumulation", CELLS, 1)[0])
    assert {"0.4 / 2 = 0.20", "3.1 / 5 = 0.62", "added: 0.82", "added: 0.50"} <= set(found)


def test_batches_stand_in_their_order():
    for ax, (name, tokens) in zip(draw("batch_order"), LONGEST.items(), strict=True):
        assert ax.patches[0].get_data().values.tolist() == tokens
        assert ax.get_title(loc="left") == name
    assert len({ax.get_ylim() for ax in draw("batch_order")}) == 1


# How it looks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_each_drawing_takes_and_returns_axes_and_makes_its_own(name):
    own = draw(name)
    fig, given = plt.subplots(1, len(own), squeeze=False)
    more = {"ax": given[0, 0]} if len(own) == 1 else {"axes": given[0]}
    assert draw(name, **more) == given[0].tolist()
    assert own[0].figure is not fig
    assert own[0].figure.get_figwidth() == 7.5


def pixels(fig):
    fig.canvas.draw()
    return np.asarray(fig.canvas.buffer_rgba())


@pytest.mark.parametrize("name", CASES)
def test_a_dark_page_or_style_changes_nothing(name):
    light = pixels(draw(name)[0].figure)
    with plt.style.context("dark_background"):
        dark = pixels(draw(name)[0].figure)
    assert (light[..., 3] == 255).all(), "a page behind it would show through"
    assert (light[0, 0] == 255).all()
    assert np.array_equal(light, dark)


def texts_of(fig):
    found = [text for text in fig.findobj(mpl.text.Text) if text.get_text() and text.get_visible()]
    fig.canvas.draw()
    return [text for text in found if text.get_window_extent().width > 1]


@pytest.mark.parametrize("name", CASES)
def test_texts_are_large_enough_inside_the_figure_and_apart(name):
    fig = draw(name)[0].figure
    boxes = {}
    for text in texts_of(fig):
        assert text.get_fontsize() >= 9, text
        box = text.get_window_extent()
        assert fig.bbox.x0 <= box.x0 + 1, text
        assert box.x1 - 1 <= fig.bbox.x1, text
        assert fig.bbox.y0 <= box.y0 + 1, text
        assert box.y1 - 1 <= fig.bbox.y1, text
        for tile in tiles(text.axes) if text.axes else ():
            around = tile.get_window_extent()
            inside = around.x0 <= box.x0 and box.x1 <= around.x1
            assert inside or not box.padded(-1).overlaps(around), f"{text} crosses the edge of a tile"
        if not text.get_rotation() % 90:  # the box of a slanted text is larger than it
            assert not [other for other, their in boxes.items() if box.padded(-1).overlaps(their)], text
            boxes[text] = box


def test_dollars_are_not_mathematics():
    shares = SHARES.set_axis(["$1 to $2", "a $ and a $"])
    for fig in (draw("text_to_probabilities")[0].figure, draw("split", SIDE, GROUPS, shares, "")[0].figure):
        assert [text for text in texts_of(fig) if "$" in text.get_text()]
        assert not [text for text in texts_of(fig) if "$" in text.get_text() and text.get_parse_math()]


def luminance(colour):
    rgb = np.array(to_rgb(colour))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


def behind(text):
    """The colour that a text of some axes stands on."""
    ax, (x, y) = text.axes, text.get_position()
    for tile in reversed(tiles(ax)):
        if (
            tile.get_x() <= x <= tile.get_x() + tile.get_width()
            and tile.get_y() <= y <= tile.get_y() + tile.get_height()
        ):
            return tile.get_facecolor()
    if ax.images:
        return ax.images[0].to_rgba(ax.images[0].get_array())[int(y), int(x)]
    return "white"


@pytest.mark.parametrize("name", CASES)
def test_every_text_stands_out_from_what_is_behind_it(name):
    """A contrast of 4.5, as WCAG 2 asks of text."""
    for ax in draw(name):
        for text in ax.texts:
            light, dark = sorted((luminance(text.get_color()), luminance(behind(text))), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, text


def test_what_colours_tell_apart_also_differs_in_brightness():
    """So it can be told in grey and in colour-blind eyes: text and padding, groups that are torn or whole."""
    for one, other in ((BLUE, GREY), (GREY, PALE), (BLUE, ORANGE), (ORANGE, PALE), (BLUE, PALE)):
        light, dark = sorted((luminance(one), luminance(other)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 1.7, (one, other)
