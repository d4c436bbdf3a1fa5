"""The exercises of the notebooks, solved and untouched, and what is said to answers that nearly are right."""

import jupytext
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT

from helpers import exercises, models, notebooks

TEXTS = [p for p in sorted((ROOT / "notebooks" / "text").glob("*.py")) if '["solution"' in p.read_text("utf-8")]


@pytest.fixture(scope="module")
def around(embedded):
    """What the exercises take from the rest of their notebooks."""
    return {
        "tokenizer": models.load_tokenizer(embedded),
        "model": models.load_model(embedded, ["a", "b", "c"]).eval(),
        "device": torch.device("cpu"),
        "tolerance": 1e-5,
    }


def said(cells, around, capsys):
    """Run a notebook's imports and exercises; the lines that the checks print."""
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    imports = next(source for source in code if "from helpers.runtime import" in source)
    marked = [i for i, source in enumerate(code) if notebooks.ANSWER.search(source)]
    space, heard = dict(around), []
    exec(imports, space)
    for i in marked:
        exec(code[i], space)
        capsys.readouterr()
        exec(code[i + 1], space)
        heard.append(capsys.readouterr().out)
    return heard


@pytest.mark.parametrize("text", TEXTS, ids=lambda p: p.stem)
def test_solutions_are_praised(text, around, capsys):
    heard = said(jupytext.read(text, fmt="py:percent").cells, around, capsys)
    assert len(heard) >= 2
    assert all(line.startswith("Right: ") for line in heard), heard


@pytest.mark.parametrize("text", TEXTS, ids=lambda p: p.stem)
def test_untouched_exercises_stop_nothing(text, around, capsys, tmp_path):
    notebooks.from_text(text, tmp_path / "made.ipynb")
    heard = said(jupytext.read(tmp_path / "made.ipynb").cells, around, capsys)
    assert len(heard) >= 2
    assert all(line.startswith("Not answered yet: put ") and line.count("\n") == 1 for line in heard), heard


def given(notebook, name):
    """What an exercise cell defines: the value of a name, from the text of the notebook."""
    path = next(text for text in TEXTS if text.name.startswith(notebook))
    cells = jupytext.read(path, fmt="py:percent").cells
    source = next(
        cell.source for cell in cells if f"\n{name} = " in f"\n{cell.source}" and "# Your answer" in cell.source
    )
    space = {"pd": pd, "np": np, "torch": torch}
    exec(source, space)
    return space[name]


@pytest.fixture
def hear(capsys):
    """Function: what a check prints for an answer."""

    def call(check, answer, *given):
        check(answer, *given)
        return capsys.readouterr().out

    return call


@pytest.mark.parametrize(
    ("check", "answer", "words"),
    [
        (exercises.deal, 3, "takes two row numbers"),
        (exercises.deal, ["3", "5"], "takes two row numbers"),
        (exercises.mended_csv, ["a"], "takes a text"),
        (exercises.fair_split, 2, "takes one letter"),
        (exercises.max_len, "144", "takes a whole number"),
        (exercises.padding_share, ("66%", "39%"), "takes two numbers"),
        (exercises.padding_share, 0.66, "takes two numbers"),
        (exercises.mask_of_ones, 0, "takes a list of text numbers"),
        (exercises.first_losses, "log 2", "takes two numbers"),
        (exercises.which_check, ["shapes"] * 4, "takes a word for each loss"),
        (exercises.which_check, {"A": 1}, "takes a word for each loss"),
        (exercises.weight_of_a_label, 49, "takes three numbers"),
        (exercises.two_parts, [2.4, 0.8, 1.2], "takes a number for each"),
        (exercises.two_parts, {"A": "2.4, 0.8"}, "takes a number for each"),
        (exercises.without_the_weight, 0.43, "takes two numbers"),
        (exercises.defended, ([0.1] * 3, [0.2] * 3), "takes two lists of three scores and a word"),
        (exercises.defended, ("abc", [0.2] * 3, "helps"), "takes two lists of three scores and a word"),
    ],
)
def test_an_answer_of_another_form_is_told_the_form(check, answer, words, hear):
    assert hear(check, answer, None).startswith(f"Not yet: this exercise {words}")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([0, 2], ["'What a day' is on both sides"]),
        (
            [2, 4],
            ["funny: 0 of its 3 texts are in validation, 1 would be fair: validation has lost", "sad: 2 of its 3"],
        ),
        ([0, 3], ["funny: 2 of its 3", "both sides"]),
        ([0, 1], ["funny: 2 of its 3", "sad: 0 of its 3"]),
        ([3], ["two different rows"]),
        ([5, 6], ["from 0 to 5"]),
    ],
)
def test_deal(answer, words, hear):
    heard = hear(exercises.deal, answer, given("01", "six"))
    assert heard.startswith("Not yet: ")
    assert all(part in heard for part in words), heard
    assert ("both sides" in heard) == ("both sides" in " ".join(words))


