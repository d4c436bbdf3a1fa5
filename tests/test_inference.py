import json

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import shown, tiny_checkpoint

from helpers import models
from helpers.checkpoints import CheckpointError
from helpers.inference import Predictor, cut_length, probability_columns

TEXTS = ["good text", "bad and ugly text with number 3", "text"]


@pytest.fixture
def folder(small_checkpoint, tmp_path):
    torch.manual_seed(3)
    model = models.load_model(small_checkpoint, ["zebra", "apple", "mango"])
    with torch.no_grad():
        model.classifier.weight.mul_(30)
    model.config.thresholds = {"zebra": 0.2, "apple": 0.9, "mango": 0.5}
    model.save_pretrained(tmp_path / "model")
    models.load_tokenizer(small_checkpoint).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def by_hand(folder):
    model = models.load_model(folder).eval()
    inputs = models.load_tokenizer(folder)(TEXTS, padding=True, return_tensors="pt", return_token_type_ids=False)
    with torch.inference_mode():
        return torch.sigmoid(model(**inputs).logits).numpy()


def test_columns_are_in_the_models_order_and_thresholds_belong_to_their_labels(folder):
    predictor = Predictor(folder)
    assert predictor.label_names == ["zebra", "apple", "mango"]
    y_prob = predictor.probabilities(TEXTS)
    assert np.ptp(y_prob) > 0.1
    assert np.allclose(y_prob, by_hand(folder), atol=1e-5)
    table = predictor(TEXTS)
    for row, labels in zip(y_prob, table["labels"], strict=True):
        assert labels == [
            name for name, p, t in zip(predictor.label_names, row, [0.2, 0.9, 0.5], strict=True) if p >= t
        ]
    assert table["text"].tolist() == TEXTS


def test_long_texts_are_cut_and_no_text_gives_no_row(folder):
    predictor = Predictor(folder, max_len=16)
    assert predictor.probabilities(["good bad " * 200]).shape == (1, 3)
    assert predictor([]).shape == (0, 5)


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        ("one string", TypeError, "give a list of texts, not one string: predictor(['...'])"),
        (b"bytes", TypeError, "give a list of texts, not one string: predictor(['...'])"),
        (
            pd.DataFrame({"text": TEXTS}),
            TypeError,
            "give the column of texts, not the whole DataFrame: predictor(frame['text'])",
        ),
        ({"text": TEXTS}, TypeError, "give the column of texts, not the whole dict: predictor(frame['text'])"),
        (
            datasets.Dataset.from_dict({"text": TEXTS}),
            TypeError,
            "give the column of texts, not the whole Dataset: predictor(frame['text'])",
        ),
        (None, TypeError, "give a list of texts, not None: predictor(['...'])"),
        (5, TypeError, "give a list of texts, not 5: predictor(['...'])"),
        (["fine", 3], TypeError, "text 1 is 3; every text is a string"),
        ([None], TypeError, "text 0 is None; every text is a string"),
        (pd.Series(["fine", np.nan]), TypeError, "text 1 is nan; every text is a string"),
        ([["fine"]], TypeError, "text 0 is ['fine']; every text is a string"),
        (["fine", " \n"], ValueError, "text 1 is empty; leave it out, a model's answer to nothing means nothing"),
    ],
)
def test_bad_input_is_named(folder, texts, error, message):
    predictor = Predictor(folder)
    for call in (predictor, predictor.probabilities):
        with pytest.raises(error) as raised:
            call(texts)
        assert str(raised.value) == message


@pytest.mark.parametrize(
    "make",
    [
        list,
        tuple,
        iter,
        np.array,
        lambda texts: (text for text in texts),
        lambda texts: pd.Series(texts, index=[7, 3, 3]),
        lambda texts: datasets.Dataset.from_dict({"text": texts})["text"],
    ],
    ids=["list", "tuple", "iterator", "array", "generator", "series", "column"],
)
def test_any_sequence_of_texts_is_answered_and_stands_in_the_table(folder, make):
    predictor = Predictor(folder)
    table = predictor(make(TEXTS))
    assert table["text"].tolist() == TEXTS
    assert np.allclose(table[predictor.label_names], by_hand(folder), atol=1e-5)
    assert np.allclose(predictor.probabilities(make(TEXTS)), by_hand(folder), atol=1e-5)


def saved(tmp_path, small_checkpoint, label_names):
    models.load_model(small_checkpoint, label_names).save_pretrained(tmp_path / "model")
    models.load_tokenizer(small_checkpoint).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_labels_called_like_the_tables_own_columns_stand_beside_them(small_checkpoint, tmp_path):
    predictor = Predictor(saved(tmp_path, small_checkpoint, ["text", "good", "labels"]))
    table = predictor(TEXTS)
    assert table.columns.tolist() == ["text", "labels", "p(text)", "good", "p(labels)"]
    assert table["text"].tolist() == TEXTS
    y_prob = predictor.probabilities(TEXTS)
    assert np.array_equal(table[["p(text)", "good", "p(labels)"]], y_prob)
    for labels, row in zip(table["labels"], y_prob, strict=True):
        assert labels == [name for name, p in zip(["text", "good", "labels"], row, strict=True) if p >= 0.5]
    assert probability_columns(["p(text)", "text", "x"]) == ["p(text)", "p(p(text))", "x"]


