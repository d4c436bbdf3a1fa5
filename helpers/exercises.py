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
import torch
from scipy import stats

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


def _numbers(answer):
    return [float(number) for number in answer]


def _miss(given, right, near_misses, otherwise):
    """Why a number is wrong, in words; None where it is right.

    `near_misses` says of some wrong numbers how one gets at them.
    """
    if abs(given - right) <= 0.005:  # never so for a nan
        return None
    near = min(near_misses, key=lambda value: abs(given - value))
    return near_misses[near] if abs(given - near) <= 0.005 * max(1, abs(near)) else otherwise


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


@_exercise("two numbers, such as (0.5, 0.5),", _numbers)
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
        if why := _miss(given, right, others, "count all positions, then those of text"):
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


# 3 · A custom model and its training ----------------------------------------------------------------------------------


@_exercise("two numbers, such as (0.5, 0.5),", _numbers)
def first_losses(losses, shares):
    """Whether the loss before training is right: of an undecided model, and of one that knows the labels' shares.

    Parameters
    ----------
    losses : two floats
    shares : float array of shape (n_labels,)
        Of each label, between 0 and 1.
    """
    if len(losses) != 2:
        raise _NotYet("it takes two numbers: the loss of the undecided model, and of the one that knows the shares.")
    q, undecided, softmax = np.asarray(shares, dtype=float), np.log(2), np.log(len(shares))
    yes, mean = -q * np.log(q), q.mean()
    entropies = yes - (1 - q) * np.log(1 - q)
    entropy = entropies.mean()
    near = [
        {
            entropy: "this is the other model's; the undecided one comes first",
            softmax: "this is softmax's, which spreads 1 over the labels; here each label is a question of its own",
            0.5: "this is the probability p; the loss is -log p",
        },
        {
            undecided: "this is the undecided model's; a bias that knows the shares pays less",
            yes.mean(): "only the yes cells are counted; the no cells cost -log (1 - q) each",
            (-np.log(q)).mean(): "-log q is what a yes costs, and only a share q of a label's cells is one",
            -mean * np.log(mean) - (1 - mean) * np.log(1 - mean): "this is for the mean share; take the mean of the "
            "labels' losses",
        },
    ]
    misses = []
    names = ("undecided", "knows the shares")
    for name, given, right, others in zip(names, losses, (undecided, entropy), near, strict=True):
        others |= {
            right / undecided: "this is in bits, by log2; the loss takes the natural logarithm",
            right * len(q): "this is the sum over the labels; the loss is their mean",
            -right: "a loss is not negative: mind the sign of the logarithm",
        }
        if why := _miss(given, right, others, "write down what one yes and one no cost, and count both"):
            misses.append(f"{name}, {given:.4g}: {why}.")
    if misses:
        raise _NotYet("\n  ".join(misses))
    return f"{undecided:.3f} whatever the labels, and {entropy:.3f}. A first loss between them is no progress yet."


CHECKS = ("shapes", "first loss", "by heart", "nothing")