def test_only_one_deal_is_right(hear):
    six = given("01", "six")
    pairs = [[i, j] for j in range(6) for i in range(j)]
    assert [pair for pair in pairs if hear(exercises.deal, pair, six).startswith("Right")] == [[3, 5]]


def test_mended_csv(hear):
    faulty, mended = given("01", "faulty"), given("01", "mended")
    heard = hear(exercises.mended_csv, faulty, faulty)
    assert heard.startswith("Not yet: the reader still has something to say.\nmended.csv: 4 problems\n")
    one_left = mended.replace('"', "")
    assert "1 problem\n  - row 2: 4 fields" in hear(exercises.mended_csv, one_left, faulty)
    deleted = mended.replace("10,The shop is open again,\n", "") + "10,The rain,\n"
    assert "words are lost: again, shop, is, open. Mend rows" in hear(exercises.mended_csv, deleted, faulty)
    assert "words are lost: funny" in hear(exercises.mended_csv, mended.replace("sad|funny\n3", "sad\n3"), faulty)
    more = mended + "11,One more,sad\n"
    assert "words are new: sad, one, more" in hear(exercises.mended_csv, more, faulty)
    no_comma = mended.replace('"It rained, and nobody minded"', "It rained and nobody minded")
    assert "another before: 'It rained and nobody minded'" in hear(exercises.mended_csv, no_comma, faulty)
    assert "the file is empty" in hear(exercises.mended_csv, "", faulty)
    assert hear(exercises.mended_csv, "\n" + mended, faulty).startswith("Right: the reader is silent")


def test_fair_split(hear):
    nine = given("01", "nine")
    heard = hear(exercises.fair_split, "A", nine)
    assert heard.startswith("Not yet: A is not fair. 'The neighbours drill")
    assert "both sides" in heard
    assert "texts are in" not in heard
    heard = hear(exercises.fair_split, "b", nine)
    assert heard == (
        "Not yet: B is not fair. threat: 0 of its 3 texts are in validation, 1 would be fair: validation has lost this label.\n"
    )
    assert hear(exercises.fair_split, "D", nine) == "Not yet: choose one of A, B, C.\n"
    heard = hear(exercises.fair_split, "C", nine)
    assert heard.startswith("Right: C is fair")
    assert "\n  A: 'The neighbours" in heard
    assert "\n  B: threat" in heard


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (32, "32 cuts too many: 3.00% of the texts, where 2% are allowed"),
        (64, "64 wastes: it cuts 0.00%"),
        (50, "50 wastes: it cuts 1.00%"),
        (47, "no multiple of 16"),
        (0, "cuts too many: 100.00%"),
    ],
)
def test_max_len(answer, words, hear):
    lengths = np.array([20] * 97 + [40, 44, 60])
    heard = hear(exercises.max_len, answer, lengths)
    assert heard.startswith("Not yet: ")
    assert words in heard
    assert hear(exercises.max_len, 48, lengths).startswith(
        "Right: 48 cuts 1.00% of the texts. They are the long ones: 0.6%"
    )


