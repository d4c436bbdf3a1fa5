import json

import numpy as np
import pytest
import torch

from helpers import models

TEXTS = ["good text", "bad", "ugly text number 3", "good good good bad", "text number 5 and some more words"]


@pytest.fixture
def batch(small_checkpoint):
    return models.load_tokenizer(small_checkpoint)(
        TEXTS, padding=True, return_tensors="pt", return_token_type_ids=False
    )


def test_the_custom_class_equals_the_librarys(small_checkpoint, batch):
    ours = models.DistilBERTClass(small_checkpoint, 3).eval()
    theirs = models.load_model(small_checkpoint, ["a", "b", "c"]).eval()
    theirs.distilbert.load_state_dict(ours.encoder.state_dict())
    theirs.pre_classifier.load_state_dict(ours.pre_classifier.state_dict())
    theirs.classifier.load_state_dict(ours.classifier.state_dict())
    with torch.inference_mode():
        assert torch.allclose(ours(**batch), theirs(**batch).logits, atol=1e-6)


def test_padding_changes_nothing_and_a_missing_mask_does(small_checkpoint, batch):
    model = models.DistilBERTClass(small_checkpoint, 3).eval()
    tokenizer = models.load_tokenizer(small_checkpoint)
    alone = tokenizer(TEXTS[1], return_tensors="pt", return_token_type_ids=False)
    with torch.inference_mode():
        expected = model(**alone)[0]
        assert torch.allclose(model(**batch)[1], expected, atol=1e-5)
        no_mask = model(batch["input_ids"], torch.ones_like(batch["attention_mask"]))[1]
    assert (no_mask - expected).abs().max() > 1e-4


def test_load_model_carries_names_and_problem_type(small_checkpoint, tmp_path, capsys):
    model = models.load_model(small_checkpoint, ["toxic", "threat"])
    assert "classifier.weight" in capsys.readouterr().out
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["id2label"] == {"0": "toxic", "1": "threat"}
    assert config["label2id"] == {"toxic": 0, "threat": 1}
    assert config["problem_type"] == "multi_label_classification"
    models.load_model(tmp_path)
    assert capsys.readouterr().out == ""


def test_embeddings_keep_the_order_and_ignore_the_batch(small_checkpoint):
    together = models.sentence_embeddings(small_checkpoint, TEXTS, batch_size=2)
    alone = np.concatenate([models.sentence_embeddings(small_checkpoint, [text]) for text in TEXTS])
    assert np.allclose(together, alone, atol=1e-5)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", ["all_zeros", "label_prior", "tfidf_regression", "linear_svm", "frozen_regression"])
def test_baselines_give_probabilities_also_for_labels_that_never_vary(name, small_checkpoint):
    y_train = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 1], [1, 0, 1], [0, 0, 1]], dtype=np.float32)
    more = (str(small_checkpoint),) if name == "frozen_regression" else ()
    y_prob = getattr(models, name)(TEXTS, y_train, ["good", "unseen word"], *more)
    assert y_prob.shape == (2, 3)
    assert ((y_prob >= 0) & (y_prob <= 1)).all()
    if name != "all_zeros":
        assert (y_prob[:, 1] == 0).all()
        assert (y_prob[:, 2] == 1).all()


@pytest.mark.parametrize("baseline", [models.tfidf_regression, models.linear_svm])
def test_counting_words_learns_a_telling_word_and_survives_texts_without_words(baseline):
    y_train = np.array([[1, 0], [0, 1]] * 10, dtype=np.float32)
    y_prob = baseline(["good thing", "bad thing"] * 10, y_train, ["good", "bad"])
    assert y_prob[0, 0] > 0.5 > y_prob[0, 1]
    assert y_prob[1, 1] > 0.5 > y_prob[1, 0]
    with pytest.warns(UserWarning, match="no words"):
        prior = baseline(["?", "!"] * 10, y_train, ["?"])
    assert prior.tolist() == [[0.5, 0.5]]


def test_the_svm_ranks_as_its_scores_do_reads_pieces_of_words_and_is_calibrated():
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union
    from sklearn.svm import LinearSVC

    rng = np.random.default_rng(0)
    stems = np.array(["walk", "talk", "sing", "read"])
    texts = [" ".join(rng.choice(stems, 6)) + (" unwalkable" if i % 3 == 0 else " tea") for i in range(300)]
    flipped = rng.random(300) < 0.1
    y_train = np.column_stack([(np.arange(300) % 3 == 0) ^ flipped, np.arange(300) == 7]).astype(np.float32)
    new = texts[:50] + ["unwalkableness"]
    y_prob = models.linear_svm(texts, y_train, new)
    assert y_prob[-1, 0] > 0.5, "a word it has never met, by its pieces"
    assert abs(y_prob[:50, 0].mean() - y_train[:50, 0].mean()) < 0.1
    assert np.allclose(y_prob[:, 1], 1 / 300), "a single positive"
    union = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
    )
    scores = LinearSVC().fit(union.fit_transform(texts), y_train[:, 0]).decision_function(union.transform(new))
    assert (np.argsort(scores, kind="stable") == np.argsort(y_prob[:, 0], kind="stable")).all()
