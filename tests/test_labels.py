"""Labels as tools, spreadsheets and printed objects write them: read right, or refused in one sentence."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from helpers.data import DataError, read_rows
from helpers.labels import LABEL_COLUMNS, UNKNOWN, chosen_and_left_out, count_positives, known, label_shares, read_cell
from helpers.reading import FILE_KINDS, TEXT_COLUMNS

CASES = Path(__file__).parent / "cases"
SIX = [["calm"], ["calm", "angry"], [], ["angry", "sad"], ["sad"], ["calm", "sad"]]
LEAVE_OUT = 'the labels are the columns calm, angry, sad; to leave one out: LABEL_NAMES = ["-sad"], --labels=-sad'
NO_NAMES = "the 3 labels have no names; give them: read_splits(..., label_names=[...])"

# Files whose thirty rows carry SIX over and over, each in its form: names in the order of the matrix, and notes.
READ = {
    "dict_01_in_csv.csv": ("calm angry sad", []),
    "doccano_jsonl.jsonl": ("angry calm sad", ["column 'label' is read as the labels", "columns not used: Comments"]),
    "doccano_label_list.jsonl": ("angry calm sad", ["column 'label' is read as the labels"]),
    "dup_ids_empty.csv": ("angry calm sad", ["the column 'id' is empty; the rows are numbered"]),
    "excel_sep.csv": ("angry calm sad", []),
    "excel_trailing_columns.csv": ("angry calm sad", []),
    "header_space.csv": ("angry calm sad", []),
    "header_space_01.csv": ("calm angry sad", [LEAVE_OUT]),
    "json_in_csv_pretty.csv": ("angry calm sad", []),
    "json_list_pretty.jsonl": ("angry calm sad", []),
    "jsonl_01_meta_dict.jsonl": (
        "calm angry sad",
        [
            LEAVE_OUT,
            "columns not used: meta (holds {'source': 'forum', 'page': 0}); a label column holds 0 and 1",
        ],
    ),
    "labelstudio.csv": ("angry calm sad", ["columns not used: annotation_id"]),
    "labelstudio_orig.csv": (
        "angry calm sad",
        [
            "column 'choice' is read as the labels",
            "columns not used: annotation_id, annotator, created_at, lead_time",
        ],
    ),
    "nested.jsonl": ("label_0 label_1 label_2", [NO_NAMES]),
    "nested.parquet": ("label_0 label_1 label_2", [NO_NAMES]),
    "numpy_names.csv": ("angry calm sad", []),
    "parquet_01_embedding.parquet": (
        "calm angry sad",
        [
            LEAVE_OUT,
            "columns not used: embedding (holds array([0., 1., 2., 3.])); a label column holds 0 and 1",
        ],
    ),
    "sets.csv": ("angry calm sad", []),
    "spacy_cats.jsonl": ("calm angry sad", ["column 'cats' is read as the labels"]),
    "spacy_cats_renamed.jsonl": ("calm angry sad", []),
    "surrogate.jsonl": (
        "angry calm sad",
        ["30 rows hold half of a character that takes two, as emoji do; \N{REPLACEMENT CHARACTER} is in its place"],
    ),
    "tuples.csv": ("label_0 label_1 label_2", [NO_NAMES]),
    "x_marks.csv": ("calm angry sad", [LEAVE_OUT]),
    "yes_no.csv": ("calm angry sad", [LEAVE_OUT]),
}


@pytest.mark.parametrize("case", READ)
def test_a_form_is_read(case):
    names, notes = READ[case]
    rows = read_rows(CASES / case)
    assert rows.label_names == names.split()
    known = ["calm", "angry", "sad"] if names.startswith("label_") else rows.label_names
    expected = [[float(name in SIX[i % 6]) for name in known] for i in range(30)]
    assert rows.matrix.tolist() == expected
    assert rows.notes == notes
    assert list(rows.text)[0].startswith("note 0: lantern")
    assert len(set(rows.id)) == 30


JOINED = "column 'labels': label {!r} is 'calm' and 'sad', joined by {!r}; "
JOINED += "join labels by |, as calm|sad, or give label_names if it is one label"
WAYS = "columns say yes and no in more than one way ({}); say which are labels: "
WAYS += 'LABEL_NAMES = ["a", "b"] in a notebook, --labels a,b on the command line'
NOBODY = "-1 in 17 of 30 rows, which often means that nobody looked; delete these rows, or read it as unknown: "
NOBODY += "UNKNOWN = True in a notebook, --unknown on the command line"
PASSAGES = "marks passages of the text, and a label here is of the whole text; write a list of label names"

REFUSED = {
    "doccano_hash.csv": (1, JOINED.format("calm#sad", "#")),
    "doccano_old_annotations.jsonl": (
        40,
        "row 1, column 'annotations': 1 is not a label name; write names, or give label_names for ids",
    ),
    "filtered_bad_label.parquet": (
        1,
        "row 9, column 'calm': 2 is neither 0 nor 1; a label column holds nothing else",
    ),
    "filtered_bad_split.parquet": (
        1,
        "row 26, column 'split': 'holdout' is none of train, validation, test; "
        "write one of them or leave the column out",
    ),
    "filtered_keyerror.parquet": (
        1,
        "row 1, column 'calm': 2 is neither 0 nor 1; a label column holds nothing else",
    ),
    "kaggle_minus1_most.csv": (1, f"columns calm, angry, sad: {NOBODY}"),
    "newline.csv": (1, JOINED.format("calm\nsad", "\n")),
    "one_column_yes_no.csv": (1, WAYS.format("calm, angry: 0 and 1; sad: words")),
    "prodigy.jsonl": (
        5,
        "row 1, column 'answer': 'reject' means that the labels do not hold; keep the rows with 'accept'",
    ),
    "slash.csv": (1, JOINED.format("calm / sad", "/")),
    "soft.csv": (
        1,
        "columns calm, angry, sad hold probabilities, as 0.153, and a label is 0 or 1; "
        "decide first, for instance 1 where it is at least 0.5",
    ),
    "space.csv": (1, JOINED.format("calm sad", " ")),
    "spans.jsonl": (25, f"row 1, column 'labels': [[0, 4, 'calm']] {PASSAGES}"),
    "yes_no_mixed.csv": (1, WAYS.format("checked: 0 and 1; calm, angry, sad: words")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_form_is_refused_by_name(case):
    count, first = REFUSED[case]
    with pytest.raises(DataError) as error:
        read_rows(CASES / case)
    assert error.value.faults[0] == first
    assert len(error.value.faults) == count


OTHERS = {
    "five.csv": "a1 b1 c1 d1 e1",
    "html_emoji.csv": "größe 日本 😀\xa0calm",
    "id_as_index.parquet": "calm angry sad",
    "ids_first_1.csv": "0 1 27 3 5",
    "label_named_labels.csv": "image labels spam",
    "label_named_text.csv": "image spam text",
    "long.csv": "angry calm sad",
    "metadata_01_ok.csv": "calm angry sad is_retweet",
    "other.csv": "blue green red",
    "river.csv": "angry calm sad",
    "text.csv": "spam text",
    "three.csv": "angry calm sad",
}


@pytest.mark.parametrize("case", OTHERS)
def test_what_else_is_read(case):
    rows = read_rows(CASES / case)
    assert rows.label_names == [name.replace("\xa0", " ") for name in OTHERS[case].split(" ")]


def test_every_case_is_expected_to_do_something():
    assert {path.name for path in CASES.iterdir()} == {*READ, *REFUSED, *OTHERS}


def test_the_ids_of_an_index_and_labels_that_are_numbers():
    assert list(read_rows(CASES / "id_as_index.parquet").id[:3]) == ["d0", "d1", "d2"]
    assert read_rows(CASES / "ids_first_1.csv").notes == [
        "the labels are numbers (0, 1, 27, 3, 5); give their names: label_names, counted from 0"
    ]


# Cells ----------------------------------------------------------------------------------------------------------------

CELLS = {
    '["a", "b"]': ("a", "b"),
    "['a', 'b']": ("a", "b"),
    "[]": (),
    "('a', 'b')": ("a", "b"),
    "('a',)": ("a",),
    "(0, 1, 0)": (0, 1, 0),
    "{'b', 'a'}": ("a", "b"),
    "{'f', 'c', 'e', 'b', 'd', 'a'}": ("a", "b", "c", "d", "e", "f"),
    "set()": (),
    "frozenset({'a'})": ("a",),
    "{a,b}": ("a", "b"),  # PostgreSQL
    '{"sci fi",b}': ("sci fi", "b"),
    "[a, b]": ("a", "b"),
    "['a' 'b']": ("a", "b"),  # NumPy, as the next, over two lines
    "[\"it's\"\n 'b']": ("it's", "b"),
    "[1. 0. 1.]": (1.0, 0.0, 1.0),
    "[1 0 1]": (1, 0, 1),
    "array(['a', 'b'], dtype='<U1')": ("a", "b"),
    "array(['a', 'b'], dtype=object)": ("a", "b"),
    "np.array([1, 0])": (1, 0),
    "[np.str_('a'), np.str_('b')]": ("a", "b"),
    "{'a': 1, 'b': 0}": {"a": 1, "b": 0},
    '{"a": true, "b": false}': {"a": True, "b": False},
    "OrderedDict([('a', 1), ('b', 0)])": {"a": 1, "b": 0},
    "{}": {},
    '{"choices": ["a", "b"]}': ("a", "b"),
    '{"choices": "a"}': ("a",),
    '[{"label": "a"}, {"label": "b"}]': ("a", "b"),
    '[{"choices": ["a"]}, {"choices": ["b"]}]': ("a", "b"),
    "[[1, 0]]": (1, 0),
    "()": (),
    "[ True False]": (True, False),
    "[-1  0  1]": (-1, 0, 1),
    "[1. 0. -1.]": (1.0, 0.0, -1.0),
    "[np.int64(1) np.int64(0)]": (1, 0),
    "[np.True_, np.False_]": (True, False),
    "['caf\\xe9']": ("café",),
    "['a\\\\b' 'c']": ("a\\b", "c"),
    "{'label': 1, 'other': 0}": {"label": 1, "other": 0},
    "{'start': True, 'end': False}": {"start": True, "end": False},
    '{"label": "a", "user": 1}': ("a",),
    "a|b": "a|b",
    "horror (film)": "horror (film)",
    "(other)": "(other)",
    "['a', 'b'": None,
    "['a' 'b', 'c']": None,
    "[nan]": None,
    "['a' ... 'b']": None,
    "{'a' 'b'}": None,
    "[['a'], ['b']]": None,
    '[{"name": "a"}]': None,
    "0    a\n1    b\ndtype: object": None,
    '[{"start": 0, "end": 4, "label": "a"}]': None,
    '[{"label": "a", "score": 0.4}]': None,
    '[[0, 4, "a"]]': None,
    "['it''s']": None,
    "{a=1, b=0}": None,
    '{"labels": ["a", "b"], "scores": [0.9, 0.1]}': None,
    "[0 0 ... 1]": None,
    "['a', ...]": None,
    "[" * 100_000: None,
}


@pytest.mark.parametrize("cell", CELLS)
def test_a_printed_cell_is_read_back_or_refused(cell):
    if CELLS[cell] is None:
        with pytest.raises(ValueError, match=r"write|save|keep"):
            read_cell(cell)
    else:
        assert read_cell(cell) == CELLS[cell]
        assert type(read_cell(cell)) is type(CELLS[cell])


@pytest.mark.parametrize("value", [{"b", "a"}, ("a", "b"), np.array(["a", "b"]), [np.str_("a"), "b"]])
def test_lists_of_every_type_are_read(value):
    assert read_cell(value) == ("a", "b")


def frame_of(labels, tmp_path, suffix=".parquet", **columns):
    """A file of twelve rows whose cells are `labels` over and over."""
    frame = pd.DataFrame({"text": [f"text {i}" for i in range(12)], **columns})
    if labels is not None:
        frame["labels"] = pd.Series([labels[i % len(labels)] for i in range(12)], dtype=object)
    path = tmp_path / f"data{suffix}"
    if suffix == ".parquet":
        frame.to_parquet(path)
    elif suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False)
    return path


def fault_of(path, **options):
    with pytest.raises(DataError) as error:
        read_rows(path, **options)
    return error.value.faults


@pytest.mark.parametrize(
    ("labels", "fault"),
    [
        (["a|b", "a,b|c"], "row 3, column 'labels': label 'a,b' holds the separator ','; split it in two or rename it"),
        (["{'choices': ['a']}", "a,b"], "row 3, column 'labels': label 'a,b' holds the separator ','; split it in"),
        (["a & b", "a", "b"], "column 'labels': label 'a & b' is 'a' and 'b', joined by '&'; "),
        (["a+b", "a", "b"], "column 'labels': label 'a+b' is 'a' and 'b', joined by '+'; "),
        (["0", "1"], "column 'labels' holds only 0 and 1, one answer a text, and multi-label data have two labels"),
        (["a]", "b"], "label 'a]' holds ']', which names do not; write the plain name"),
        (["a", 'b"'], "label 'b\"' holds '\"', which names do not; write the plain name"),
        (["'a', 'b'", "'b'"], 'label "\'a\'" holds "\'", which names do not; write the plain name'),
        (["“a”", "b"], "label '“a”' holds '“', which names do not; write the plain name"),
        (['["\\ud83d"]', '["b"]'], "label '\\ud83d' holds '\\ud83d', which names do not; write the plain name"),
        (["a\tb", "a", "b"], "column 'labels': label 'a\\tb' is 'a' and 'b', joined by '\\t'; "),
        (["a、b", "a", "b"], "column 'labels': label 'a、b' is 'a' and 'b', joined by '、'; "),
        (["1,0,1", "0,1"], "row 2, column 'labels': ['1', '0', '1'] names a label twice; write a vector as [0, 1]"),
        (['{"a": 1, " a": 0}'], "row 2, column 'labels': {'a': 1, ' a': 0} names a label twice; write each once"),
        (
            ["[{'id': 28, 'name': 'a'}]"],
            "row 2, column 'labels': \"[{'id': 28, 'name': 'a'}]\" holds dictionaries without a key \"label\" "
            "(the keys are id, name)",
        ),
        (["a(", "b"], "label 'a(' holds '(', which names do not; write the plain name"),
        (["{'a': 1, 'b': 0.4}"], "row 2, column 'labels': label 'b': 0.4 is neither 0 nor 1; decide for one of them"),
        (["{'a': 1, 'b': -1}"], "row 2, column 'labels': label 'b': -1 is neither 0 nor 1; delete it or read it as"),
        (["{'a': 1, 'b': 0}", "a"], "row 3, column 'labels': 'a' is no dictionary, as other rows hold; use one form"),
    ],
)
def test_a_doubtful_cell_is_said(tmp_path, labels, fault):
    assert fault_of(frame_of(labels, tmp_path, ".csv"))[0].startswith(fault)


def test_a_name_that_only_looks_joined_is_one_label_where_that_is_said(tmp_path):
    path = frame_of(["sci fi", "sci", "fi", "new york"], tmp_path, ".csv")
    assert "joined by ' '" in fault_of(path)[0]
    names = ["sci fi", "sci", "fi", "new york"]
    assert read_rows(path, label_names=names).matrix[:4].tolist() == np.eye(4).tolist()
    assert read_rows(frame_of(["new york", "rome"], tmp_path, ".csv")).label_names == ["new york", "rome"]


def test_names_that_hold_a_separator_are_taken_where_they_are_given(tmp_path):
    path = frame_of(["x, y|b", "b", "x, y"], tmp_path, ".csv")
    assert "holds the separator ','" in fault_of(path)[0]
    assert read_rows(path, label_names=["x, y", "b"]).matrix[:3].tolist() == [[1, 1], [0, 1], [1, 0]]


def test_names_that_may_be_none_are_said(tmp_path):
    note = "label {!r} is taken as a name; where it means that there is none, leave the cell empty"
    assert read_rows(frame_of(["nan", "a|b", "N/A"], tmp_path, ".csv")).notes == [
        note.format("N/A"),
        note.format("nan"),
    ]
    numbers = "the labels are numbers (0 1, 1 0); give their names: label_names, counted from 0"
    assert read_rows(frame_of(["0 1", "1 0"], tmp_path, ".csv")).notes == [numbers]


def test_empty_forms_of_every_kind_beside_joined_names(tmp_path):
    path = frame_of(["[]", "{}", "()", "set()", "", "a|b"], tmp_path, ".csv")
    assert read_rows(path).matrix.sum(axis=1).tolist() == [0, 0, 0, 0, 0, 2] * 2


def test_columns_that_tools_call_otherwise(tmp_path):
    path = frame_of(None, tmp_path, ".csv", Genres=["['a']", "['b']"] * 6)
    assert read_rows(path).notes == ["column 'Genres' is read as the labels"]
    path = frame_of(None, tmp_path, ".csv", genres=["drama", "drama|crime"] * 6)
    assert fault_of(path) == ["there is no column 'labels'; if 'genres' holds them, rename it to labels"]
    path = frame_of(None, tmp_path, ".csv", genres=["drama", "crime"] * 6, a=[0, 1] * 6, b=[1, 1, 0] * 4)
    assert read_rows(path).label_names == ["a", "b"]
    path = frame_of(None, tmp_path, tags=[["a"], ["b"]] * 6, label=[["c"], ["d"]] * 6)
    assert fault_of(path) == ["columns 'label' and 'tags' may both hold the labels; rename the right one to labels"]
    path = frame_of(None, tmp_path, accept=[["a"], ["b"]] * 6, answer=["accept"] * 12)
    assert read_rows(path).label_names == ["a", "b"]


# Columns of truth values ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("yes", "no"),
    [
        ("yes", "no"),
        ("Y", "N"),
        ("WAHR", "FALSCH"),
        ("VRAI", "FAUX"),
        ("да", "нет"),
        ("sí", "no"),
        ("はい", "いいえ"),
        ("True", "False"),
        ("1.0", "0.0"),
        (" X ", ""),
        ("✓", ""),
    ],
)
def test_every_way_to_say_yes_and_no(tmp_path, yes, no):
    columns = {"a": [yes, no, no] * 4, "b": [no, yes] * 6}
    rows = read_rows(frame_of(None, tmp_path, ".csv", **columns))
    assert rows.matrix[:3].tolist() == [[1, 0], [0, 1], [0, 0]]


def test_a_word_among_words_is_a_fault_with_its_place(tmp_path):
    path = frame_of(None, tmp_path, ".csv", a=["yes", "no"] * 5 + ["maybe", "no"], b=["yes", "no"] * 6)
    assert fault_of(path) == ["row 12, column 'a': 'maybe' is neither 0 nor 1; a label column holds nothing else"]
    path = frame_of(None, tmp_path, ".csv", a=["1", "0"] * 5 + ["yes", "0"], b=["yes", "no"] * 5 + ["1", "no"])
    assert fault_of(path, label_names=["a", "b"]) == [
        "row 12, column 'a': 'yes' is neither 0 nor 1; a label column holds nothing else",
        "row 12, column 'b': '1' is neither 0 nor 1; a label column holds nothing else",
    ]


def test_a_cross_is_no_tick(tmp_path):
    path = frame_of(None, tmp_path, ".csv", a=["✓", "✗", ""] * 4, b=["✗", "✓", ""] * 4)
    assert fault_of(path)[0].startswith(
        "there is neither a column 'labels' nor one of 0 and 1 (beside the texts: a, as"
    )


def test_the_only_label_is_refused_with_what_was_set_aside(tmp_path):
    aside = "(columns not used: b (holds '0.4'); a label column holds 0 and 1)"
    empty = frame_of(None, tmp_path, ".csv", a=[0] * 12, b=[0.4] * 12)
    assert fault_of(empty) == [f"no label is used in any row; check the labels {aside}"]
    path = frame_of(None, tmp_path, ".csv", a=[0, 1] * 6, b=[2, 1] * 6)
    remedy = "take a binary classifier, or add labels (columns not used: b (holds '2'); a label column holds 0 and 1)"
    assert fault_of(path) == [f"there is only one label, 'a', and multi-label data have two or more; {remedy}"]


def test_any_other_column_is_set_aside_with_what_it_holds(tmp_path):
    columns = {
        "a": [0, 1] * 6,
        "b": [1, 1, 0] * 4,
        "when": ["2024-01-01"] * 12,
        "count": range(12),
        "share": [0.5] * 12,
    }
    path = frame_of(None, tmp_path, **columns, vector=[[0.1, 0.2]] * 12, meta=[{"page": 1}] * 12)
    assert read_rows(path).notes == [
        'the labels are the columns a, b; to leave one out: LABEL_NAMES = ["-b"], --labels=-b',
        "columns not used: when (holds '2024-01-01'), count (holds 2), share (holds 0.5), "
        "vector (holds array([0.1, 0.2])), meta (holds {'page': 1}); a label column holds 0 and 1",
    ]


def test_which_columns_are_labels_can_be_said():
    path = CASES / "metadata_01_ok.csv"
    assert read_rows(path, label_names=["-is_retweet"]).label_names == ["calm", "angry", "sad"]
    assert read_rows(path, label_names=["sad", "calm"]).matrix[5].tolist() == [1, 1]
    assert read_rows(CASES / "yes_no_mixed.csv", label_names=["-checked"]).label_names == ["calm", "angry", "sad"]
    assert read_rows(CASES / "three.csv", label_names=["-sad"]).label_names == ["angry", "calm"]
    everything = ["-calm", "-angry", "-sad"]
    assert fault_of(CASES / "three.csv", label_names=everything) == ["every label is left out; leave out fewer"]
    assert fault_of(path, label_names=[*everything, "-is_retweet"]) == ["every label is left out; leave out fewer"]
    assert "threat" not in read_rows("comments", label_names=["-threat"]).label_names
    assert len(read_rows("comments", label_names=["-threat"]).label_names) == 5
    assert fault_of(path, label_names=["-nothing"])[0] == (
        "label 'nothing' is to be left out, but there is no such column (there are calm, angry, sad, is_retweet)"
    )
    assert fault_of(CASES / "three.csv", label_names=["-nothing"])[0] == (
        "label 'nothing' is to be left out, but there is none of this name (angry, calm, sad)"
    )


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("a,b", "label names are 'a,b'; give a list of texts"),
        (["a", 1], "label names are ['a', 1]; give a list of texts"),
        (["a", "a "], "label name 'a' is given twice; give each once"),
        (5, "label names are 5; give a list of texts"),
        ({"a"}, "label names are {'a'}; give a list of texts"),
        (np.array(["a", "b"]), "label names are array(['a', 'b'], dtype='<U1'); give a list of texts"),
        (["-"], "label names are ['-']; give a list of texts"),
        (["a", "-b"], "give either the labels to take or, each with - before its name, those to leave out"),
    ],
)
def test_label_names_that_cannot_be_meant(names, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        chosen_and_left_out(names)
    assert fault_of(CASES / "three.csv", label_names=names)[0].startswith(message)


# Unknown --------------------------------------------------------------------------------------------------------------


def test_minus_one_and_nothing_are_unknown_where_that_is_asked(tmp_path):
    rows = read_rows(CASES / "kaggle_minus1_most.csv", unknown=True)
    assert (rows.matrix == UNKNOWN).all(axis=1).sum() == 17
    assert rows.matrix[1].tolist() == [1, 1, 0]
    path = frame_of(None, tmp_path, ".csv", a=["1", "", "0"] * 4, b=["0", "1", "-1"] * 4)
    assert read_rows(path, unknown=True).matrix[:3].tolist() == [[1, 0], [UNKNOWN, 1], [0, UNKNOWN]]
    remedy = "write one of them or read it as unknown: UNKNOWN = True in a notebook, --unknown on the command line"
    assert fault_of(path)[0] == f"row 3, column 'a': '' is neither 0 nor 1; {remedy}"
    assert fault_of(path)[-1].startswith("column 'b': -1 in 4 of 12 rows")
    path = frame_of(None, tmp_path, ".csv", a=["-100", "", "1", "0"] * 3, b=["1", "0"] * 6)
    assert read_rows(path, unknown=True).matrix[:3].tolist() == [[UNKNOWN, 1], [UNKNOWN, 0], [1, 1]]
    assert fault_of(path)[-1].startswith("column 'a': -100 in 3 of 12 rows"), "the empty cells are not among them"
    assert len(fault_of(path)) == 4


@pytest.mark.parametrize("dtype", ["Int64", "boolean", "float64", "category", "int8[pyarrow]"])
def test_what_is_missing_in_any_type_is_unknown(tmp_path, dtype):
    path = frame_of(None, tmp_path, a=pd.Series([1, None, 0] * 4).astype(dtype), b=[1, 0, 0] * 4)
    assert read_rows(path, unknown=True).matrix[:3].tolist() == [[1, 1], [UNKNOWN, 0], [0, 0]]
    assert [fault.split(":")[0] for fault in fault_of(path)] == [f"row {row}, column 'a'" for row in (2, 5, 8, 11)]


def test_notes_on_labels_that_are_partly_unknown_are_true(tmp_path):
    path = frame_of(None, tmp_path, ".csv", a=["1", "-1"] * 6, b=["-1.0"] * 12, c=["1", "0", "0"] * 4)
    assert read_rows(path, unknown=True).notes[1:] == [
        "label 'a' is on every row where it is known: there is nothing to learn for it",
        "label 'b' is on no row: it can't be learned",
    ]


def test_unknown_within_dictionaries_and_vectors(tmp_path):
    path = frame_of([{"a": 1, "b": None}, {"a": 0, "b": 1}, {"b": -1}], tmp_path, ".jsonl")
    expected = [[1, UNKNOWN], [0, 1], [UNKNOWN, UNKNOWN]]
    assert read_rows(path, unknown=True).matrix[:3].tolist() == expected
    path = frame_of([[1, -1], [0, 1], [0, 0]], tmp_path, ".jsonl")
    assert read_rows(path, unknown=True).matrix[:3].tolist() == [[1, UNKNOWN], [0, 1], [0, 0]]
    assert fault_of(path)[0] == (
        "row 1, column 'labels': -1 is neither 0 nor 1; delete the row or read it as unknown: "
        "UNKNOWN = True in a notebook, --unknown on the command line"
    )
    path = frame_of([{"a": 1, "b": 0}, {"a": 0}], tmp_path, ".csv")
    assert read_rows(path).matrix[:2].tolist() == [[1, 0], [0, 0]]
    assert read_rows(path, unknown=True).matrix[:2].tolist() == [[1, 0], [0, UNKNOWN]]


def test_unknown_cells_are_neither_yes_nor_no():
    y = np.array([[1, 0, -100], [-100, 0, -100], [1, 1, -100], [0, -100, -100]], dtype=np.float32)
    assert known(y).tolist() == (y >= 0).tolist()
    assert torch.equal(known(torch.tensor(y)), torch.tensor(y) >= 0)
    assert count_positives(y).tolist() == [2, 1, 0]
    assert label_shares(y).tolist() == [np.float32(2 / 3), np.float32(1 / 3), 0]
    assert label_shares(y).dtype == np.float32
    full = np.abs(y.clip(min=0))
    assert np.array_equal(label_shares(full), full.mean(axis=0)), "bit for bit, where nothing is unknown"


# The page of forms ----------------------------------------------------------------------------------------------------

PAGE = (Path(__file__).parent.parent / "docs" / "your_own_data.md").read_text(encoding="utf-8")
OLD = {
    "names joined by": {"labels": ["a / b", "a", "b"]},
    "probabilities": {"a": [0.9, 0.2, 0.5], "b": [0.6, 0.8, 0.1]},
    "a score for each label": {
        "labels": [
            [{"label": "a", "score": 0.9}, {"label": "b", "score": 0.6}],
            [{"label": "a", "score": 0.2}, {"label": "b", "score": 0.8}],
            [{"label": "a", "score": 0.7}],
        ]
    },
    "dictionaries with the name under another key": {
        "labels": [[{"id": 3, "name": "a"}, {"id": 4, "name": "b"}], [{"id": 4, "name": "b"}], []]
    },
    "marked passages": {"labels": [[[0, 4, "a"], [5, 7, "b"]], [[0, 1, "b"]], [[0, 2, "a"], [2, 3, "a"]]]},
    "Prodigy's rows": {"accept": [["a", "b"], ["b"], ["a"]], "answer": ["accept", "accept", "reject"]},
}


@pytest.mark.parametrize("form", OLD)
def test_the_line_that_converts_a_form_does_so(tmp_path, form):
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| {form}") and "frame" in line)
    code = row.rsplit(" | ", 1)[1].strip("| `").split("`;")[0].replace("\\|", "|")
    frame = pd.DataFrame({name: values * 5 for name, values in OLD[form].items()})
    frame.insert(0, "text", [f"text {i}" for i in range(15)])
    frame.to_json(tmp_path / "old.jsonl", orient="records", lines=True)
    assert fault_of(tmp_path / "old.jsonl")
    scope = {"frame": frame, "names": ["a", "b"]}
    exec(code, scope)
    scope["frame"].to_json(tmp_path / "new.jsonl", orient="records", lines=True)
    rows = read_rows(tmp_path / "new.jsonl")
    assert rows.label_names == ["a", "b"]
    assert rows.matrix[:2].tolist() == ([[1, 1], [0, 1]] if "joined" not in form else [[1, 1], [1, 0]])


def test_the_page_names_what_the_reader_knows():
    for name in (*LABEL_COLUMNS, *FILE_KINDS, *TEXT_COLUMNS):
        assert f"`{name}`" in PAGE, name
