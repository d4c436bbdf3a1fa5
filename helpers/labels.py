"""Labels in every form in which they come, brought to their names and a matrix of 0 and 1.

In the order of the file: what a cell holds; a column of such cells; columns of truth values; names; matrices.
"""

import ast
import csv
import io
import json
import re
import tokenize
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

SEPARATORS = "|;,"
OTHER_SEPARATORS = ("\n", "\t", "#", "/", "\\", "&", "+", "，", "、", "；", " ")  # no separators here, but noticed
LABEL_COLUMNS = ("label", "cats", "accept", "annotations", "choices", "choice", "genres", "tags", "categories")
CHOICE_KEYS = ("choices", "choice", "labels", "label")  # of a dictionary that wraps labels
PASSAGE_KEYS = {"start", "end", "start_offset", "end_offset", "startOffset", "endOffset"}
SCORE_KEYS = {"score", "scores", "confidence", "probability", "probabilities"}
LISTS = (list, tuple, np.ndarray)
MAX_LABELS, SHOWN_NAMES = 512, 8
UNKNOWN = -100  # in a label matrix: nobody said whether the label is there; the value that torch's losses ignore, too
TRUE_WORDS = "yes y true t on ja wahr oui vrai sí si verdadero vero sim verdadeiro tak prawda waar да истина evet doğru"
FALSE_WORDS = "no n false f off nein falsch non faux falso não nao nie fałsz onwaar nee нет ложь hayır yanlış"
TRUTHS = dict.fromkeys((*TRUE_WORDS.split(), "是", "はい"), 1.0) | dict.fromkeys(
    (*FALSE_WORDS.split(), "否", "いいえ"), 0.0
)
FORMS = ("0 and 1", "words", "marks")
MARKS = {"x", "✓", "✔", "☑", "•"}
EMPTY_WORDS = {"nan", "none", "null", "<na>", "na", "n/a", "-", "-1"}  # what programs write for nothing
MINUS = {"-1", "-1.0", "-100", "-100.0"}  # what says that nobody looked
AS_UNKNOWN = "read it as unknown: UNKNOWN = True in a notebook, --unknown on the command line"
WHICH = 'LABEL_NAMES = ["a", "b"] in a notebook, --labels a,b on the command line'


def shown(value):
    """A value as it is quoted in a message: short, on one line."""
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= 60 else text[:56] + "..." + text[-1]


def listed(names, most=SHOWN_NAMES):
    """Names in a sentence, the first few of them."""
    names = [str(name) for name in names]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def chosen_and_left_out(label_names):
    """What `label_names` asks for: (the labels and their order or None, those to leave out).

    Raises
    ------
    ValueError
        When it is no list of texts, names a label twice, or both takes and leaves out.
    """
    if label_names is None:
        return None, set()
    if not isinstance(label_names, (list, tuple)) or not all(isinstance(n, str) and n.strip(" -") for n in label_names):
        raise ValueError(f'label names are {shown(label_names)}; give a list of texts, as ["a", "b"]')
    names = [name.strip() for name in label_names]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise ValueError(f"label name {twice[0]!r} is given twice; give each once")
    minus = [name.startswith("-") for name in names]
    if any(minus) and not all(minus):
        raise ValueError("give either the labels to take or, each with - before its name, those to leave out")
    return (None, {name[1:] for name in names}) if any(minus) else (names or None, set())


# What a cell holds ----------------------------------------------------------------------------------------------------


def read_cell(value):
    """What a cell says: a tuple of names or numbers, a dictionary from names to truth values, or a text as it is.

    Lists, sets, arrays and dictionaries; what JSON, Python, NumPy and PostgreSQL write for them; and the exports that
    wrap labels in a dictionary, as {"choices": [...]} or [{"label": ...}].

    Raises
    ------
    ValueError
        When the cell holds something else; the message says what.
    """
    if isinstance(value, str):
        text = value.strip()
        if not re.match(
            r"[\[{]|\((.*[,'\"].*)?\)$|(np\.|numpy\.)?(set|frozenset|array|list|tuple|dict|OrderedDict)\(", text
        ):
            if "dtype: " in text:
                raise ValueError("is how pandas prints a Series, which can't be read back; save the values instead")
            return value
        value = _parsed(text)
    if isinstance(value, dict) and len(value) > 1 and all(_is_truth(x) for x in value.values()):
        return {str(name): truth for name, truth in value.items()}  # of labels that may be called "label" or "end"
    return _unwrapped(value)


