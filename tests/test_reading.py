"""Reading is strict: each fault has its exact message; each harmless oddity is read as meant."""

import gzip
import json

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from helpers.data import DataError, read_rows, read_splits
from helpers.reading import A_FILE, MAX_CHARACTERS

SETS = [["a"], ["a", "b"], [], ["c", "b"]] * 6
TEXTS = [f"text number {i}" for i in range(len(SETS))]
GOOD = "".join(f"t{i},{'ab'[i % 2]}\n" for i in range(12))  # rows 2 to 13 of a file with text and labels
GOOD_01 = "".join(f"t{i},{i % 2},{i % 3 // 2}\n" for i in range(12))


def jsonl(*records):
    good = [{"text": f"t{i}", "labels": ["ab"[i % 2]]} for i in range(12)]
    return "".join(json.dumps(r) + "\n" if isinstance(r, dict) else r for r in (*good, *records))


QUOTES = "put texts that hold commas, quotes or line breaks between double quotes, and close each quote"
GAP = "write one of them or read it as unknown: UNKNOWN = True in a notebook, --unknown on the command line"
BOOK = "as many as a book; cut it into passages or delete the row"

# The file's name, what is in it, and every fault that is found, word for word.
FAULTS = {
    "no text column": (
        "bad.csv",
        "txt,labels\n" + GOOD,
        ["column 'text' is missing (the columns are txt, labels); rename the one with the texts"],
    ),
    "no label column": (
        "bad.csv",
        "text,author\n" + "".join(f"t{i},me\n" for i in range(12)),
        [
            "there is neither a column 'labels' nor one of 0 and 1 (beside the texts: author, as 'me'); "
            "rename the column of labels to labels, or write one 0/1 column a label"
        ],
    ),
    "a column twice": (
        "bad.csv",
        "text,x,x\n" + GOOD_01,
        ["row 1, column 'x': there are 2 columns of this name; rename or remove all but one"],
    ),
    "a label as column and as name": (
        "bad.csv",
        "text,labels,a\n" + "".join(f"t{i},{'ab'[i % 2]},1\n" for i in range(12)),
        ["column 'a' is also a name in column 'labels'; keep one of the two forms"],
    ),
    "lists and joined texts": (
        "bad.csv",
        "text,labels\n" + GOOD + "x,\"['a', 'b']\"\n",
        [
            f"row {i}, column 'labels': {'ab'[i % 2]!r} is joined text and other rows hold lists; use one form"
            for i in range(2, 14)
        ],
    ),
    "a 2 in a label column": (
        "bad.csv",
        "text,x,y\n" + GOOD_01 + "more,0,2\n",
        ["row 14, column 'y': 2 is neither 0 nor 1; a label column holds nothing else"],
    ),
    "a gap in a label column": (
        "bad.csv",
        "text,x,y\n" + GOOD_01 + "more,,1\n",
        [f"row 14, column 'x': '' is neither 0 nor 1; {GAP}"],
    ),
    "an empty text": (
        "bad.csv",
        "text,labels\n,a\n" + GOOD,
        ["row 2, column 'text': the text is empty; write one or delete the row"],
    ),
    "a text of spaces": (
        "bad.csv",
        "text,labels\nfine,a\n \t\u3000,b\n" + GOOD,
        ["row 3, column 'text': the text is empty; write one or delete the row"],
    ),
    "a missing text": (
        "bad.jsonl",
        jsonl({"text": None, "labels": ["a"]}),
        ["row 13, column 'text': there is no text; write one or delete the row"],
    ),
    "a number for a text": (
        "bad.jsonl",
        jsonl({"text": 5, "labels": ["a"]}),
        ["row 13, column 'text': 5 is not a text; put it between quotes or delete the row"],
    ),
    "a text of a megabyte": (
        "bad.csv",
        "text,labels\n" + GOOD + "x" * MAX_CHARACTERS + ",a\n",
        [f"row 14, column 'text': the text has 1,000,000 characters, {BOOK}"],
    ),
    "labels that differ by case": (
        "bad.csv",
        "text,labels\n" + GOOD + "x,A\n",
        ["labels 'A' and 'a' differ by case or spaces only; write one of them"],
    ),
    "labels that differ by spaces": (
        "bad.csv",
        "text,labels\n" + GOOD + "x,sci  fi\ny,sci fi\n",
        ["labels 'sci  fi' and 'sci fi' differ by case or spaces only; write one of them"],
    ),
    "columns that differ by case": (
        "bad.csv",
        "text,Spam,spam\n" + GOOD_01,
        ["labels 'Spam' and 'spam' differ by case or spaces only; write one of them"],
    ),
    "a separator inside a label": (
        "bad.csv",
        "text,labels\n" + GOOD + "x,a;c|b\n",
        ["row 14, column 'labels': label 'a;c' holds the separator ';'; split it in two or rename it"],
    ),
    "an unsplit list": (
        "bad.jsonl",
        jsonl({"text": "x", "labels": ["a, b"]}),
        ["row 13, column 'labels': label 'a, b' holds the separator ','; split it in two or rename it"],
    ),
    "an empty label name": (
        "bad.jsonl",
        jsonl({"text": "x", "labels": ["a", " "]}),
        ["row 13, column 'labels': a label has an empty name; write its name or take it out"],
    ),
    "a list that does not close": (
        "bad.csv",
        "text,labels\n" + "".join(f"t{i},['a']\n" for i in range(12)) + "x,['b'\n",
        ['row 14, column \'labels\': "[\'b\'" is not a list; write it as ["a", "b"] or a|b'],
    ),
    "no labels at all": (
        "bad.jsonl",
        jsonl({"text": "x", "labels": None}),
        ["row 13, column 'labels': there is no value; write an empty list for no label"],
    ),
    "a dictionary for labels": (
        "bad.jsonl",
        jsonl({"text": "x", "labels": {"a": 1}}),
        ["row 13, column 'labels': {'a': 1} is neither a list nor a text; write a list of label names"],
    ),
    "ids without names": (
        "bad.jsonl",
        jsonl({"text": "x", "labels": [3]}),
        ["row 13, column 'labels': 3 is not a label name; write names, or give label_names for ids"],
    ),
    "vectors of two lengths": (
        "bad.jsonl",
        "".join(f'{{"text": "t{i}", "labels": [0.0, 1.0]}}\n' for i in range(12)) + '{"text": "x", "labels": [1.0]}\n',
        ["row 13, column 'labels': a vector of length 1, but most have 2; write one number a label"],
    ),
    "a vector of probabilities": (
        "bad.jsonl",
        "".join(f'{{"text": "t{i}", "labels": [0.0, 1.0]}}\n' for i in range(12))
        + '{"text": "x", "labels": [0.4, 1.0]}\n',
        ["row 13, column 'labels': 0.4 is neither 0 nor 1; a label vector holds nothing else"],
    ),
    "a label twice in one list": (
        "bad.jsonl",
        jsonl({"text": "x", "labels": ["a", "b", "a"]}),
        ["row 13, column 'labels': ['a', 'b', 'a'] names a label twice; write each once"],
    ),
    "gaps for zeros": (
        "bad.csv",
        "text,x,y\n" + "".join(f"t{i},{i % 2},{'1' if i > 9 else ''}\n" for i in range(12)),
        [f"row {i}, column 'y': '' is neither 0 nor 1; {GAP}" for i in range(2, 12)],
    ),
    "ids in a CSV": (
        "bad.csv",
        "input_ids,a,b\n" + "".join(f"101 7 {i},{i % 2},{i % 3 // 2}\n" for i in range(12)),
        ["column 'input_ids' does not hold lists of ids; give the data as .parquet or .jsonl"],
    ),
    "a first text longer than Python's csv module reads": (
        "bad.csv",
        "text,labels\n" + "x " * 70_000 + ",a\n,a\n" + GOOD,
        ["row 3, column 'text': the text is empty; write one or delete the row"],
    ),
    "one label": (
        "bad.csv",
        "text,labels\n" + GOOD.replace(",b", ","),
        [
            "there is only one label, 'a', and multi-label data have two or more; take a binary classifier, or add labels"
        ],
    ),
    "no label used in names": (
        "bad.csv",
        "text,labels\n" + "".join(f"t{i},\n" for i in range(12)),
        ["no label is used in any row; check the labels"],
    ),
    "no label used in columns": (
        "bad.csv",
        "text,x,y\n" + "".join(f"t{i},0,0\n" for i in range(12)),
        ["no label is used in any row; check the labels"],
    ),
    "labels on all rows or none": (
        "bad.csv",
        "text,x,y,z\n" + "".join(f"t{i},1,1,0\n" for i in range(12)),
        ["no label can be learned: each is on every row or on none; check the labels"],
    ),
    "more than 512 labels": (
        "bad.csv",
        "text,labels\n" + "".join(f"t{i},l{i}\n" for i in range(513)),
        ["513 labels are more than 512; are these label names, and not free text? Keep the commonest"],
    ),
    "fewer rows than splits need": (
        "bad.csv",
        "text,labels\none,a\ntwo,b\n",
        ["2 rows are too few for train, validation and test; give at least 10"],
    ),
    "an id twice": (
        "bad.csv",
        "id,text,labels\n" + "".join(f"{i},t{i},{'ab'[i % 2]}\n" for i in range(12)) + "3,again,b\n",
        ["row 14, column 'id': '3' was used before; give each row its own"],
    ),
    "an unknown split": (
        "bad.csv",
        "text,labels,split\n" + GOOD.replace("\n", ",train\n") + "x,b,holdout\n",
        [
            "row 14, column 'split': 'holdout' is none of train, validation, test; write one of them or leave the column out"
        ],
    ),
    "no train split": (
        "bad.csv",
        "text,labels,split\n" + GOOD.replace("\n", ",test\n"),
        ["column 'split': no row says train; mark the rows to learn from, or leave the column out"],
    ),
    "a row too wide": (
        "bad.csv",
        "text,labels\nfine,a\none,two,three\n" + GOOD,
        [f"row 3: 3 fields where the header has 2; {QUOTES}"],
    ),
    "a row too narrow": (
        "bad.csv",
        "text,labels\nfine,a\nonly a text\n" + GOOD,
        [f"row 3: 1 field where the header has 2; {QUOTES}"],
    ),
    "a quote that does not close": (
        "bad.csv",
        'text,labels\nfine,a\n"open,b\n' + GOOD,
        [f"row 3: 1 field where the header has 2; {QUOTES}"],
    ),
    "another encoding": (
        "bad.csv",
        "text,labels\nfine,a\ncaf\xe9,b\n".encode("latin-1") + GOOD.encode(),
        ["line 3, column 'text': the byte 0xe9 is not UTF-8; save the file as UTF-8 (in a spreadsheet: 'CSV UTF-8')"],
    ),
    "UTF-16 with its byte-order mark": (
        "bad.csv",
        ("text,labels\n" + GOOD).encode("utf-16"),
        ["the file is UTF-16; save it as UTF-8 (in a spreadsheet: 'CSV UTF-8')"],
    ),
    "UTF-16 without one": (
        "bad.csv",
        ("text,labels\n" + GOOD).encode("utf-16-le"),
        ["the file is UTF-16; save it as UTF-8 (in a spreadsheet: 'CSV UTF-8')"],
    ),
    "a workbook called CSV": (
        "bad.csv",
        b"PK\x03\x04 and more",
        ["this is an .xlsx, .zip or .parquet file, not a CSV; give it its own extension"],
    ),
    "half of an archive": (
        "bad.csv.gz",
        gzip.compress(b"text,labels\n" + GOOD.encode())[:-9],
        ["this is not a whole .gz file; write or download it again"],
    ),
    "a first line that is no header": (
        "bad.csv",
        "# made by hand\n" + GOOD[:4],
        [f"row 2: 2 fields where the header has 1; {QUOTES}"],
    ),
    "JSON too deep to read": (
        "bad.jsonl",
        jsonl("[" * 100_000),
        [
            f"row 13: '{'[' * 55}...' is not a JSON object; "
            'write one object a line, as {"text": "...", "labels": ["a"]}'
        ],
    ),
    "another encoding in JSONL": (
        "bad.jsonl",
        b'{"text": "caf\xe9", "labels": []}\n',
        ["line 1: the byte 0xe9 is not UTF-8; save the file as UTF-8 (in a spreadsheet: 'CSV UTF-8')"],
    ),
    "a broken JSON line": (
        "bad.jsonl",
        jsonl('{"text": \n', "[1]\n"),
        [
            f'row {row}: {line!r} is not a JSON object; write one object a line, as {{"text": "...", "labels": ["a"]}}'
            for row, line in ((13, '{"text": '), (14, "[1]"))
        ],
    ),
    "an empty CSV": ("bad.csv", "", ["the file is empty; it needs a header row and at least ten texts"]),
    "an empty JSONL": ("bad.jsonl", "\n", ["the file is empty; each line is one JSON object"]),
    "a header alone": ("bad.csv", "text,labels\n", ["the file has no rows; give at least ten texts"]),
    "half a Parquet file": (
        "bad.parquet",
        b"PAR1 no more",
        ["this is not a whole Parquet file; write or download it again"],
    ),
    "another kind of file": (
        "bad.txt",
        "hello",
        [f"unknown extension '.txt'; save it as {A_FILE}"],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_place_and_remedy(tmp_path, fault):
    name, content, messages = FAULTS[fault]
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError) as error:
        read_rows(path)
    assert error.value.faults == messages
    assert error.value.source in (name, str(path))


def test_there_are_enough_kinds():
    assert len(FAULTS) >= 25


@pytest.mark.parametrize("kind", ["folder", "folder.csv", "loop.csv", "absent.csv", "no such thing", "sheet.ods"])
def test_what_is_no_readable_file(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "loop.csv").symlink_to("loop.csv")  # cannot be opened, not even by root
    expected = {
        "folder": f"this is a folder; give the file itself, {A_FILE}",
        "folder.csv": f"this is a folder; give the file itself, {A_FILE}",
        "loop.csv": "the file cannot be read (Too many levels of symbolic links); check its permissions",
        "absent.csv": f"there is no such file (looked in {tmp_path}); check the name",
    }
    other = "there is no such file; DATASET takes"
    other += f' "movies", "comments", {A_FILE}, or a hub name as in "owner/name"'
    with pytest.raises(DataError) as error:
        read_rows(kind)
    assert error.value.faults == [expected.get(kind, other)]


def test_all_faults_come_in_one_pass_in_the_order_of_the_rows_and_ten_are_shown(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text(
        "id,text,x,y\n1,,0,2\n2,a,b,c,d\n2,c,0,7\n2, ,1,1\n" + "".join(f"{i},,{i % 2},1\n" for i in range(9, 20))
    )
    with pytest.raises(DataError) as error:
        read_rows(path)
    places = [fault.split(":")[0] for fault in error.value.faults]
    assert places[:6] == [
        "row 2, column 'text'",
        "row 2, column 'y'",
        "row 3",
        "row 4, column 'y'",
        "row 5, column 'text'",
        "row 5, column 'id'",
    ]
    assert len(places) == 17
    lines = str(error.value).splitlines()
    assert lines[0] == "bad.csv: 17 problems"
    assert len(lines) == 12
    assert lines[-1] == "  ... and 7 more"


def test_rows_are_counted_as_a_spreadsheet_does(tmp_path):
    """A text of two lines is one row, an empty line is a row that holds nothing."""
    path = tmp_path / "bad.csv"
    path.write_text('text,labels\n"two\nlines",a\n\none,two,three\n,b\n' + GOOD + "\n\n")
    with pytest.raises(DataError) as error:
        read_rows(path)
    assert [fault.split(":")[0] for fault in error.value.faults] == ["row 4", "row 5, column 'text'"]


# What is no fault -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_na_none_and_null_are_texts(tmp_path, suffix):
    frame = pd.DataFrame({"text": ["NA", "None", "null", "nan", *TEXTS[4:]], "labels": ["|".join(s) for s in SETS]})
    path = tmp_path / f"data{suffix}"
    write = {".csv": frame.to_csv, ".jsonl": frame.to_json, ".parquet": frame.to_parquet}[suffix]
    write(path, **({"orient": "records", "lines": True} if suffix == ".jsonl" else {"index": False}))
    assert list(read_rows(path).text[:4]) == ["NA", "None", "null", "nan"]


def test_the_toxic_comment_file_as_it_is_shipped(tmp_path):
    """Commas in quotes, doubled quotes, texts of several lines, a byte-order mark, CRLF, ids of hex digits."""
    text = 'Explanation, "please"\nWhy?\n\n\tHardcore café 東京 FAC.'
    frame = pd.DataFrame({"id": [f"{i:016x}" for i in range(24)], "comment_text": [f"{text} {i}" for i in range(24)]})
    for k, name in enumerate(("toxic", "severe_toxic", "obscene")):
        frame[name] = [int(i % (k + 2) == 0) for i in range(24)]
    path = tmp_path / "train.csv"
    frame.to_csv(path, index=False, encoding="utf-8-sig", lineterminator="\r\n")
    rows = read_rows(path)
    assert list(rows.text) == list(frame["comment_text"])
    assert list(rows.id) == list(frame["id"])
    assert rows.label_names == ["toxic", "severe_toxic", "obscene"]
    assert np.array_equal(rows.matrix, frame.iloc[:, 2:])
    frame.to_csv(tmp_path / "train.csv.gz", index=False)
    assert np.array_equal(read_rows(tmp_path / "train.csv.gz").matrix, rows.matrix)


def test_booleans_and_floats_are_0_and_1(tmp_path):
    frame = pd.DataFrame({"text": TEXTS, "a": [True, False] * 12, "b": [0.0, 1.0, 1.0] * 8, "when": ["today"] * 24})
    frame.to_csv(tmp_path / "data.csv", index=False)
    rows = read_rows(tmp_path / "data.csv")
    assert rows.label_names == ["a", "b"]
    assert rows.matrix[:3].tolist() == [[1, 0], [0, 1], [1, 1]]
    assert rows.notes == [
        'the labels are the columns a, b; to leave one out: LABEL_NAMES = ["-b"], --labels=-b',
        "columns not used: when (holds 'today'); a label column holds 0 and 1",
    ]


def test_a_label_on_every_row_or_on_none_is_a_note(tmp_path):
    frame = pd.DataFrame({"text": TEXTS, "a": 1, "b": [0, 1] * 12, "c": 0})
    frame.to_csv(tmp_path / "data.csv", index=False)
    assert read_rows(tmp_path / "data.csv").notes[1:] == [
        "label 'a' is on every row: there is nothing to learn for it",
        "label 'c' is on no row: it can't be learned",
    ]


def test_labels_on_every_row_or_on_none_are_one_note_each(tmp_path):
    always, never = [f"a{k}" for k in range(3)], [f"n{k}" for k in range(12)]
    frame = pd.DataFrame({"text": TEXTS, "b": [0, 1] * 12, **dict.fromkeys(always, 1), **dict.fromkeys(never, 0)})
    frame.to_csv(tmp_path / "data.csv", index=False)
    assert read_rows(tmp_path / "data.csv").notes[1:] == [
        "3 labels are on every row (a0, a1, a2): there is nothing to learn for them",
        "12 labels are on no row (n0, n1, n2 and 9 more): they can't be learned",
    ]


@pytest.mark.parametrize("one", [1, 1.0, True])
@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_vectors_of_0_and_1_are_no_ids(tmp_path, one, suffix):
    vectors = [[one * (i % 2), one * (i % 3 == 0), one * 0] for i in range(24)]
    frame = pd.DataFrame({"text": TEXTS, "labels": vectors})
    path = tmp_path / f"data{suffix}"
    frame.to_json(path, orient="records", lines=True) if suffix == ".jsonl" else frame.to_csv(path, index=False)
    assert read_rows(path, label_names=["a", "b", "c"]).matrix.tolist() == np.array(vectors, dtype=float).tolist()
    assert read_rows(path).label_names == ["label_0", "label_1", "label_2"]


# Label names that are given -------------------------------------------------------------------------------------------


def test_label_names_that_are_given_set_the_order_or_must_match(tmp_path):
    columns = pd.DataFrame({"text": TEXTS, "b": [0, 1] * 12, "a": [1, 0, 0] * 8, "checked": 1})
    columns.to_csv(tmp_path / "columns.csv", index=False)
    rows = read_rows(tmp_path / "columns.csv", label_names=["a", "b"])
    assert rows.label_names == ["a", "b"]
    assert rows.matrix[:2].tolist() == [[1, 0], [0, 1]]
    with pytest.raises(DataError) as error:
        read_rows(tmp_path / "columns.csv", label_names=["a", "z"])
    assert error.value.faults == ["label name 'z' was given, but there is no such column (there are b, a, checked)"]
    (tmp_path / "names.csv").write_text("text,labels\n" + GOOD)
    assert read_rows(tmp_path / "names.csv", label_names=["b", "a"]).matrix[0].tolist() == [0, 1]
    with pytest.raises(DataError) as error:
        read_rows(tmp_path / "names.csv", label_names=["a", "c"])
    assert error.value.faults == [
        f"row {i}, column 'labels': 'b' is not among the label names given (a, c)" for i in range(3, 14, 2)
    ]
    (tmp_path / "ids.jsonl").write_text("".join(f'{{"text": "t{i}", "labels": [{i % 3}]}}\n' for i in range(12)))
    assert read_rows(tmp_path / "ids.jsonl", label_names=["x", "y", "z"]).matrix[1].tolist() == [0, 1, 0]
    with pytest.raises(DataError) as error:
        read_rows(tmp_path / "ids.jsonl", label_names=["x", "y"])
    assert (
        error.value.faults[0]
        == "row 3, column 'labels': label id 2 has no name (there are 2, from 0 on); give all label_names"
    )


# Hub data sets, as local folders with the same columns and types ------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A function that puts splits where `datasets.load_dataset("owner/name")` finds them without a network."""
    monkeypatch.chdir(tmp_path)

    def put(features=None, **splits):
        folder = tmp_path / "owner" / "name"
        folder.mkdir(parents=True)
        for split, columns in splits.items():
            part = datasets.Dataset.from_dict(columns, features=features)
            part.to_parquet(folder / f"{split}.parquet")
        return folder

    return put


LIST_OF = datasets.Sequence


def test_lists_of_label_ids_as_goemotions_has_them(hub):
    names = ["joy", "fear", "awe"]
    features = datasets.Features(
        text=datasets.Value("string"), labels=LIST_OF(datasets.ClassLabel(names=names)), id=datasets.Value("string")
    )
    columns = {
        split: {
            "text": [f"{split} {i}" for i in range(n)],
            "labels": [[0], [2, 0], []] * (n // 3),
            "id": [f"{split}{i}" for i in range(n)],
        }
        for split, n in (("train", 12), ("test", 6))
    }
    folder = hub(features, **columns)
    splits = read_splits("owner/name")
    assert splits["test"]["labels"][1] == [1, 0, 1]
    assert (splits["test"].num_rows, splits["train"].num_rows + splits["validation"].num_rows) == (6, 12)
    rows = read_rows(folder / "train.parquet")  # the same file, given as a file, keeps its names
    assert rows.label_names == names
    assert rows.matrix[:3].tolist() == [[1, 0, 0], [1, 0, 1], [0, 0, 0]]


TOKENIZED = datasets.Features(
    input_ids=LIST_OF(datasets.Value("int32")),
    attention_mask=LIST_OF(datasets.Value("int8")),
    labels=LIST_OF(datasets.Value("float32")),
)


def tokenized(tokenizer, texts, **changes):
    encoded = tokenizer(texts, padding="max_length", max_length=24, truncation=True, return_token_type_ids=False)
    labels = [[float(i % 2), float(i % 3 == 0)] for i in range(len(texts))]
    return {**encoded, "labels": labels, **changes}


def test_a_tokenized_set_is_decoded(hub, embedded):
    from helpers.models import load_tokenizer

    texts = [f"don't panic, said number {i}; it's only a test." for i in range(30)]
    hub(TOKENIZED, train=tokenized(load_tokenizer(embedded), texts))
    rows = read_rows("owner/name", label_names=["odd", "third"])
    assert rows.label_names == ["odd", "third"]
    assert rows.matrix[:4].tolist() == [[0, 1], [1, 0], [0, 0], [1, 1]]
    squeezed = [text.replace(" ", "") for text in rows.text]
    assert squeezed == [text.replace(" ", "") for text in texts]
    assert rows.notes == [
        "the texts were decoded from ids with the embedded tokenizer: capitals and cut ends are not in them"
    ]
    unnamed = read_rows("owner/name")
    assert unnamed.label_names == ["label_0", "label_1"]
    assert "the 2 labels have no names; give them: read_splits(..., label_names=[...])" in unnamed.notes
    with pytest.raises(DataError) as error:
        read_rows("owner/name", label_names=["odd", "third", "fourth"])
    assert error.value.faults[0] == (
        "row 1 of train, column 'labels': a vector of length 2, but 3 label names were given; write one number a label"
    )


def test_a_tokenized_set_is_refused_where_the_vocabulary_does_not_fit(hub, small_checkpoint, embedded):
    from helpers.models import load_tokenizer

    folder = hub(TOKENIZED, train=tokenized(load_tokenizer(small_checkpoint), ["good and bad"] * 30))
    remedy = "name the one they were made with: read_splits(..., tokenizer=...)"
    with pytest.raises(DataError) as error:
        read_rows("owner/name")
    assert error.value.faults == [
        "column 'input_ids': these are not the ids of the embedded tokenizer "
        f"(every row starts with what is '[unused1]' there, not with [CLS]); {remedy}"
    ]
    right = read_rows("owner/name", tokenizer=str(small_checkpoint))
    assert right.text[0].replace(" ", "") == "goodandbad"
    columns = tokenized(load_tokenizer(embedded), ["good"] * 30)
    datasets.Dataset.from_dict(columns, features=TOKENIZED).to_parquet(folder.parent / "other.parquet")
    with pytest.raises(DataError) as error:
        read_rows(folder.parent / "other.parquet", tokenizer=str(small_checkpoint))
    assert error.value.faults[0] == (
        f"row 1, column 'input_ids': id 2204 is not in the vocabulary of {small_checkpoint} (83 pieces); {remedy}"
    )


def test_ids_without_special_tokens_must_come_out_the_same(tmp_path, embedded):
    """Pieces in an order that no tokenizer makes: "##ing" after "##ing"."""
    from helpers.models import load_tokenizer

    tokenizer = load_tokenizer(embedded)
    texts = [f"{word} again" for word in ("walking", "talking", "baking", "making")] * 5
    plain = tokenizer(texts, add_special_tokens=False)["input_ids"]
    labels = [[float(i % 2), float(i % 3 == 0)] for i in range(20)]
    datasets.Dataset.from_dict({"input_ids": plain, "labels": labels}).to_parquet(tmp_path / "good.parquet")
    assert list(read_rows(tmp_path / "good.parquet").text) == texts
    odd = [[*ids, *tokenizer.convert_tokens_to_ids(["##ing", "##s", "##q"])] for ids in plain]
    datasets.Dataset.from_dict({"input_ids": odd, "labels": labels}).to_parquet(tmp_path / "odd.parquet")
    with pytest.raises(DataError) as error:
        read_rows(tmp_path / "odd.parquet")
    assert error.value.faults == [
        "column 'input_ids': these are not the ids of the embedded tokenizer (of 20 rows, decoded and tokenized again, "
        "0% give the same ids); name the one they were made with: read_splits(..., tokenizer=...)"
    ]


def test_a_hub_set_without_train_or_that_is_not_there(hub):
    hub(None, validation={"text": ["a", "b"], "labels": [["x"], ["y"]]}, test={"text": ["c"], "labels": [["x"]]})
    with pytest.raises(DataError) as error:
        read_rows("owner/name")
    assert error.value.faults == ["there is no train split (the splits are validation, test); take another data set"]
    with pytest.raises(DataError) as error:
        read_rows("nobody/nothing")
    assert error.value.faults == ["there is no such file, and the hub cannot be reached; check DATASET and the network"]


# Files as spreadsheets and tools write them ---------------------------------------------------------------------------

TABLE = pd.DataFrame({"text": TEXTS, "labels": ["|".join(labels) for labels in SETS]})
EXPECTED = [[float(name in labels) for name in "abc"] for labels in SETS]


@pytest.mark.parametrize(("suffix", "separator"), [(".tsv", "\t"), (".csv", "\t"), (".csv", ";"), (".tsv", ",")])
@pytest.mark.parametrize("told", [False, True])
def test_the_delimiter_is_seen_in_the_header_or_told(tmp_path, suffix, separator, told):
    """A text that holds the other delimiters changes nothing, nor do they in the labels."""
    table = TABLE.assign(text=TABLE["text"] + ", here; and\tthere")
    path = tmp_path / f"data{suffix}"
    table.to_csv(path, sep=separator, index=False)
    if told:
        path.write_text(f"sep={separator}\n" + path.read_text())
    rows = read_rows(path)
    assert rows.matrix.tolist() == EXPECTED
    assert list(rows.text) == list(table["text"])
    path.write_text(path.read_text() + separator.join(["", "a"]) + "\n")
    with pytest.raises(DataError) as error:
        read_rows(path)
    assert error.value.faults[0].startswith(f"row {27 if told else 26}, column 'text': the text is empty")


def test_the_delimiter_is_the_one_that_finds_the_texts(tmp_path):
    """More commas than semicolons, in the labels' names."""
    path = tmp_path / "data.csv"
    path.write_text("text;war, peace, or both;love\n" + GOOD_01.replace(",", ";"))
    assert read_rows(path).label_names == ["war, peace, or both", "love"]


def test_headers_with_spaces_capitals_and_nothing(tmp_path):
    path = tmp_path / "data.csv"
    lines = "".join(f"{i},{text},{labels},\n" for i, (text, labels) in enumerate(TABLE.to_numpy()))
    path.write_text(", Text , LABELS,\n" + lines)
    rows = read_rows(path)
    assert rows.matrix.tolist() == EXPECTED
    assert rows.notes == ["column number 1 has no name and is not used; name it if it is a label"]
    path.write_text("text,labels, labels\n" + GOOD_01)
    with pytest.raises(DataError) as error:
        read_rows(path)
    assert error.value.faults == [
        "row 1, column 'labels': there are 2 columns of this name; rename or remove all but one"
    ]
    frame = pd.DataFrame({"text": TEXTS, "a": 1, " a": 0})
    frame.to_json(tmp_path / "data.jsonl", orient="records", lines=True)
    with pytest.raises(DataError) as error:
        read_rows(tmp_path / "data.jsonl")
    assert error.value.faults == [
        "column 'a': there are 2 columns of this name, spaces around it left off; rename or remove all but one"
    ]


@pytest.mark.parametrize("first", ["SEP=;", "sep=;;", "\n", "\nsep=;\n"])
def test_lines_before_the_header(tmp_path, first):
    path = tmp_path / "data.csv"
    path.write_text(f"{first}\n" + TABLE.to_csv(sep=";", index=False) + ";a\n")
    with pytest.raises(DataError) as error:
        read_rows(path)
    assert error.value.faults[0].startswith(f"row {first.count(chr(10)) + 27}, column 'text': the text is empty")


def test_marks_that_nobody_sees_around_a_header(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("\ufeff\ufefftext,labels\u200b\n" + GOOD, encoding="utf-8")
    assert read_rows(path).label_names == ["a", "b"]


@pytest.mark.parametrize(("name", "pack"), [("data.csv", gzip.compress), ("data.csv.gz", bytes)])
def test_an_archive_is_known_by_its_content(tmp_path, name, pack):
    (tmp_path / name).write_bytes(pack(b"text,labels\n" + GOOD.encode()))
    assert read_rows(tmp_path / name).label_names == ["a", "b"]


def test_old_macs_line_ends_and_a_file_without_a_last_one(tmp_path):
    path = tmp_path / "data.csv"
    path.write_bytes(TABLE.to_csv(index=False, lineterminator="\r").rstrip("\r").encode())
    assert read_rows(path).matrix.tolist() == EXPECTED


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_json_lists_and_lines_whatever_the_file_is_called(tmp_path, suffix):
    path = tmp_path / f"data{suffix}"
    for lines in (True, False):
        TABLE.to_json(path, orient="records", lines=lines, indent=None if lines else 2)
        assert read_rows(path).matrix.tolist() == EXPECTED
    records = [*TABLE.to_dict("records"), {"text": "", "labels": ""}, "text"]
    path.write_text(json.dumps(records))
    with pytest.raises(DataError) as error:
        read_rows(path)
    assert error.value.faults == [
        "row 25, column 'text': the text is empty; write one or delete the row",
        'row 26: \'text\' is not a JSON object; write one object a line, as {"text": "...", "labels": ["a"]}',
    ]


def test_json_by_columns_is_refused(tmp_path):
    path = tmp_path / "data.json"
    TABLE.to_json(path)
    with pytest.raises(DataError) as error:
        read_rows(path)
    assert error.value.faults == [
        "the file is one JSON object with the keys text, labels, not one a text; "
        'write one object a line, as {"text": "...", "labels": ["a"]}'
    ]


def test_a_sheet_is_read_as_its_csv_would_be(tmp_path):
    path = tmp_path / "data.xlsx"
    table = TABLE.assign(id=range(24))
    table.loc[24] = [None, None, None]  # an empty row
    table.loc[25] = [None, "a", 25]
    with pd.ExcelWriter(path) as writer:
        table[:24].to_excel(writer, sheet_name="texts", index=False)
        table[:2].to_excel(writer, sheet_name="notes", index=False)
    rows = read_rows(path)
    assert rows.matrix.tolist() == EXPECTED
    assert rows.notes == ["of 2 sheets the first is read, 'texts'"]
    marks = pd.DataFrame({"text": TEXTS, "a": [True, False] * 12, "b": ["x", None, None] * 8})
    marks[["text", "a"]].assign(b=[1, 0, 0] * 8).to_excel(path, index=False)
    assert read_rows(path).matrix[:2].tolist() == [[1, 1], [0, 0]]
    marks.drop(columns="a").assign(c=["x", "x", None] * 8).to_excel(path, index=False)
    assert read_rows(path).matrix[:2].tolist() == [[1, 1], [0, 1]]
    table.to_excel(path, index=False)
    with pytest.raises(DataError) as error:
        read_rows(path)
    assert error.value.faults == ["row 27, column 'text': the text is empty; write one or delete the row"]
    path.write_bytes(b"PK no more")
    with pytest.raises(DataError) as error:
        read_rows(path)
    assert error.value.faults == ["this is not a whole Excel file; save it again, or as 'CSV UTF-8'"]


def test_headers_of_a_sheet(tmp_path):
    """Two of one name, one without, rows before the header, and cells that are merged."""
    path = tmp_path / "data.xlsx"
    rows = [[text, i % 2, i % 3 // 2, 7] for i, text in enumerate(TEXTS)]
    pd.DataFrame([["text", "a", "a", "b"], *rows]).to_excel(path, index=False, header=False)
    with pytest.raises(DataError) as error:
        read_rows(path)
    assert error.value.faults == [
        "column 'a': there are 2 columns of this name, spaces around it left off; rename or remove all but one"
    ]
    empty = [None] * 4
    pd.DataFrame([empty, ["text", "a", "b", None], *rows, empty, [None, 1, 0, 0]]).to_excel(
        path, index=False, header=False
    )
    with pytest.raises(DataError) as error:
        read_rows(path)
    assert error.value.faults == ["row 28, column 'text': the text is empty; write one or delete the row"]
    frame = pd.DataFrame([["text", "labels", "by", None], *rows])
    frame.iloc[1:, 1] = TABLE["labels"]
    with pd.ExcelWriter(path) as writer:
        frame.to_excel(writer, index=False, header=False)
        writer.book.active.merge_cells("B2:B4")
    notes = read_rows(path).notes
    assert notes[:2] == [
        "merged cells hold their value in the first one only, the others are read as empty",
        "column number 4 has no name and is not used; name it if it is a label",
    ]


def test_a_sheet_without_openpyxl(tmp_path, monkeypatch):
    def missing(*args, **kwargs):
        raise ImportError("`Import openpyxl` failed.")

    monkeypatch.setattr(pd, "read_excel", missing)
    (tmp_path / "data.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError) as error:
        read_rows(tmp_path / "data.xlsx")
    assert error.value.faults == [
        "reading Excel's files takes the package openpyxl; pip install openpyxl, or save the sheet as 'CSV UTF-8'"
    ]


@pytest.mark.parametrize("name", ["id", "text", None])
def test_an_index_that_says_something_is_a_column(tmp_path, name):
    frame = TABLE.assign(id=[f"d{i}" for i in range(24)]).set_index(name or "id")
    frame.index.name = name
    if name == "id":
        frame = frame.sort_index(ascending=False)
    frame.to_parquet(tmp_path / "data.parquet")
    rows = read_rows(tmp_path / "data.parquet")
    assert sorted(rows.id) == sorted(f"d{i}" for i in range(24))
    assert sorted(rows.text) == sorted(TEXTS)
    assert rows.notes == [f"the index {name!r} is read as a column" if name else "the index is read as the column 'id'"]


def test_an_index_of_texts_that_recur_is_no_id(tmp_path):
    TABLE.set_axis(["page"] * 24).to_parquet(tmp_path / "data.parquet")
    assert list(read_rows(tmp_path / "data.parquet").id[:2]) == ["1", "2"]


@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.large_list(pa.large_string()), pa.list_(pa.string(), 2)])
def test_lists_of_arrows_own_types(tmp_path, kind):
    """Which pandas writes to Parquet and cannot read back."""
    labels = pd.Series([["a", "b"], ["b", "c"]] * 12, dtype=pd.ArrowDtype(kind))
    TABLE.assign(labels=labels).to_parquet(tmp_path / "data.parquet")
    assert read_rows(tmp_path / "data.parquet").matrix[:2].tolist() == [[1, 1, 0], [0, 1, 1]]


def test_texts_and_columns_of_odd_types(tmp_path):
    path = tmp_path / "data.parquet"
    TABLE.assign(text=range(24)).to_parquet(path)
    with pytest.raises(DataError) as error:
        read_rows(path)
    assert error.value.faults[0] == "row 1, column 'text': 0 is not a text; put it between quotes or delete the row"
    assert len(error.value.faults) == 24
    TABLE.assign(text=pd.Categorical([None, *TEXTS[1:]])).to_parquet(path)
    with pytest.raises(DataError) as error:
        read_rows(path)
    assert error.value.faults == ["row 1, column 'text': there is no text; write one or delete the row"]
    TABLE.set_axis(pd.MultiIndex.from_tuples([("text", ""), ("labels", "a")]), axis=1).to_parquet(path)
    with pytest.raises(DataError) as error:
        read_rows(path)
    assert error.value.faults == ["a column's name has several levels; give each column one name"]


@pytest.mark.parametrize("ids", ["101 102", None, [101.0, 102.0], ["101"], [101, None], [[101, 102]]])
def test_input_ids_that_are_none(tmp_path, ids):
    pd.DataFrame({"input_ids": [ids] * 24, "labels": TABLE["labels"]}).to_parquet(tmp_path / "data.parquet")
    with pytest.raises(DataError) as error:
        read_rows(tmp_path / "data.parquet")
    assert error.value.faults == ["column 'input_ids' does not hold lists of ids; give the data as .parquet or .jsonl"]


@pytest.mark.parametrize("column", ["id", "labels", "split", "x"])
def test_the_fault_of_a_filtered_frame_quotes_its_own_row(tmp_path, column):
    """With an index whose numbers are not the rows' places."""
    frame = TABLE.assign(id=[f"d{i}" for i in range(24)], split="train")
    if column == "x":
        frame = frame.drop(columns="labels").assign(x=[i % 2 for i in range(24)], y=[i % 3 // 2 for i in range(24)])
    frame.loc[20, column] = {"id": "d4", "labels": "b|b", "split": "nowhere", "x": 7}[column]
    frame[3:].to_parquet(tmp_path / "data.parquet")
    with pytest.raises(DataError) as error:
        read_rows(tmp_path / "data.parquet")
    (fault,) = error.value.faults
    assert fault.startswith(f"row 18, column '{column}': ")
    assert {"id": "'d4'", "labels": "['b', 'b']", "split": "'nowhere'", "x": "7"}[column] in fault


def test_some_ids_that_are_empty(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text(
        "id,text,labels\n" + "".join(f"{i},{t},{'ab'[i % 2]}\n" for i, t in enumerate(TEXTS)) + ",x,a\n,y,b\n ,z,b\n"
    )
    with pytest.raises(DataError) as error:
        read_rows(path)
    what = "there is no id; give the row its own, or leave the column out"
    assert error.value.faults == [f"row {row}, column 'id': {what}" for row in (26, 27, 28)]