def edit(folder, **entries):
    config = json.loads((folder / "config.json").read_text()) | entries
    (folder / "config.json").write_text(json.dumps(config))


def refused(folder, kind=ValueError, **options):
    with pytest.raises(kind) as error:
        Predictor(folder, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        (None, "thresholds is None; it takes a number a label, as {'zebra': 0.5}, or nothing at all for 0.5"),
        (
            [0.5, 0.5, 0.5],
            "thresholds is [0.5, 0.5, 0.5]; it takes a number a label, as {'zebra': 0.5}, or nothing at all for 0.5",
        ),
        (0.5, "thresholds is 0.5; it takes a number a label, as {'zebra': 0.5}, or nothing at all for 0.5"),
        (
            {"zebra": None, "apple": 0.5, "mango": 0.5},
            "the threshold of 'zebra' is None; it takes a number from 0 to 1",
        ),
        ({"zebra": 0.5, "apple": 1.5, "mango": 0.5}, "the threshold of 'apple' is 1.5; it takes a number from 0 to 1"),
        (
            {"zebra": 0.5, "apple": 0.5, "mango": -0.1},
            "the threshold of 'mango' is -0.1; it takes a number from 0 to 1",
        ),
        (
            {"zebra": float("nan"), "apple": 0.5, "mango": 0.5},
            "the threshold of 'zebra' is nan; it takes a number from 0 to 1",
        ),
        (
            {"zebra": "0.5", "apple": 0.5, "mango": 0.5},
            "the threshold of 'zebra' is '0.5'; it takes a number from 0 to 1",
        ),
        (
            {"zebra": True, "apple": 0.5, "mango": 0.5},
            "the threshold of 'zebra' is True; it takes a number from 0 to 1",
        ),
        (
            {"zebra": 0.5, "apple": 0.5},
            "the thresholds are for other labels: without one are ['mango'], unknown to the model []; choose them anew, as notebook 05 does",
        ),
        (
            {"zebra": 0.5, "apple": 0.5, "mango": 0.5, "pear": 0.5},
            "the thresholds are for other labels: without one are [], unknown to the model ['pear']; choose them anew, as notebook 05 does",
        ),
        (
            {},
            "the thresholds are for other labels: without one are ['apple', 'mango', 'zebra'], unknown to the model []; choose them anew, as notebook 05 does",
        ),
    ],
)
def test_thresholds_that_cannot_be_used_are_named(folder, thresholds, message):
    edit(folder, thresholds=thresholds)
    assert refused(folder) == f"{folder}: {message}"


def test_thresholds_may_be_at_the_ends_whole_numbers_or_absent(folder, small_checkpoint, tmp_path):
    edit(folder, thresholds={"zebra": 0, "apple": 1, "mango": 0.5})
    assert Predictor(folder).thresholds.tolist() == [0, 1, 0.5]
    assert Predictor(saved(tmp_path / "none", small_checkpoint, ["a", "b"])).thresholds.tolist() == [0.5, 0.5]


def test_folders_that_would_answer_wrongly_are_refused(folder, tmp_path, small_checkpoint):
    assert refused(tmp_path, FileNotFoundError) == (
        f"{tmp_path} holds no saved model (no config.json); run notebook 04 first, or give another folder"
    )
    edit(folder, problem_type=None)
    assert "probabilities would come from a softmax" in refused(folder)
    edit(folder, problem_type="multi_label_classification", id2label={"0": "a", "1": "b", "2": "a"})
    assert refused(folder) == f"{folder}: two labels have the name 'a'; give each its own in id2label"
    edit(folder, id2label={"0": "a", "1": "b", "5": "c"})
    assert refused(folder) == f"{folder}: id2label numbers the labels [0, 1, 5]; it takes 0, 1, 2 and so on"
    text = refused(tiny_checkpoint(tmp_path / "bare", problem_type="multi_label_classification"), CheckpointError)
    assert " is no whole model: of its weights 4 are missing (such as classifier.bias); " in text


def test_a_folder_that_is_not_whole_is_refused(folder):
    (folder / "tokenizer.json").rename(folder / "tokenizer.away")
    assert " has no tokenizer (no tokenizer.json, no vocab.txt); " in refused(folder, CheckpointError)
    (folder / "tokenizer.away").rename(folder / "tokenizer.json")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-20])
    assert refused(folder, CheckpointError).startswith(f"model.safetensors in {folder} is damaged (")


