import datasets
import numpy as np
import pandas as pd
import pytest

from helpers import data
from helpers.data import (
    EMBEDDED,
    FRACTIONS,
    SPLITS,
    UNKNOWN,
    DataError,
    assign_splits,
    embedded_path,
    equal_texts,
    label_matrix,
    label_names,
    near_duplicates,
    read_rows,
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


# Unknown labels -------------------------------------------------------------------------------------------------------


def some_unknown(n, n_labels):
    rng = np.random.default_rng(0)
    matrix = (rng.random((n, n_labels)) < [0.5, 0.2, 0.1]).astype(np.float32)
    matrix[rng.random(matrix.shape) < 0.3] = UNKNOWN
    return matrix


def test_rows_are_divided_as_if_unknown_were_no():
    matrix, texts = some_unknown(200, 3), [f"t{i // 2}" for i in range(200)]
    assert np.array_equal(split_rows(texts, matrix), split_rows(texts, matrix.clip(min=0)))


def test_unknown_cells_are_kept_and_are_no_labels_that_are_present(tmp_path, monkeypatch):
    rows = read_rows(write(tmp_path, "data.csv", JOINED))
    rows.matrix[:, 0] = np.where(np.arange(24) % 2, UNKNOWN, rows.matrix[:, 0])
    monkeypatch.setattr(data, "read_rows", lambda *_, **__: rows)
    splits = read_splits("any")
    found = np.concatenate([label_matrix(part) for part in splits.values()])
    assert found.dtype == np.float32
    assert (found == UNKNOWN).sum() == 12
    for part in splits.values():
        assert [np.flatnonzero(row == 1).tolist() for row in label_matrix(part)] == part["label_ids"][:]


def test_a_label_that_is_unknown_throughout_a_split_is_noted(tmp_path):
    rows = read_rows(
        write(tmp_path, "data.csv", JOINED.assign(split=["train"] * 12 + ["validation"] * 6 + ["test"] * 6))
    )
    rows.matrix[rows.split == "test", 1] = UNKNOWN
    assert assign_splits(rows)[1] == ["label 'b' never appears in test: its scores there are undefined"]
    rows.matrix[:, 1] = np.where(rows.matrix[:, 1] == 1, UNKNOWN, 0)
    assert assign_splits(rows)[1] == [], "no yes anywhere: nothing that a split lacks"


# Splits ---------------------------------------------------------------------------------------------------------------


def test_equal_texts_stay_on_one_side():
    texts = [f"text {i // 2}" if i % 2 else f" TEXT  {i // 2}" for i in range(200)]
    matrix = np.tile(np.eye(4, dtype=np.float32), (50, 1))
    split = split_rows(texts, matrix)
    assert all(split[i] == split[i + 1] for i in range(0, 200, 2))


def test_near_duplicates_share_most_word_pairs():
    long = "the quick brown fox jumps over the lazy dog while the other dogs look on and wonder about it"
    texts = [
        long,
        "Something else entirely, in every word of it, from beginning to end of the line.",
        long.upper() + "!",  # equal but for case and punctuation
        long + " today",  # a word more
        long.replace("quick", "slow")
        .replace("lazy", "busy")
        .replace("wonder", "think"),  # three words of nineteen: 0.45
        "Yes.",
        "yes",
    ]
    assert pd.factorize(near_duplicates(texts))[0].tolist() == [0, 1, 0, 0, 2, 3, 3]
    assert equal_texts([" A  b", "a B", "ab"]).tolist() == [0, 0, 1]


def test_near_duplicates_agree_with_comparing_all_pairs():
    rng = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(300)])
    texts = [" ".join(rng.choice(words, 25)) for _ in range(80)]
    texts += [" ".join([*text.split()[:-1], "end"]) for text in texts[:40]]  # 24 of 26 word pairs stay: 0.92
    group = near_duplicates(texts)
    assert (group[80:] == group[:40]).mean() > 0.95
    assert len(set(group[:80])) == 80


def test_pairs_below_the_threshold_are_not_linked_though_they_meet_in_a_bucket():
    rng = np.random.default_rng(1)
    words = np.array([f"w{i}" for i in range(300)])
    texts = [list(rng.choice(words, 25)) for _ in range(60)]
    texts += [[*text[:8], "x", *text[9:16], "y", *text[17:]] for text in texts]  # 20 of 28 word pairs stay: 0.71
    assert len(set(near_duplicates([" ".join(text) for text in texts]))) == 120
    assert len(set(near_duplicates([" ".join(text) for text in texts], threshold=0.7))) < 100