def _is_truth(value):
    return not isinstance(value, str) and _truth(value) in (0, 1, UNKNOWN)


def _unwrapped(value):
    if isinstance(value, dict):
        wrapping = [key for key in CHOICE_KEYS if key in value]
        if PASSAGE_KEYS & set(value):
            raise ValueError(_PASSAGES)
        if wrapping and SCORE_KEYS & set(value):
            raise ValueError("holds a score for each label; keep the labels whose score is high enough")
        if len(wrapping) == 1:
            inner = value[wrapping[0]]
            return _unwrapped(inner if isinstance(inner, (*LISTS, dict)) else [inner])
        return {str(name): truth for name, truth in value.items()}
    items = [item.item() if isinstance(item, np.generic) else item for item in value]
    if isinstance(value, (set, frozenset)):
        items.sort(key=str)
    if items and all(isinstance(item, dict) for item in items):
        parts = [_unwrapped(item) for item in items]
        if any(isinstance(part, dict) for part in parts):
            keys = listed(dict.fromkeys(key for item in items for key in item)) or "none"
            raise ValueError(f'holds dictionaries without a key "label" (the keys are {keys}); write a list of names')
        return tuple(item for part in parts for item in part)
    inner = [item for item in items if isinstance(item, (*LISTS, dict, set))]
    if any(isinstance(item, LISTS) and len(item) == 3 and isinstance(item[2], str) for item in inner):
        raise ValueError(_PASSAGES)
    if inner and len(items) == 1:
        return _unwrapped(inner[0])
    if inner:
        raise ValueError("holds lists within a list; write one list of label names")
    return tuple(items)


_PASSAGES = "marks passages of the text, and a label here is of the whole text; write a list of label names"


def _parsed(text):
    """The list, tuple, set or dictionary that was written as `text`; ValueError where that is not certain."""
    refusal = 'is not a list; write it as ["a", "b"] or a|b'
    try:
        value = json.loads(text)
        return value if isinstance(value, (list, dict)) else [value]
    except RecursionError:
        raise ValueError(refusal) from None
    except ValueError:
        pass
    if "..." in re.sub(r"'[^']*'|\"[^\"]*\"", "", text):
        raise ValueError("was cut short when it was printed; save the values instead")
    text = re.sub(r"np\.(?:\w+\(([^()]*)\)|(True|False)_)", r"\1\2", text)  # np.str_('a'), np.int64(1), np.True_
    if wrapped := re.fullmatch(r"(?:np\.|numpy\.)?(\w+)\((.*)\)", text, re.DOTALL):
        inner = re.sub(r",\s*dtype=[^,]*$", "", wrapped[2].strip())
        value = _parsed(inner) if inner else []
        return dict(value) if "dict" in wrapped[1].lower() else value
    quoted = r"(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")"
    if re.fullmatch(rf"\[\s*{quoted}(\s+{quoted})*\s*\]", text):  # as NumPy prints names, without commas
        return [ast.literal_eval(one) for one in re.findall(quoted, text)]
    numbers = text[1:-1].split() if text[0] + text[-1] == "[]" else []  # as NumPy prints these
    if set(numbers) - {"nan"} and all(re.fullmatch(r"-?(\d+\.?\d*|\.\d+)|nan|True|False", n) for n in numbers):
        return [json.loads(n.lower()) if n[0] in "TF" else float(n) if set(n) & {".", "n"} else int(n) for n in numbers]
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        if not re.fullmatch(r"\{[^{}\[\]()':=]*\}|\[[^{}\[\]()':\"]*\]", text):
            raise ValueError(refusal) from None
        value = [item.strip() for item in next(csv.reader([text[1:-1]], skipinitialspace=True))]  # {a,b}, [a, b]
        if any(item.lower() in ("", "nan", "none", "null") or "..." in item for item in value):
            raise ValueError(refusal) from None
        return value
    if _beside_each_other(text) or not isinstance(value, (list, tuple, set, dict)):
        raise ValueError(refusal)
    return value


def _beside_each_other(text):
    """Whether two quoted texts stand side by side, which Python would join into one."""
    kinds = [token.type for token in tokenize.generate_tokens(io.StringIO(text).readline)]
    return (tokenize.STRING, tokenize.STRING) in pairwise(kinds)