def test_max_len_allows_exactly_the_share_that_is_allowed(hear):
    lengths = np.array([20] * 98 + [40, 44])
    assert hear(exercises.max_len, 32, lengths).startswith("Right")
    assert "48 wastes" in hear(exercises.max_len, 48, lengths)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((0.34, 0.39), ["one batch, 0.34: this is the share of text"]),
        ((0.66, 0.61), ["two batches, 0.61: this is the share of text"]),
        (
            (1.94, 0.65),
            ["one batch, 1.94: this is padding divided by text", "two batches, 0.65: this is padding divided"],
        ),
        ((264, 88), ["one batch, 264: this is a number", "two batches, 88: this is a number"]),
        ((66, 39.3), ["one batch, 66: this is in percent", "two batches, 39.3: this is in percent"]),
        ((0.66, 0.66), ["two batches, 0.66: each batch is padded to its own longest only"]),
        ((0.66, 0.26), ["two batches, 0.26: this is the mean of two shares"]),
        ((0.66, 0.404), ["two batches, 0.404: the pairs are the first two and the last two"]),
        ((0.5, 0.39), ["one batch, 0.5: count all positions"]),
        ((float("nan"), 0.39), ["one batch, nan: count all positions"]),
        ((0.66, 0.39, 0.1), ["it takes two numbers"]),
    ],
)
def test_padding_share(answer, words, hear):
    heard = hear(exercises.padding_share, answer, given("02", "four"))
    assert heard.startswith("Not yet: ")
    assert all(part in heard for part in words), heard
    assert heard.count("\n") == len(words)


def test_padding_share_takes_two_digits(hear):
    assert hear(exercises.padding_share, (0.66, 0.39), given("02", "four")).startswith(
        "Right: 66% in one batch, 39% in two"
    )


def test_mask_of_ones(hear):
    measured = torch.tensor([True, False, True])
    assert hear(exercises.mask_of_ones, [2, 0], measured).startswith("Right")
    assert hear(exercises.mask_of_ones, [0, 1, 2], measured).startswith("Not yet: text 1 has no padding")
    heard = hear(exercises.mask_of_ones, [], measured)
    assert "text 0 is padded" in heard
    assert "text 2 is padded" in heard
    assert "text 1" not in heard
    assert "from 0 to 2" in hear(exercises.mask_of_ones, [1, 2, 3], measured)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((1, 0.42), ["undecided, 1: this is in bits"]),
        ((0.693, 0.605), ["knows the shares, 0.605: this is in bits"]),
        ((2.773, 1.679), ["undecided, 2.773: this is the sum", "knows the shares, 1.679: this is the sum"]),
        ((1.386, 0.42), ["undecided, 1.386: this is softmax's"]),
        ((0.5, 0.42), ["undecided, 0.5: this is the probability"]),
        ((0.42, 0.693), ["undecided, 0.42: this is the other", "knows the shares, 0.693: this is the undecided"]),
        ((0.693, 0.25), ["knows the shares, 0.25: only the yes cells"]),
        ((0.693, 2.073), ["knows the shares, 2.073: -log q is what a yes costs"]),
        ((0.693, 0.524), ["knows the shares, 0.524: this is for the mean share"]),
        ((-0.693, 0.42), ["undecided, -0.693: a loss is not negative"]),
        ((float("nan"), 7), ["undecided, nan: write down", "knows the shares, 7: write down"]),
        ((0.693,), ["it takes two numbers"]),
    ],
)
def test_first_losses(answer, words, hear):
    shares = given("03", "four_shares")
    heard = hear(exercises.first_losses, answer, shares)
    assert heard.startswith("Not yet: ")
    assert all(part in heard for part in words), heard
    assert heard.count("\n") == len(words)
    assert hear(exercises.first_losses, (0.69, 0.42), shares).startswith("Right: 0.693 whatever the labels, and 0.420.")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"A": "shapes"}, "A, shapes: logits and targets have the right shape"),
        ({"A": "by heart"}, "A, by heart: at logits of 0 it gives 22.181, and log 2 is 0.693; it falls to 0."),
        ({"B": "by heart"}, "B, by heart: at logits of 0 it gives 0.849, and log 2 is 0.693, which is seen first."),
        ({"B": "nothing"}, "B, nothing: at logits of 0 it gives 0.849, and log 2 is 0.693."),
        ({"C": "First loss "}, "C, first loss: at logits of 0 it gives 0.693, which is log 2"),
        ({"C": "nothing"}, "C, nothing: eight rows can't be learned with it: 0."),
        ({"D": "by heart"}, "D, by heart: it falls from 0.693 to 0.001, so eight rows are learned"),
        ({"D": "gradient"}, "D, gradient: the words are shapes, first loss, by heart, nothing"),
    ],
)
def test_which_check(wrong, words, hear):
    broken, found = given("03", "broken"), given("03", "found")
    before = torch.get_rng_state()
    heard = hear(exercises.which_check, found | wrong, broken)
    assert heard.startswith(f"Not yet: {words}"), heard
    assert heard.count("\n") == 1
    assert torch.equal(torch.get_rng_state(), before)