def test_near_duplicates_in_scripts_without_spaces_and_of_signs():
    chinese = "我们昨天晚上在河边的小饭馆里吃了一顿很好的晚饭然后走路回家"
    texts = [chinese, chinese + "了", "这是另外一句完全不同的话和上面没有关系", "🚀🚀", "😡", "!!!"]
    assert pd.factorize(near_duplicates(texts))[0].tolist() == [0, 0, 1, 2, 3, 4]
    russian = "Дождь шёл весь день, и к вечеру река вышла из берегов у старой мельницы за деревней"
    german = "Über die größeren Pfützen führt ein Brett, über die kleineren springt man lieber selbst hinweg"
    texts = [russian, russian.upper() + "!", german, german.replace("führt", "liegt"), "ÖÖÖ", "ÄÄÄ"]
    assert pd.factorize(near_duplicates(texts))[0].tolist() == [0, 0, 1, 2, 3, 4]
    assert near_duplicates([german, german + " Ja."]).tolist() == [0, 0]


def test_reposts_stay_on_one_side_of_a_split_made_here(tmp_path):
    texts = [f"{text} with a dozen other words behind it, the same each time, {text}" for text in TEXTS]
    frame = pd.DataFrame({"text": texts + [f"Repost: {text}" for text in texts], "labels": ["a", "b|c"] * 24})
    rows = read_rows(write(tmp_path, "reposts.csv", frame))
    split, _ = assign_splits(rows)
    assert set(split) == set(SPLITS)
    assert (split[:24] == split[24:]).all()


def test_too_few_different_texts_to_split(tmp_path):
    frame = pd.DataFrame({"text": ["one", "two", "three"] * 8, "labels": ["a", "b", ""] * 8})
    with pytest.raises(
        DataError, match=r"3 different texts are too few .*near-duplicates count once.*give at least 10"
    ):
        read_splits(write(tmp_path, "few.csv", frame))


def test_groups_that_are_given_stay_together():
    groups = np.arange(200) // 5
    matrix = np.tile(np.eye(4, dtype=np.float32), (50, 1))
    split = split_rows([f"t{i}" for i in range(200)], matrix, groups=groups)
    assert pd.Series(split).groupby(groups).nunique().max() == 1


def test_a_text_in_two_splits_and_a_split_that_is_missing_are_notes(tmp_path):
    frame = JOINED.assign(split=["train"] * 18 + ["test"] * 6)
    frame.loc[20, "text"] = frame.loc[3, "text"].upper()
    split, notes = assign_splits(read_rows(write(tmp_path, "data.csv", frame)))
    assert "1 texts are in more than one split: scores there reward memory" in notes
    assert "there was no validation split; it was taken out of train" in notes
    assert list(split[18:]) == ["test"] * 6
    assert set(split[:18]) == {"train", "validation"}
    rows = read_rows(write(tmp_path, "rare.csv", JOINED.assign(split=["train"] * 15 + ["validation"] * 8 + ["test"])))
    assert "label 'a' never appears in test: its scores there are undefined" in assign_splits(rows)[1]


def test_labels_that_a_split_lacks_are_one_note_a_split(tmp_path):
    labels = np.zeros((30, 15), dtype=int)  # the last is on no row, which `read_rows` says
    labels[:20, :2], labels[20:25, 0], labels[25:, 1:14] = 1, 1, 1
    frame = pd.DataFrame(labels, columns=[f"l{k}" for k in range(15)]).assign(
        text=[f"text number {i}" for i in range(30)], split=["train"] * 20 + ["validation"] * 5 + ["test"] * 5
    )
    assert assign_splits(read_rows(write(tmp_path, "many.csv", frame)))[1] == [
        "12 labels never appear in train (l2, l3, l4 and 9 more): they can't be learned",
        "13 labels never appear in validation (l1, l2, l3 and 10 more): their scores there are undefined",
        "label 'l0' never appears in test: its scores there are undefined",
    ]


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
    for part in splits.values():
        assert label_matrix(part).any(axis=0).all(), "every label occurs in every split"


def test_severe_toxic_implies_toxic():
    frame = pd.read_csv(embedded_path("comments"))
    assert (frame["toxic"] >= frame["severe_toxic"]).all()
    assert list(frame.columns[2:8]) == ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]