# A column of cells ----------------------------------------------------------------------------------------------------


def label_column(frame, columns_hold_labels):
    """The column that holds the labels of a row: `labels`, or one that an annotation tool calls otherwise.

    Parameters
    ----------
    frame : pandas.DataFrame
    columns_hold_labels : bool
        Whether there are 0/1 columns, so that a doubtful column need not hold the labels.

    Returns
    -------
    (str or None, list of str, list of str) : its name, notes and faults
    """
    if "labels" in frame:
        return "labels", [], []
    called = sorted(name for name in frame if name.lower() in LABEL_COLUMNS)
    certain = [name for name in called if any(_is_certain(cell) for cell in frame[name])]
    if len(certain) == 1:
        return certain[0], [f"column {certain[0]!r} is read as the labels"], []
    if len(certain) > 1:
        names = " and ".join(map(repr, certain))
        return None, [], [f"columns {names} may both hold the labels; rename the right one to labels"]
    doubtful = [name for name in called if pd.api.types.infer_dtype(frame[name]) in ("string", "categorical")]
    if doubtful and not columns_hold_labels:
        return None, [], [f"there is no column 'labels'; if {doubtful[0]!r} holds them, rename it to labels"]
    return None, [], []


def _is_certain(cell):
    """Whether a cell can be nothing but labels."""
    try:
        return cell is not None and not isinstance(cell, (float, int)) and not isinstance(read_cell(cell), str)
    except (ValueError, TypeError):
        return True  # it will be refused by name


def labels_from_cells(column, chosen, left_out, class_names, unknown, faults, notes):
    """Label names and matrix of a column of lists, joined names, ids, vectors or dictionaries.

    Each different cell is read once.

    Parameters
    ----------
    column : pandas.Series of length n_examples
    chosen : list of str or None
        The labels and their order.
    left_out : set of str
    class_names : list of str or None
        Of the ids, where the source knows them.
    unknown : bool
        Whether -1 and None within vectors and dictionaries mean that nobody said; otherwise they are faults.
    faults : has `add(positions, column, message)` and `add_whole(message)`
    notes : list of str, added to

    Returns
    -------
    (list of str, float32 array of shape (n_examples, n_labels))
    """
    values = [value.tolist() if isinstance(value, np.ndarray) else value for value in column]
    keys = [value if isinstance(value, str) else ("", repr(value)) for value in values]
    codes, first = pd.factorize(pd.Series(keys, dtype=object))[0], {}
    for i, code in enumerate(codes):
        first.setdefault(code, i)
    cells = [values[first[k]] for k in range(len(first))]
    order = np.argsort(codes, kind="stable")
    ends = np.searchsorted(codes[order], np.arange(len(cells)), side="right")

    def bad(k, message):
        faults.add(order[ends[k - 1] if k else 0 : ends[k]], column.name, message)

    for k, cell in enumerate(cells):
        if isinstance(cell, (str, *LISTS, set, frozenset, dict)):
            try:
                cells[k] = read_cell(cell)
            except ValueError as error:
                bad(k, f"{shown(cell)} {error}")
                cells[k] = ()
        else:
            cells[k] = None if pd.isna(cell) else cell
    lists = [cell for cell in cells if isinstance(cell, tuple)]
    counts = np.diff(ends, prepend=0)
    n_filled = {kind: counts[[isinstance(cell, kind) and bool(cell) for cell in cells]].sum() for kind in (dict, tuple)}
    if n_filled[dict] > n_filled[tuple]:
        names, small = _from_dictionaries(cells, chosen, unknown, bad)
    elif class_names is None and _are_vectors(lists, chosen, unknown):
        names, small = _from_vectors(cells, counts, chosen, unknown, bad, notes)
    else:
        wrapped = {k for k in range(len(cells)) if cells[k] and _wraps(values[first[k]])}
        names, small = _from_names(cells, wrapped, chosen, class_names, bad, faults, column.name, notes)
    for name in sorted(left_out - set(names)):
        faults.add_whole(f"label {name!r} is to be left out, but there is none of this name ({listed(names)})")
    keep = [j for j, name in enumerate(names) if name not in left_out]
    return [names[j] for j in keep], small[:, keep][codes]


def _wraps(cell):
    """Whether a cell is a dictionary around labels, beside which a plain text is one label (Label Studio's CSV)."""
    return isinstance(cell, dict) or (isinstance(cell, str) and cell.strip().startswith("{"))


