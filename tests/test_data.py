import datasets
import numpy as np
import pandas as pd
import pytest

from helpers.data import (
    EMBEDDED,
    FRACTIONS,
    SPLITS,
    DataError,
    embedded_path,
    label_matrix,
    label_names,
    read_splits,
    split_rows,
)

SETS = [["a"], ["a", "b"], [], ["c", "b"]] * 6
TEXTS = [f"text number {i}" for i in range(len(SETS))]
LISTS = pd.DataFrame({"text": TEXTS, "labels": SETS})
JOINED = LISTS.assign(labels=LISTS["labels"].str.join("|"))
COLUMNS = pd.concat([LISTS["text"], JOINED["labels"].str.get_dummies()], axis=1)


def write(tmp_path, name, frame):
    path = tmp_path / name
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path, index=False)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("form", ["lists", "joined", "joined by ;", "joined by comma", "columns", "float columns"])
def test_every_form_gives_the_same(tmp_path, form, suffix):
    frame = {
        "lists": LISTS,
        "joined": JOINED,
        "joined by ;": LISTS.assign(labels=LISTS["labels"].str.join("; ")),
        "joined by comma": LISTS.assign(labels=LISTS["labels"].str.join(", ")),
        "columns": COLUMNS,
        "float columns": COLUMNS.astype(dict.fromkeys("abc", float)),
    }[form]
    splits = read_splits(write(tmp_path, "data" + suffix, frame))
    assert label_names(splits) == ["a", "b", "c"]
    rows = {text: row for part in splits.values() for text, row in zip(part["text"], label_matrix(part), strict=True)}
    for text, labels in zip(TEXTS, SETS, strict=True):
        assert rows[text].tolist() == [float(name in labels) for name in "abc"]


def test_the_one_form(tmp_path):
    splits = read_splits(write(tmp_path, "data.csv", JOINED))
    assert tuple(splits) == SPLITS
    for part in splits.values():
        assert part.column_names == ["id", "text", "labels", "label_ids"]
        assert part.features["labels"].feature.dtype == "float32"
        assert label_matrix(part).dtype == np.float32
        assert [np.flatnonzero(row).tolist() for row in label_matrix(part)] == part["label_ids"][:]


def test_label_names_survive_saving(tmp_path):
    splits = read_splits(write(tmp_path, "data.csv", JOINED))
    splits.save_to_disk(tmp_path / "saved")
    assert label_names(datasets.load_from_disk(tmp_path / "saved")) == ["a", "b", "c"]
    splits["train"].to_parquet(tmp_path / "part.parquet")
    assert label_names(datasets.Dataset.from_parquet(str(tmp_path / "part.parquet"))) == ["a", "b", "c"]


def test_na_none_and_null_are_texts(tmp_path):
    frame = JOINED.copy()
    frame.loc[:2, "text"] = ["NA", "None", "null"]
    splits = read_splits(write(tmp_path, "data.csv", frame))
    assert {"NA", "None", "null"} <= {text for part in splits.values() for text in part["text"]}


def test_kaggle_names_a_byte_order_mark_and_other_alphabets(tmp_path):
    frame = COLUMNS.rename(columns={"text": "comment_text"})
    frame["comment_text"] += " café Ελλάδα 東京"
    path = tmp_path / "data.csv"
    frame.to_csv(path, index=False, encoding="utf-8-sig")
    splits = read_splits(path)
    assert splits["train"]["text"][0].endswith("東京")