def _found_by(loss):
    """The first of CHECKS that finds a fault in a loss; its value at logits of 0, and after learning by heart."""
    targets = torch.eye(8)[:, :4] + torch.eye(8)[:, 4:].roll(1, dims=1)  # eight rows, a yes in each
    logits = torch.zeros_like(targets, requires_grad=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        optimizer, values = torch.optim.Adam([logits], lr=0.5), []
        for _ in range(100):
            value = loss(logits, targets)
            values.append(value.item())
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    first, last = values[0], np.mean(values[-10:])
    learned = last < 0.1 * first
    found = "first loss" if abs(first - np.log(2)) > 0.1 else "nothing" if learned else "by heart"
    return found, first, last, learned


def _words(answer):
    return {str(name): str.strip(word).casefold() for name, word in dict(answer).items()}


@_exercise("a word for each loss, such as {'A': 'shapes', ...},", _words)
def which_check(said, broken):
    """Whether it was foreseen which check is the first to find the fault of each loss.

    Parameters
    ----------
    said : dict of str
        For each name in `broken` one of CHECKS.
    broken : dict of functions (logits, targets) -> loss
        They get logits and targets of equal shape, float32.
    """
    if sorted(said) != sorted(broken):
        raise _NotYet(f"it takes a word for each of {', '.join(broken)}.")
    misses = []
    for name, loss in broken.items():
        word, (right, first, last, learned) = said[name], _found_by(loss)
        if word == right:
            continue
        if word not in CHECKS:
            why = f"the words are {', '.join(CHECKS)}"
        elif word == "shapes":
            why = "logits and targets have the right shape and type before they get here"
        elif right == "first loss":
            why = f"at logits of 0 it gives {first:.3f}, and log 2 is 0.693"
            if word == "by heart":
                why += f"; it falls to {last:.3f}, and that passes" if learned else ", which is seen first"
        elif word == "first loss":
            why = f"at logits of 0 it gives {first:.3f}, which is log 2, as it should be"
        elif right == "by heart":
            why = f"eight rows can't be learned with it: {last:.3f} is left at the end"
        else:
            why = f"it falls from {first:.3f} to {last:.3f}, so eight rows are learned; ask what they learn to say"
        misses.append(f"{name}, {word}: {why}.")
    if misses:
        raise _NotYet("\n  ".join(misses))
    return "and what passes all three shows only in a score against the true labels, far below the label prior's."


def _scores_and_word(answer):
    before, after, verdict = answer
    return _numbers(before), _numbers(after), str.strip(verdict).casefold()


@_exercise(
    'two lists of three scores and a word, such as ([0.5, 0.4, 0.6], [0.6, 0.6, 0.7], "helps"),', _scores_and_word
)
def defended(answer):
    """Whether a verdict on a step of a recipe is one that three seeds bear out.

    Parameters
    ----------
    answer : (list of three floats, list of three floats, str)
        Scores without and with the step, seed by seed; "helps", "harms" or "not clear".
    """
    before, after, verdict = answer
    if verdict not in ("helps", "harms", "not clear"):
        raise _NotYet('the third is "helps", "harms" or "not clear".')
    if len(before) != 3 or len(after) != 3:
        raise _NotYet(f"three seeds each: here are {len(before)} and {len(after)} scores.")
    if not all(0 <= score <= 1 for score in before + after):
        raise _NotYet("scores are numbers from 0 to 1.")
    gain = np.subtract(after, before)
    if before == after:
        raise _NotYet("both lists are the same: was the step really changed?")
    if len(set(before)) == 1 or len(set(after)) == 1:
        raise _NotYet("three equal scores: was the seed really changed, for the head and for the batches?")
    mean, error = gain.mean(), gain.std(ddof=1) / np.sqrt(3)
    low, high = mean + error * stats.t.ppf([0.025, 0.975], 2)
    really = "helps" if low > 0 else "harms" if high < 0 else "not clear"
    numbers = (
        f"gains of {', '.join(f'{g:+.3f}' for g in gain)}, mean {mean:+.3f}, 95% interval {low:+.3f} to {high:+.3f}"
    )
    if verdict == really:
        return f"{really}: {numbers}." + (
            " Zero is in it, so three seeds can't tell; that is a result, too." if really == "not clear" else ""
        )
    if really != "not clear":
        side = "above" if low > 0 else "below"
        raise _NotYet(f"{numbers}. All of it is {side} zero.")
    why = "the mean alone does not count: zero is in the interval"
    if (verdict == "helps") != (mean > 0):
        why = "a gain is the score with the step minus the score without it, and its mean points the other way"
    elif abs(mean) > 1.96 * error:
        why = "the factor 1.96 is for many seeds; of three the spread is hardly known, and Student's t has 4.30"
    elif (gain > 0).all() or (gain < 0).all():
        why = "all three point one way, as three coins do in one of four throws"
    raise _NotYet(f"{numbers}. {why[0].upper()}{why[1:]}.")


# 4 · The Trainer with class weights -----------------------------------------------------------------------------------


@_exercise("three numbers, such as (10, 20, 0.5),", _numbers)
def weight_of_a_label(answer, n_positives, n_texts):
    """Whether a label's pos_weight is right, scikit-learn's "balanced" weight, and the best constant answer under it.

    Parameters
    ----------
    answer : three floats
    n_positives, n_texts : int
        Positives, and texts in all; there are texts without the label.
    """
    if len(answer) != 3:
        raise _NotYet('it takes three numbers: the pos_weight, the weight of "balanced", and the probability.')
    n_negatives, q = n_texts - n_positives, n_positives / n_texts
    full, balanced = n_negatives / n_positives, n_texts / (2 * n_positives)
    rights = full, balanced, _best_constant(q, balanced)
    near = [
        {
            n_texts / n_positives: "this is n / n_pos; the balance is between negatives and positives",
            1 / full: "this is n_pos / n_neg, the other way round",
            np.sqrt(full): "this is the square root, which is milder than balance",
            balanced: 'this is the weight of "balanced"; n / (2 n_pos) is not n_neg / n_pos',
        },
        {
            full: "this is n_neg / n_pos, which pos_weight needs",
            n_texts / n_positives: "this is n / n_pos; the two classes share the weight, so half of it",
            n_texts / (2 * n_negatives): "this is the weight of the negatives",
        },
        {
            q: "this is the share, the best answer without a weight",
            0.5: "one half is what full balance makes of any label, and w q alone; divide w q by w q + 1 - q",
            _best_constant(q, 1 / balanced): "the weight goes the other way: it makes a yes cost more",
            balanced * q / (1 - q): "these are the odds p / (1 - p); the probability is wanted",
        },
    ]
    misses = []
    names = ("pos_weight", '"balanced"', "probability")
    for name, given, right, others in zip(names, answer, rights, near, strict=True):
        if why := _miss(given, right, others, "count the negatives, and write down what a yes and a no weigh"):
            misses.append(f"{name}, {given:.4g}: {why}.")
    if misses:
        raise _NotYet("\n  ".join(misses))
    return (
        f'{full:.3g} balances, "balanced" is {balanced:.3g}, and with that a model that knows nothing says '
        f"{rights[2]:.3f} to every text, where {q:.3g} of them have the label."
    )


def _best_constant(q, w):
    return w * q / (w * q + 1 - q)


def _word_numbers(answer):
    return {str(name).strip().upper(): float(number) for name, number in dict(answer).items()}


@_exercise("a number for each, such as {'A': 1.5, ...},", _word_numbers)
def two_parts(totals, parts, ways):
    """Whether it was foreseen what two parts of a batch add up to, for each of several ways to write the loss.

    Parameters
    ----------
    totals : dict of float
    parts : two lists of float
        The loss of each cell.
    ways : dict of functions (cells, n, n_parts) -> loss
        `cells` is a float tensor of one part's cells, `n` the number of cells in all parts.
    """
    if sorted(totals) != sorted(ways):
        raise _NotYet(f"it takes a number for each of {', '.join(ways)}.")
    cells = [torch.tensor(part, dtype=torch.float64) for part in parts]
    n, whole = sum(map(len, parts)), torch.cat(cells).mean().item()
    rights = {name: sum(way(part, n, len(parts)).item() for part in cells) for name, way in ways.items()}
    misses = []
    for name, right in rights.items():
        near = {
            right / len(parts): "this is divided by the number of parts; nobody does that here",
            right * len(parts): "this is not yet divided by the number of parts",
            sum(map(sum, parts)): "this is the sum of all cells, not divided by anything",
        }
        near |= {ways[name](part, n, len(parts)).item(): "this is one part alone; add the other" for part in cells}
        near |= {value: f"this is what {other} gives" for other, value in rights.items() if abs(value - whole) > 1e-9}
        near |= {whole: "this is the mean of the whole batch, and not every way gives that"}
        if why := _miss(totals[name], right, near, "take each part by itself, then add the two"):
            misses.append(f"{name}, {totals[name]:.4g}: {why}.")
    if misses:
        raise _NotYet("\n  ".join(misses))
    exact = [name for name, value in rights.items() if abs(value - whole) < 1e-9]
    others = ", ".join(f"{name} gives {value:.3g}" for name, value in rights.items() if name not in exact)
    return f"the whole batch's mean is {whole:.3g}, and so is {' and '.join(exact)}; {others}."


@_exercise("two numbers, such as (0.5, 0.5),", _numbers)
def without_the_weight(answer, weight, said):
    """Whether a weighted model's probability was brought back, and where it says what is one half without the weight.

    Parameters
    ----------
    answer : two floats
    weight : float
        The label's pos_weight, not 1.
    said : float
        The weighted model's probability.
    """
    if len(answer) != 2:
        raise _NotYet("it takes two numbers: the probability without the weight, and the cut.")
    odds = said / (1 - said)
    near = [
        {
            said / weight: "the weight multiplies the odds, not the probability",
            odds / weight: "these are the odds; the probability is odds / (1 + odds)",
            _best_constant(said, weight): "this puts the weight in once more; take it out",
            said: "this is with the weight",
            1 - said: "this is the probability of a no, with the weight",
        },
        {
            0.5: "this is the cut without the weight; with it, what is one half has become more",
            1 / (weight + 1): "this is the probability of a no there; the weight moves a yes upwards",
            np.sqrt(weight) / (np.sqrt(weight) + 1): "the weight was given as it is; no root is taken of it",
            1 / weight: "even odds have become w to 1; make a probability of that",
            weight: "these are the odds at the cut; the probability is odds / (1 + odds)",
        },
    ]
    rights = odds / (weight + odds), weight / (weight + 1)
    misses = []
    for name, given, right, others in zip(("without the weight", "cut"), answer, rights, near, strict=True):
        others |= {100 * right: "this is in percent; write it as a number from 0 to 1"}
        if why := _miss(given, right, others, "write p as odds, p / (1 - p), and divide by the weight"):
            misses.append(f"{name}, {given:.4g}: {why}.")
    if misses:
        raise _NotYet("\n  ".join(misses))
    return f"{rights[0]:.3f}, and from {rights[1]:.3g} on a yes is the more likely answer: {said:.3g} is below that."