def _from_names(cells, wrapped, chosen, class_names, bad, faults, column, notes):
    """Names and matrix of cells that hold names or ids; `wrapped` are the cells, by number, that are in braces."""
    plain = {k for k, cell in enumerate(cells) if isinstance(cell, str) and cell.strip()}
    listed_too = any(isinstance(cell, tuple) and cell for k, cell in enumerate(cells) if k not in wrapped)
    separator = next((s for s in SEPARATORS if any(s in cells[k] for k in plain)), SEPARATORS[0])
    names_of_ids = class_names or chosen
    sets = []
    for k, cell in enumerate(cells):
        items = ()
        if isinstance(cell, tuple):
            items = cell
        elif cell == {}:
            pass
        elif isinstance(cell, str):
            items = tuple(part for part in cell.split(separator) if part.strip()) if not wrapped else (cell,)
            if k not in plain:
                items = ()
            elif listed_too:
                bad(k, f"{shown(cell)} is joined text and other rows hold lists; use one form")
            elif names_of_ids and all(item.strip().isdigit() and item.strip() not in names_of_ids for item in items):
                items = tuple(int(item) for item in items)
        elif cell is None:
            bad(k, "there is no value; write an empty list for no label")
        else:
            bad(k, f"{shown(cell)} is neither a list nor a text; write a list of label names")
        names = []
        for item in items:
            if isinstance(item, int) and not isinstance(item, bool) and names_of_ids:
                if 0 <= item < len(names_of_ids):
                    names.append(names_of_ids[item])
                else:
                    bad(
                        k,
                        f"label id {item} has no name (there are {len(names_of_ids)}, from 0 on); give all label_names",
                    )
            elif not isinstance(item, str):
                bad(k, f"{shown(item)} is not a label name; write names, or give label_names for ids")
            elif not item.strip():
                bad(k, "a label has an empty name; write its name or take it out")
            elif not names_of_ids and (inside := next((s for s in SEPARATORS if s in item), None)):
                bad(k, f"label {shown(item.strip())} holds the separator {inside!r}; split it in two or rename it")
            else:
                names.append(item.strip())
        if len(items) > len({str(item) for item in items}):
            remedy = "write a vector as [0, 1]" if {str(item) for item in items} <= {"0", "1"} else "write each once"
            bad(k, f"{shown(list(items))} names a label twice; {remedy}")
        sets.append(names)
    found = {name for labels in sets for name in labels}
    names = list(chosen or class_names or sorted(found))
    for k, labels in enumerate(sets):
        for name in sorted(set(labels) - set(names)):
            bad(k, f"{name!r} is not among the label names given ({', '.join(names)})")
    if not chosen and not class_names:
        if plain and (joined := _joined_otherwise(found)):
            faults.add_whole(f"column {column!r}: {joined}")
            return [], np.zeros((len(cells), 0), dtype=np.float32)
        if found and found <= {"0", "1"}:
            what = "holds only 0 and 1, one answer a text, and multi-label data have two labels or more"
            faults.add_whole(f"column {column!r} {what}; take a binary classifier, or write label names")
        elif found and all(re.fullmatch(r"[\d. ]+", name) for name in found):
            notes.append(f"the labels are numbers ({listed(names)}); give their names: label_names, counted from 0")
        for name in sorted(name for name in found if name.lower() in EMPTY_WORDS):
            notes.append(f"label {name!r} is taken as a name; where it means that there is none, leave the cell empty")
    position = {name: j for j, name in enumerate(names)}
    small = np.zeros((len(cells), len(names)), dtype=np.float32)
    for k, labels in enumerate(sets):
        small[k, [position[name] for name in labels if name in position]] = 1
    return names, small


def _joined_otherwise(names):
    """What to say where some label equals others, joined by what is no separator here; None where none does."""
    for separator in OTHER_SEPARATORS:
        for name in sorted(names):
            parts = [part.strip() for part in name.split(separator)]
            if len(parts) > 1 and all(part in names for part in parts):
                what = f"label {name!r} is {' and '.join(map(repr, parts))}, joined by {separator!r}"
                return f"{what}; join labels by |, as {'|'.join(parts)}, or give label_names if it is one label"
    return None