def test_a_hub_data_set_with_label_ids(tmp_path, monkeypatch):
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "labels": datasets.Sequence(datasets.ClassLabel(names=["joy", "fear", "awe"])),
            "id": datasets.Value("string"),
        }
    )
    folder = tmp_path / "owner" / "name"
    folder.mkdir(parents=True)
    for split, n in (("train", 12), ("test", 6)):
        part = datasets.Dataset.from_dict(
            {
                "text": [f"{split} {i}" for i in range(n)],
                "labels": [[0], [2, 0], []] * (n // 3),
                "id": [f"{split}{i}" for i in range(n)],
            },
            features=features,
        )
        part.to_parquet(folder / f"{split}.parquet")
    monkeypatch.chdir(tmp_path)
    splits = read_splits("owner/name")
    assert label_names(splits) == ["joy", "fear", "awe"]
    assert splits["test"].num_rows == 6
    assert splits["train"].num_rows + splits["validation"].num_rows == 12
    assert label_matrix(splits["test"])[1].tolist() == [1, 0, 1]


# Faults: what is written, and what the message must say -------------------------------------------------------------


def csv_text(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "bad.csv"
    path.write_bytes(text.encode(encoding) if isinstance(text, str) else text)
    return path


GOOD_ROWS = "".join(f"t{i},a\n" for i in range(12))
FAULTS = {
    "missing column": ("txt,labels\n" + GOOD_ROWS, ["bad.csv", "column 'text' is missing", "txt, labels", "rename"]),
    "empty text": (
        "text,labels\nfine,a\n  ,b\n" + GOOD_ROWS,
        ["bad.csv", "row 3, column 'text'", "empty", "delete the row"],
    ),
    "2 in a label column": (
        "text,x,y\n" + "".join(f"t{i},{i % 2},0\n" for i in range(12)) + "more,0,2\n",
        ["row 14, column 'y'", "'2' is neither 0 nor 1"],
    ),
    "empty cell in a label column": (
        "text,x\n" + "".join(f"t{i},{i % 2}\n" for i in range(12)) + "more,\n",
        ["row 14, column 'x'", "'' is neither 0 nor 1"],
    ),
    "no label used in columns": (
        "text,x,y\n" + "".join(f"t{i},0,0\n" for i in range(12)),
        ["no label is used in any row"],
    ),
    "no label used in lists": (
        "text,labels\n" + "".join(f"t{i},\n" for i in range(12)),
        ["no label is used in any row"],
    ),
    "no label columns": (
        "text,author\n" + "".join(f"t{i},me\n" for i in range(12)),
        ["neither a 'labels' column nor a column of 0 and 1", "text, author"],
    ),
    "wrong encoding": (
        "text,labels\nfine,a\ncaf\xe9,b\n".encode("latin-1") + GOOD_ROWS.encode(),
        ["row 3, column 'text'", "0xe9", "UTF-8"],
    ),
    "ragged row": ("text,labels\nfine,a\none,two,three\n" + GOOD_ROWS, ["row 3", "3 fields", "2", "double quotes"]),
    "column twice": ("text,x,x\n" + "".join(f"t{i},1,0\n" for i in range(12)), ["column 'x'", "2 times"]),
    "id twice": (
        "id,text,labels\n" + "".join(f"{i},t{i},a\n" for i in range(12)) + "3,again,b\n",
        ["row 14, column 'id'", "'3'"],
    ),
    "unknown split": (
        "text,labels,split\n" + "".join(f"t{i},a,train\n" for i in range(12)) + "x,b,holdout\n",
        ["row 14, column 'split'", "'holdout'", "train, validation, test"],
    ),
    "a single label": ("text,labels\n" + GOOD_ROWS, ["only one label, 'a'", "at least two"]),
    "too few rows": ("text,labels\na,x\nb,y\n", ["2 rows", "at least ten"]),
    "only a header": ("text,labels\n", ["no rows"]),
    "empty file": ("", ["bad.csv", "empty"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_place_and_remedy(tmp_path, fault):
    text, parts = FAULTS[fault]
    with pytest.raises(DataError) as error:
        read_splits(csv_text(tmp_path, text))
    for part in parts:
        assert part in str(error.value)


def test_all_faults_in_one_message_and_ten_shown(tmp_path):
    with pytest.raises(DataError) as error:
        read_splits(csv_text(tmp_path, "text,labels\n" + ",a\n" * 30))
    assert len(error.value.faults) == 30
    assert "30 problems" in str(error.value)
    assert "and 20 more" in str(error.value)
    assert len(str(error.value).splitlines()) == 12


@pytest.mark.parametrize(
    ("name", "message"),
    [("nothing.csv", "there is no such file"), ("data.xlsx", "no such file"), ("no such thing", "no such file")],
)
def test_a_missing_file(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        read_splits(name)


def test_unknown_extension_and_folder(tmp_path):
    (tmp_path / "data.txt").write_text("x")
    with pytest.raises(DataError, match=r"unknown extension '.txt'.*\.csv, \.jsonl or \.parquet"):
        read_splits(tmp_path / "data.txt")
    with pytest.raises(DataError, match="folder"):
        read_splits(tmp_path)


def test_broken_jsonl_and_parquet(tmp_path):
    (tmp_path / "data.jsonl").write_text('{"text": "a", "labels": ["x"]}\n{"text": \n[1]\n')
    with pytest.raises(DataError, match="row 2: not a JSON object") as error:
        read_splits(tmp_path / "data.jsonl")
    assert len(error.value.faults) == 2
    (tmp_path / "data.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match="not a whole Parquet file"):
        read_splits(tmp_path / "data.parquet")


def test_non_text_and_wrong_labels_in_jsonl(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text(
        "".join(f'{{"text": "t{i}", "labels": ["a"]}}\n' for i in range(12))
        + '{"text": 5, "labels": ["a"]}\n{"text": "x", "labels": [3]}\n'
    )
    with pytest.raises(DataError) as error:
        read_splits(path)
    assert "row 13, column 'text': 5 is not a text" in str(error.value)
    assert "row 14, column 'labels': 3 is not a label name" in str(error.value)


def test_a_hub_name_that_does_not_exist(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="the hub data set could not be loaded"):
        read_splits("nobody/nothing")


# Splits --------------------------------------------------------------------------------------------------------------


def test_equal_texts_stay_on_one_side():
    texts = [f"text {i // 2}" if i % 2 else f" TEXT  {i // 2}" for i in range(200)]
    matrix = np.tile(np.eye(4, dtype=np.float32), (50, 1))
    split = split_rows(texts, matrix)
    assert all(split[i] == split[i + 1] for i in range(0, 200, 2))


def test_shares_and_rare_labels_are_kept():
    rng = np.random.default_rng(3)
    matrix = (rng.random((1000, 5)) < [0.5, 0.2, 0.1, 0.05, 0.02]).astype(np.float32)
    split = split_rows([f"t{i}" for i in range(1000)], matrix)
    for name, share in FRACTIONS.items():
        inside = split == name
        assert abs(inside.mean() - share) < 0.02
        assert np.allclose(matrix[inside].mean(0), matrix.mean(0), rtol=0.35)
        assert matrix[inside].any(axis=0).all()
    assert (split == split_rows([f"t{i}" for i in range(1000)], matrix)).all()


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_embedded_sets(name):
    splits = read_splits(name)
    frame = pd.read_csv(embedded_path(name))
    assert frame["id"].is_unique
    total = sum(part.num_rows for part in splits.values())
    assert total == len(frame) >= 300
    texts = {split: {" ".join(text.lower().split()) for text in part["text"]} for split, part in splits.items()}
    assert not (texts["train"] & texts["validation"])
    assert not (texts["train"] & texts["test"])
    assert not (texts["validation"] & texts["test"])
    for split, part in splits.items():
        assert abs(part.num_rows / total - FRACTIONS[split]) < 0.02
        assert label_matrix(part).any(axis=0).all(), "every label occurs in every split"


def test_severe_toxic_implies_toxic():
    frame = pd.read_csv(embedded_path("comments"))
    assert (frame["toxic"] >= frame["severe_toxic"]).all()
    assert list(frame.columns[2:8]) == ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]
