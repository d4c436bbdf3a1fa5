import json

import numpy as np
import pytest
import torch

from helpers import models
from helpers.inference import Predictor

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
        ("one string", TypeError, "a list of texts"),
        (["fine", 3], TypeError, "text 1 is 3"),
        ([None], TypeError, "text 0 is None"),
        (["fine", " \n"], ValueError, "text 1 is empty"),
    ],
)
def test_bad_input_is_named(folder, texts, error, message):
    with pytest.raises(error, match=message):
        Predictor(folder)(texts)


def test_folders_that_would_answer_wrongly_are_refused(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no saved model"):
        Predictor(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "thresholds": {"zebra": 0.5}}))
    with pytest.raises(ValueError, match="thresholds are for"):
        Predictor(folder)
    (folder / "config.json").write_text(json.dumps({**config, "problem_type": None}))
    with pytest.raises(ValueError, match="softmax"):
        Predictor(folder)