def _from_dictionaries(cells, chosen, unknown, bad):
    """Names and matrix of cells as {"a": 1, "b": 0}; a name that a cell lacks is 0, or unknown where that is asked."""
    for k, cell in enumerate(cells):
        if not isinstance(cell, dict) and cell not in ((), ""):
            bad(k, f"{shown(cell)} is no dictionary, as other rows hold; use one form" if cell else _NO_VALUE)
    cells = [cell if isinstance(cell, dict) else {} for cell in cells]
    names = list(chosen or dict.fromkeys(name.strip() for cell in cells for name in cell))
    position = {name: j for j, name in enumerate(names)}
    small = np.full((len(cells), len(names)), UNKNOWN if unknown else 0, dtype=np.float32)
    for k, cell in enumerate(cells):
        if len({name.strip() for name in cell}) < len(cell):
            bad(k, f"{shown(cell)} names a label twice; write each once")
        for name, value in cell.items():
            truth = _truth(value)
            if name.strip() not in position:
                bad(k, f"{name!r} is not among the label names given ({', '.join(names)})")
            elif truth in (0, 1):
                small[k, position[name.strip()]] = truth
            elif truth == UNKNOWN and unknown:
                small[k, position[name.strip()]] = UNKNOWN
            else:
                remedy = f"delete it or {AS_UNKNOWN}" if truth == UNKNOWN else "decide for one of them"
                bad(k, f"label {name!r}: {shown(value)} is neither 0 nor 1; {remedy}")
    return names, small


_NO_VALUE = "there is no value; write an empty list for no label"


def _are_vectors(lists, chosen, unknown):
    """Whether lists hold 0 or 1 a label, and not label ids: floats, or all of one length and nothing but 0 and 1."""
    numbers = [x for cell in lists for x in cell if not (unknown and _truth(x) == UNKNOWN)]
    if not numbers or not all(isinstance(x, (int, float)) for x in numbers):
        return False
    lengths = {len(cell) for cell in lists}
    alike = len(lengths) == 1 and set(numbers) <= {0, 1, -1, UNKNOWN} and len(chosen or lists[0]) == len(lists[0]) > 1
    return alike or all(isinstance(x, float) for x in numbers)


def _from_vectors(cells, counts, chosen, unknown, bad, notes):
    lengths = np.array([len(cell) if isinstance(cell, tuple) else 0 for cell in cells])
    width = len(chosen) if chosen else int(np.bincount(lengths, weights=counts * (lengths > 0)).argmax())
    small = np.zeros((len(cells), width), dtype=np.float32)
    for k, cell in enumerate(cells):
        if not isinstance(cell, tuple):
            bad(k, f"{shown(cell)} is not a vector of 0 and 1, as other rows have")
        elif len(cell) != width:
            whose = "{} label names were given" if chosen else "most have {}"
            bad(k, f"a vector of length {len(cell)}, but {whose.format(width)}; write one number a label")
        else:
            truths = [_truth(x) for x in cell]
            if odd := [x for x, truth in zip(cell, truths, strict=True) if truth not in (0, 1, *[UNKNOWN] * unknown)]:
                remedy = (
                    f"delete the row or {AS_UNKNOWN}"
                    if _truth(odd[0]) == UNKNOWN
                    else "a label vector holds nothing else"
                )
                bad(k, f"{odd[0]!r} is neither 0 nor 1; {remedy}")
            else:
                small[k] = truths
    if not chosen:
        notes.append(f"the {width} labels have no names; give them: read_splits(..., label_names=[...])")
    return list(chosen or [f"label_{k}" for k in range(width)]), small


# Columns of truth values ----------------------------------------------------------------------------------------------


@dataclass
class _Column:
    """One column, looked at as if it held a label.

    Attributes
    ----------
    form : str
        How it says yes and no: "0 and 1", "words" or "marks"; "probabilities" or "" where it holds no label.
    truth : float32 array of shape (n_examples,)
        0, 1, UNKNOWN for -1, -100 and nothing, nan for anything else.
    values : pandas.Series of length n_examples
    example : value
        Something it holds, for a message.
    """

    form: str
    truth: np.ndarray
    values: pd.Series
    example: object