def test_which_check_wants_a_word_for_each_loss(hear):
    broken, found = given("03", "broken"), given("03", "found")
    assert "a word for each of A, B, C, D" in hear(exercises.which_check, {"A": "shapes"}, broken)
    assert hear(exercises.which_check, found | {"D": " Nothing"}, broken).startswith("Right: ")


@pytest.mark.parametrize(
    ("before", "gains", "said", "words"),
    [
        (0.8, (0.02, 0.021, 0.022), "not clear", "95% interval +0.019 to +0.023. All of it is above zero"),
        (0.8, (-0.02, -0.021, -0.022), "helps", "All of it is below zero"),
        (0.8, (0.03, -0.01, 0.01), "helps", "The mean alone does not count: zero is in the interval"),
        (0.8, (0.03, 0.001, 0.01), "helps", "All three point one way, as three coins do in one of four"),
        (0.8, (0.029, 0.014, 0.013), "helps", "The factor 1.96 is for many seeds"),
        (0.8, (0.03, -0.01, 0.01), "harms", "its mean points the other way"),
        (0.8, (0.03, -0.01, 0.01), "better", 'the third is "helps", "harms" or "not clear"'),
        (80, (0.03, -0.01, 0.01), "helps", "scores are numbers from 0 to 1"),
        (0.8, (0.02, 0.02, 0.02), "helps", "was the seed really changed"),
        (0.8, (0.0, 0.0, 0.0), "not clear", "both lists are the same: was the step really changed"),
        (0.8, (0.02, 0.03), "helps", "three seeds each: here are 3 and 2 scores"),
    ],
)
def test_defended(before, gains, said, words, hear):
    without = [before] * 3 if len(set(gains)) == 1 else [before, before + 0.01, before - 0.01]
    after = [score + gain for score, gain in zip(without, gains, strict=False)]
    heard = hear(exercises.defended, (without, after, said))
    assert heard.startswith("Not yet: ")
    assert words in heard, heard


