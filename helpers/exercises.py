"""What the exercises of the notebooks say to an answer, one function an exercise.

Each prints one of three things: "Not answered yet: ..." as long as the answer is None, "Right: ...", or "Not yet: ..."
with what is off. None of them raises for an answer, whatever it is.
"""

import functools
import itertools
import operator
import re
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.data import near_duplicates
from helpers.reading import DataError, read_rows

MOST_CUT, STEP = 0.02, 16  # the rule of the exercise on MAX_LEN


class _NotYet(Exception):
    """An answer that is not right; the message says what is off."""


def _exercise(expected, form):
    """Make a function that prints out of one that returns praise or raises _NotYet.

    `expected` says in words what an answer looks like; `form` brings it to that form, or raises.
    """

    def decorate(judge):
        @functools.wraps(judge)
        def check(answer, *given):
            if answer is None:
                print(f"Not answered yet: put {expected} in the place of None.")
                return
            try:
                answer = form(answer)
            except (TypeError, ValueError):
                print(f"Not yet: this exercise takes {expected}.")
                return
            try:
                print("Right:", judge(answer, *given))
            except _NotYet as miss:
                print("Not yet:", miss)

        return check

    return decorate


def _whole_numbers(answer):
    return {operator.index(number) for number in answer}


# 1 · Data formatting --------------------------------------------------------------------------------------------------


@_exercise("two row numbers, such as [0, 1],", _whole_numbers)
def deal(in_validation, rows):
    """Whether two rows for validation leave each label its share, and no text on both sides.

    Parameters
    ----------
    in_validation : collection of int
    rows : pandas.DataFrame
        A column `text`, all others labels of 0 and 1.
    """
    if len(in_validation) != 2 or not in_validation <= set(range(len(rows))):
        raise _NotYet(f"two different rows go to validation, counted from 0 to {len(rows) - 1}.")
    if faults := _unfair(rows["text"], rows.drop(columns="text"), rows.index.isin(in_validation)):
        raise _NotYet("\n  ".join(faults))
    return "each label has its share on both sides, and no text is on both."


def _unfair(texts, labels, in_validation):
    """What is wrong with a split, a sentence each: labels that lost their share, then texts on both sides."""
    faults = []
    for name, column in labels.items():
        there, total = column[in_validation].sum(), column.sum()
        fair = total * in_validation.mean()
        if abs(there - fair) >= 1:
            lost = "" if 0 < there < total else f": {'train' if there else 'validation'} has lost this label"
            faults.append(f"{name}: {there} of its {total} texts are in validation, {fair:.3g} would be fair{lost}.")
    for _, group in pd.Series(in_validation, texts).groupby(near_duplicates(list(texts))):
        if group.nunique() > 1:
            faults.append(f"{group.index[0]!r} is on both sides, word for word or nearly.")
    return faults