def test_texts_are_cut_where_training_cut_them(folder):
    tokenizer = models.load_tokenizer(folder)
    assert Predictor(folder).max_len == 64, "the model's positions, where the tokenizer says nothing"
    tokenizer.model_max_length = 8
    tokenizer.save_pretrained(folder)
    predictor = Predictor(folder)
    assert predictor.max_len == 8
    long, same, other = "good bad good bad good bad", "good bad good bad good bad ugly", "good bad good bad ugly bad"
    first, second, third = predictor.probabilities([long, same, other])
    assert np.allclose(first, second, atol=1e-6)
    assert not np.allclose(first, third, atol=1e-6)
    assert not np.allclose(*Predictor(folder, max_len=9).probabilities([long, same]), atol=1e-6)
    tokenizer.model_max_length = 512
    tokenizer.save_pretrained(folder)
    assert Predictor(folder).max_len == 64, "never beyond the model's positions"
    assert refused(folder, max_len=65) == "max_len is 65, and the model reads at most 64 tokens; lower it"
    assert refused(folder, max_len=2) == "max_len is 2; it takes a whole number from 3 up"
    assert refused(folder, max_len="128") == "max_len is '128'; it takes a whole number from 3 up"


def test_a_roberta_is_asked_no_more_than_it_can_read(tmp_path):
    """Two of its positions are never used."""
    names = {"id2label": {0: "a", 1: "b"}, "problem_type": "multi_label_classification"}
    predictor = Predictor(tiny_checkpoint(tmp_path, "Roberta", "ForSequenceClassification", **names))
    assert predictor.max_len == 64
    assert predictor.probabilities(["good bad " * 100]).shape == (1, 2)


def test_the_cut_where_nothing_limits_it():
    no_length = int(1e30)
    assert cut_length(None, no_length, None) == 512
    assert cut_length(None, no_length, 514) == 514
    assert cut_length(None, 128, None) == 128
    assert cut_length(100_000, no_length, None) == 100_000


# Sliding windows, which notebook 6 shows ------------------------------------------------------------------------------

sliding_windows, pool_windows = shown("06_inference", "sliding_windows", "pool_windows", torch=torch)
WORDS = ["good", "bad", "ugly", "text", "number"]


def test_windows_hold_every_token_and_overlap(folder):
    tokenizer = models.load_tokenizer(folder)
    texts = [" ".join(WORDS * 6), "good", " ".join(WORDS * 2)]
    encoded, rows = sliding_windows(texts, tokenizer, max_len=12, stride=4)
    assert rows.tolist() == [0, 0, 0, 0, 0, 1, 2]
    assert max(map(len, encoded["input_ids"])) == 12
    first = [ids[1:-1] for ids, row in zip(encoded["input_ids"], rows, strict=True) if row == 0]
    for before, after in zip(first, first[1:], strict=False):
        assert before[-4:] == after[:4]
    joined = first[0] + [i for window in first[1:] for i in window[4:]]
    assert joined == tokenizer(texts[0], add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(("stride", "largest"), [(10, 9), (-1, 9)])
def test_a_stride_that_leaves_no_room_is_refused(folder, stride, largest):
    tokenizer = models.load_tokenizer(folder)
    with pytest.raises(ValueError, match=f"stride is {stride}; with max_len 12 it takes a number from 0 to {largest}"):
        sliding_windows(["good"], tokenizer, max_len=12, stride=stride)


def test_windows_are_pooled_text_by_text():
    logits = torch.tensor([[1.0, -5.0], [3.0, -1.0], [0.5, 2.0]])
    rows = np.array([0, 0, 1])
    assert pool_windows(logits, rows, "max").tolist() == [[3.0, -1.0], [0.5, 2.0]]
    assert pool_windows(logits, rows, "mean").tolist() == [[2.0, -3.0], [0.5, 2.0]]
    with pytest.raises(ValueError, match="'median'; it takes 'max' or 'mean'"):
        pool_windows(logits, rows, "median")


def test_cut_max_and_mean_agree_with_the_plain_path(folder):
    """Cut is what truncation gives, for every text; on texts of one window all three are the same."""
    tokenizer, model = models.load_tokenizer(folder), models.load_model(folder).eval()
    around = {"torch": torch, "tokenizer": tokenizer, "model": model, "max_len": 12, "device": "cpu"}
    *_, three_ways = shown("06_inference", "sliding_windows", "pool_windows", "three_ways", **around)
    texts = ["good", "bad and ugly " * 9, " ".join(WORDS), "ugly number " * 70]
    ways = three_ways(texts)
    inputs = {"padding": True, "truncation": True, "max_length": 12, "return_token_type_ids": False}
    with torch.inference_mode():
        plain = torch.sigmoid(model(**tokenizer(texts, return_tensors="pt", **inputs)).logits).numpy()
    assert np.allclose(ways["cut"], plain, atol=1e-6)
    for how in ("max", "mean"):
        assert np.allclose(ways[how][[0, 2]], plain[[0, 2]], atol=1e-6)
    assert (ways["max"][[1, 3]] >= np.maximum(ways["cut"], ways["mean"])[[1, 3]] - 1e-6).all()
    assert (ways["max"] > ways["mean"])[[1, 3]].all()