def _truth(value):
    """0.0, 1.0, UNKNOWN for what says nothing (nothing, -1, UNKNOWN itself), nan for anything else."""
    if isinstance(value, str):
        word = value.strip().lower()
        if not word:
            return UNKNOWN
        if word in TRUTHS:
            return TRUTHS[word]
    try:
        number = float("nan" if value is None or value is pd.NA else value)
    except (TypeError, ValueError):
        return float("nan")
    if number in (0, 1):
        return number
    missing = number in (-1, UNKNOWN) or (np.isnan(number) and not isinstance(value, str))
    return UNKNOWN if missing else float("nan")


def _look_at(column):
    """A `_Column`; each different value is looked at once."""
    if isinstance(column.dtype, pd.CategoricalDtype) and not column.hasnans:
        codes, values = column.cat.codes.to_numpy(), list(column.cat.categories)
    else:
        try:
            codes, values = pd.factorize(column, use_na_sentinel=False)
        except TypeError:  # dictionaries, lists, arrays
            example = next((value for value in column if value is not None), None)
            return _Column("", np.full(len(column), np.nan, dtype=np.float32), column, example)
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    counts = np.bincount(codes, minlength=len(values))
    truths = np.array([_truth(value) for value in values], dtype=np.float32)
    texts = [str(value).strip().lower() for value in values]
    words = np.array(
        [isinstance(value, str) and text in TRUTHS for value, text in zip(values, texts, strict=True)], bool
    )
    words &= np.array([text not in ("true", "false") for text in texts], dtype=bool)
    marks = np.array([text in MARKS for text in texts], dtype=bool)
    says = np.isin(truths, (0, 1))
    n, n_says, n_silent = counts.sum(), counts[says].sum(), counts[truths == UNKNOWN].sum()
    form = ""
    if marks.any() and counts[marks].sum() + n_silent == n:
        form, truths = "marks", np.where(marks, 1, 0).astype(np.float32)
    elif (n_says and n_says + n_silent == n) or n_says > n / 2 or MINUS & set(texts) and n_says + n_silent == n:
        form = "words" if counts[words].sum() > n_says / 2 else "0 and 1"
        truths[(words if form == "0 and 1" else ~words) & says] = np.nan  # one way to say it in one column
    elif _are_probabilities(values, counts):
        form = "probabilities"
    odd = np.flatnonzero(np.isnan(truths) | (truths == UNKNOWN)) if form != "probabilities" else np.arange(len(values))
    example = values[max(odd, key=lambda k: counts[k])] if len(odd) else values[0] if values else None
    return _Column(form, truths[codes], column, example)


def _are_probabilities(values, counts):
    """Whether all values are numbers from 0 to 1."""
    try:
        numbers = np.array([float(value) for value in values])
    except (TypeError, ValueError):
        return False
    return bool(len(numbers)) and bool(((numbers >= 0) & (numbers <= 1)).all())


def look_at_columns(frame):
    """Each column of a frame, looked at as if it held a label: a dict from its name to a `_Column`."""
    return {name: _look_at(frame[name]) for name in frame.columns}


def hold_labels(looked):
    """Whether some of these columns say yes or no of each row."""
    return any(column.form in FORMS for column in looked.values())