@_exercise("a text, the whole of the mended file,", str.lstrip)
def mended_csv(mended, faulty):
    """Whether the reader finds no fault in a CSV any more, and nothing was lost on the way.

    Parameters
    ----------
    mended, faulty : str
        The file after and before.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mended.csv")
        path.write_text(mended, encoding="utf-8", errors="replace")
        try:
            rows = read_rows(path)
        except DataError as error:
            raise _NotYet(f"the reader still has something to say.\n{error}") from None
    before, after = (Counter(re.findall(r"[^\W\d_]+", text.casefold())) for text in (faulty, mended))
    if lost := before - after:
        raise _NotYet(f"the reader is silent, but words are lost: {', '.join(lost)}. Mend rows, do not delete them.")
    if new := after - before:
        raise _NotYet(f"the reader is silent, but words are new: {', '.join(new)}.")
    if changed := [text for text in rows.text if text not in faulty]:
        raise _NotYet(f"the reader is silent, but this text was another before: {changed[0]!r}.")
    return "the reader is silent, and every text and label is still there."


@_exercise("one letter, 'A', 'B' or 'C',", lambda answer: str.strip(answer).upper())
def fair_split(letter, rows):
    """Whether the fair one of several splits was chosen.

    Parameters
    ----------
    letter : str
    rows : pandas.DataFrame
        A column `text`; columns of one letter, each a split of "t" and "v"; all others labels of 0 and 1.
    """
    splits = [name for name in rows if len(name) == 1]
    labels = rows.drop(columns=["text", *splits])
    faults = {name: _unfair(rows["text"], labels, (rows[name] == "v").to_numpy()) for name in splits}
    if letter not in faults:
        raise _NotYet(f"choose one of {', '.join(splits)}.")
    if faults[letter]:
        raise _NotYet(f"{letter} is not fair. {' '.join(faults[letter])}")
    others = [f"{name}: {' '.join(found)}" for name, found in faults.items() if found]
    return "\n  ".join([f"{letter} is fair, and the others are not.", *others])


# 2 · Tokenization -----------------------------------------------------------------------------------------------------


@_exercise("a whole number", operator.index)
def max_len(chosen, lengths):
    """Whether a MAX_LEN is the smallest multiple of STEP that cuts no more than MOST_CUT of the texts.

    Parameters
    ----------
    chosen : int
    lengths : int array of shape (n_examples,)
        Tokens of each text.
    """
    right = next(width for width in itertools.count(STEP, STEP) if np.mean(lengths > width) <= MOST_CUT)
    cut = np.mean(lengths > chosen)
    if cut > MOST_CUT:
        raise _NotYet(f"{chosen} cuts too many: {cut:.2%} of the texts, where {MOST_CUT:.0%} are allowed.")
    if chosen > right:
        raise _NotYet(f"{chosen} wastes: it cuts {cut:.2%} of the texts, and a smaller one is still allowed.")
    if chosen % STEP:
        raise _NotYet(f"{chosen} cuts few enough, but is no multiple of {STEP}.")
    tokens = np.maximum(lengths - chosen, 0).sum() / lengths.sum()
    return f"{chosen} cuts {cut:.2%} of the texts. They are the long ones: {tokens:.1%} of all tokens go with them."


@_exercise("two numbers, such as (0.5, 0.5),", lambda answer: [float(share) for share in answer])
def padding_share(shares, lengths):
    """Whether the shares of padding are right, in one batch and in two of half the size.

    Parameters
    ----------
    shares : two floats
    lengths : list of int
        Tokens of each text, in order.
    """
    if len(shares) != 2:
        raise _NotYet("it takes two numbers: the share in one batch, and the share in two.")
    half, text = len(lengths) // 2, sum(lengths)
    first, second = lengths[:half], lengths[half:]
    wide, narrow = len(lengths) * max(lengths), half * max(first) + half * max(second)
    mean = 1 - (np.mean(first) / max(first) + np.mean(second) / max(second)) / 2
    by_chance = half * (max(lengths) + sorted(lengths)[-2])  # the longest with a short one
    both = [
        {},
        {
            1 - text / wide: "each batch is padded to its own longest only",
            mean: "this is the mean of two shares, but the wider batch has more positions: count over both together",
            1 - text / by_chance: "the pairs are the first two and the last two",
        },
    ]
    misses = []
    for where, given, positions, others in zip(("one batch", "two batches"), shares, (wide, narrow), both, strict=True):
        right = 1 - text / positions
        others |= {
            text / positions: "this is the share of text, and padding is the rest",
            positions / text - 1: "this is padding divided by text; divide by all positions",
            positions - text: "this is a number of positions; divide it by all of them",
            100 * right: "this is in percent; write it as a share, from 0 to 1",
        }
        if not abs(given - right) <= 0.005:  # a nan is not right, either
            near = min(others, key=lambda value: abs(given - value))
            why = (
                others[near] if abs(given - near) <= 0.005 * max(1, near) else "count all positions, then those of text"
            )
            misses.append(f"{where}, {given:.4g}: {why}.")
    if misses:
        raise _NotYet("\n  ".join(misses))
    return f"{1 - text / wide:.0%} in one batch, {1 - text / narrow:.0%} in two: one long text made them all wide."


@_exercise("a list of text numbers, [] for none of them,", _whole_numbers)
def mask_of_ones(said, changed):
    """Whether it was foreseen which texts' logits change when the attention mask is all ones.

    Parameters
    ----------
    said : collection of int
    changed : list of bool, length n_examples
        What was measured.
    """
    really = {i for i, moved in enumerate(changed) if moved}
    if not said <= set(range(len(changed))):
        raise _NotYet(f"the texts are counted from 0 to {len(changed) - 1}.")
    misses = []
    for i in sorted(said - really):
        misses.append(
            f"text {i} has no padding: its mask was all ones before, and no text sees the others of its batch."
        )
    for i in sorted(really - said):
        misses.append(f"text {i} is padded: without its zeros the [PAD]s are read as if they were words.")
    if misses:
        raise _NotYet("\n  ".join(misses))
    return "the padded texts change. The longest has no padding, so its mask was all ones before."