def test_a_verdict_that_the_scores_bear_out_is_right_whatever_it_is(hear):
    without = [0.8, 0.81, 0.79]
    assert hear(exercises.defended, (without, [0.82, 0.831, 0.812], "Helps")).startswith(
        "Right: helps: gains of +0.020"
    )
    assert hear(exercises.defended, ([0.82, 0.831, 0.812], without, "harms")).startswith("Right: harms")
    heard = hear(exercises.defended, (without, [0.83, 0.80, 0.80], "not clear"))
    assert heard.startswith("Right: not clear")
    assert "Zero is in it, so three seeds can't tell" in heard


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((50, 25, 0.338), ["pos_weight, 50: this is n / n_pos"]),
        ((0.0204, 25, 0.338), ["pos_weight, 0.0204: this is n_pos / n_neg"]),
        ((7, 25, 0.338), ["pos_weight, 7: this is the square root"]),
        (
            (25, 49, 0.338),
            ['pos_weight, 25: this is the weight of "balanced"', '"balanced", 49: this is n_neg / n_pos'],
        ),
        ((49, 50, 0.338), ['"balanced", 50: this is n / n_pos; the two classes']),
        ((49, 0.51, 0.338), ['"balanced", 0.51: this is the weight of the negatives']),
        ((49, 25, 0.02), ["probability, 0.02: this is the share"]),
        ((49, 25, 0.5), ["probability, 0.5: one half is what full balance"]),
        ((49, 25, 0.51), ["probability, 0.51: these are the odds"]),
        ((49, 25, 0.0008), ["probability, 0.0008: the weight goes the other way"]),
        ((float("nan"), 3, 0.9), ["pos_weight, nan: count", '"balanced", 3: count', "probability, 0.9: count"]),
        ((49, 25), ["it takes three numbers"]),
    ],
)
def test_weight_of_a_label(answer, words, hear):
    heard = hear(exercises.weight_of_a_label, answer, 30, 1500)
    assert heard.startswith("Not yet: ")
    assert all(part in heard for part in words), heard
    assert heard.count("\n") == len(words)
    right = hear(exercises.weight_of_a_label, (49, 25, 0.34), 30, 1500)
    assert right.startswith('Right: 49 balances, "balanced" is 25, and with that a model that knows nothing says 0.338')


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"A": 0.8}, "A, 0.8: this is the mean of the whole batch"),
        ({"A": 1.2}, "A, 1.2: this is what C gives"),
        ({"A": 2.0}, "A, 2: this is one part alone"),
        ({"B": 0.3}, "B, 0.3: this is one part alone"),
        ({"B": 3.2}, "B, 3.2: this is the sum of all cells"),
        ({"B": 0.4}, "B, 0.4: this is divided by the number of parts"),
        ({"C": 2.4}, "C, 2.4: this is what A gives"),
        ({"C": 7}, "C, 7: take each part by itself"),
        ({"C": float("nan")}, "C, nan: take each part by itself"),
    ],
)
def test_two_parts(wrong, words, hear):
    parts, ways, totals = (given("04", name) for name in ("parts", "ways", "totals"))
    heard = hear(exercises.two_parts, totals | wrong, parts, ways)
    assert heard.startswith(f"Not yet: {words}"), heard
    assert heard.count("\n") == 1


def test_two_parts_names_the_way_that_is_exact(hear):
    parts, ways, totals = (given("04", name) for name in ("parts", "ways", "totals"))
    heard = hear(exercises.two_parts, totals, parts, ways)
    assert heard == "Right: the whole batch's mean is 0.8, and so is B; A gives 2.4, C gives 1.2.\n"
    assert "a number for each of A, B, C" in hear(exercises.two_parts, {"A": 2.4}, parts, ways)
    equal = hear(exercises.two_parts, {"a ": 2.4, "b": 1.2, "c": 1.2}, [[0.2, 1.0], [2.0, 1.6]], ways)
    assert equal.startswith("Right: the whole batch's mean is 1.2, and so is B and C; A gives 2.4")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((0.1875, 0.8), ["without the weight, 0.1875: the weight multiplies the odds"]),
        ((0.923, 0.8), ["without the weight, 0.923: this puts the weight in once more"]),
        ((0.25, 0.8), ["without the weight, 0.25: this is the probability of a no"]),
        ((0.43, 0.5), ["cut, 0.5: this is the cut without the weight"]),
        ((0.43, 0.2), ["cut, 0.2: this is the probability of a no there"]),
        ((0.43, 0.667), ["cut, 0.667: the weight was given as it is"]),
        ((0.43, 0.25), ["cut, 0.25: even odds have become w to 1"]),
        ((0.43, 4), ["cut, 4: these are the odds at the cut"]),
        ((42.9, 80), ["without the weight, 42.9: this is in percent", "cut, 80: this is in percent"]),
        ((0.1, float("nan")), ["without the weight, 0.1: write p as odds", "cut, nan: write p as odds"]),
        ((0.43,), ["it takes two numbers"]),
    ],
)
def test_without_the_weight(answer, words, hear):
    weight, said = given("04", "weight"), given("04", "said")
    heard = hear(exercises.without_the_weight, answer, weight, said)
    assert heard.startswith("Not yet: ")
    assert all(part in heard for part in words), heard
    assert heard.count("\n") == len(words)
    assert hear(exercises.without_the_weight, (0.43, 0.8), weight, said).startswith("Right: 0.429, and from 0.8 on")