def labels_from_columns(looked, chosen, left_out, unknown, faults, notes):
    """Label names and matrix of columns of 0 and 1, yes and no, or x and nothing.

    Parameters
    ----------
    looked : dict of str to _Column, from `look_at_columns`
    chosen, left_out, unknown, faults, notes : see `labels_from_cells`

    Returns
    -------
    (list of str, float32 array of shape (n_examples, n_labels))
    """
    n_rows = len(next(iter(looked.values())).truth) if looked else 0
    columns = ", ".join(map(str, looked)) or "none"
    for name in sorted(left_out - set(looked)):
        faults.add_whole(f"label {name!r} is to be left out, but there is no such column (there are {columns})")
    names = [name for name, column in looked.items() if column.form in FORMS and name not in left_out]
    used = {form: [name for name in names if looked[name].form == form] for form in FORMS}
    if chosen:
        for name in chosen:
            if name not in looked:
                faults.add_whole(f"label name {name!r} was given, but there is no such column (there are {columns})")
        names = [name for name in chosen if name in looked]
    elif sum(map(bool, used.values())) > 1:
        says = "; ".join(f"{listed(some)}: {form}" for form, some in used.items() if some)
        faults.add_whole(f"columns say yes and no in more than one way ({says}); say which are labels: {WHICH}")
    elif not names and n_rows and not hold_labels(looked):
        _say_why_none(looked, faults)
    if not chosen and len(names) > 1:
        what = f"the labels are the columns {listed(names)}"
        notes.append(f'{what}; to leave one out: LABEL_NAMES = ["-{names[-1]}"], --labels=-{names[-1]}')
    if aside := [f"{name} (holds {shown(looked[name].example)})" for name in looked if name not in names]:
        why = "" if chosen or left_out else "; a label column holds 0 and 1"
        notes.append(f"columns not used: {listed(aside)}{why}")
    minus = {}  # where -1 is, by column
    for name in names:
        column = looked[name]
        odd, silent = np.flatnonzero(np.isnan(column.truth)), np.flatnonzero(column.truth == UNKNOWN)
        faults.add(odd, name, "{} is neither 0 nor 1; a label column holds nothing else", column.values)
        if len(silent) and not unknown:
            is_minus = np.array([str(value).strip() in MINUS for value in column.values.iloc[silent]])
            message = f"{{}} is neither 0 nor 1; write one of them or {AS_UNKNOWN}"
            faults.add(silent[~is_minus], name, message, column.values)
            if is_minus.any():
                minus[name] = silent[is_minus]
    if minus:
        n = len(set().union(*minus.values()))
        name, rows = next(iter(minus.items()))
        which = f"column {name!r}" if len(minus) == 1 else f"columns {listed(minus)}"
        what = f"{float(looked[name].values.iloc[rows[0]]):g} in {n} of {n_rows} rows, which often means that nobody looked"
        faults.add_whole(f"{which}: {what}; delete these rows, or {AS_UNKNOWN}")
    matrix = np.array([looked[name].truth for name in names], dtype=np.float32).reshape(len(names), n_rows).T
    return [str(name) for name in names], matrix


def _say_why_none(looked, faults):
    """The fault of a source without labels, with what was found instead."""
    probable = {name: column.example for name, column in looked.items() if column.form == "probabilities"}
    if probable:
        what = f"columns {listed(probable)} hold probabilities, as {next(iter(probable.values()))!s}"
        faults.add_whole(f"{what}, and a label is 0 or 1; decide first, for instance 1 where it is at least 0.5")
        return
    found = listed([f"{name}, as {shown(column.example)}" for name, column in looked.items()]) or "nothing"
    remedy = "rename the column of labels to labels, or write one 0/1 column a label"
    faults.add_whole(f"there is neither a column 'labels' nor one of 0 and 1 (beside the texts: {found}); {remedy}")


# Names ----------------------------------------------------------------------------------------------------------------


def check_names(names, faults):
    """A fault for each name that is none, and for names that hardly differ."""
    for name in names:
        inside = re.search(r"""[][{}"“”„«»\n\r\t\ud800-\udfff]|^['‘’`].*['‘’`]$""", name)
        if inside or name.count("(") != name.count(")"):
            remedy = "write the plain name; labels of one cell are joined by |"
            faults.add_whole(
                f"label {shown(name)} holds {inside[0][0] if inside else '('!r}, which names do not; {remedy}"
            )
    alike = {}
    for name in names:
        alike.setdefault("".join(name.lower().split()), []).append(name)
    for group in alike.values():
        if len(group) > 1:
            faults.add_whole(
                f"labels {' and '.join(map(repr, group))} differ by case or spaces only; write one of them"
            )
    if len(names) > MAX_LABELS:
        what = "are these label names, and not free text? Keep the commonest"
        faults.add_whole(f"{len(names)} labels are more than {MAX_LABELS}; {what}")


# Matrices -------------------------------------------------------------------------------------------------------------


def known(labels):
    """Where a label matrix (array or tensor, of any shape) says yes or no: bool, of the same shape.

    Other cells hold UNKNOWN; they take part in no loss, weight, baseline or score.
    """
    return labels != UNKNOWN


def count_positives(labels):
    """How many texts have each label: int array of shape (n_labels,), from an array of shape (n_examples, n_labels)."""
    return (np.asarray(labels) == 1).sum(axis=0)


def label_shares(labels):
    """Each label's share of yes among the texts of which it is known; 0 where it is known of none.

    Returns a float32 array of shape (n_labels,), from an array of shape (n_examples, n_labels).
    """
    n_known = known(np.asarray(labels)).sum(axis=0)
    return (count_positives(labels) / np.maximum(n_known, 1)).astype(np.float32)
