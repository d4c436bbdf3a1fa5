import json

import numpy as np
import pytest
import torch

from helpers import models
from helpers.data import UNKNOWN

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


def test_the_svm_ranks_as_its_scores_do_even_where_platts_sigmoid_falls():
    """Two positives that share no word, and their words together are a no: each scores low for the other's model."""
    texts = ["red", "blue"] + ["red blue"] * 8 + ["green"] * 12
    y_train = np.array([[1]] * 2 + [[0]] * 20, dtype=np.float32)
    y_prob = models.linear_svm(texts, y_train, ["red", "red blue"])
    assert y_prob[0, 0] > y_prob[1, 0]


def test_blended_with_itself_a_model_is_itself():
    y_prob = np.random.default_rng(0).random((50, 3)).round(3)
    assert models.blend([y_prob, y_prob]) == pytest.approx(np.clip(y_prob, 1e-7, 1 - 1e-7), rel=1e-5)


def test_a_blend_ranks_by_the_mean_of_standardised_logits_and_no_model_outweighs_another():
    one, other = np.random.default_rng(0).uniform(0.05, 0.95, (2, 60, 2))
    z = [np.log(p / (1 - p)) for p in (one, other)]
    z = [(logits - logits.mean(axis=0)) / logits.std(axis=0) for logits in z]
    expected = np.argsort(z[0] + z[1], axis=0)
    assert np.array_equal(np.argsort(models.blend([one, other]), axis=0), expected)
    sharp = 1 / (1 + ((1 - one) / one) ** 3)  # the same ranking, three times as sure
    assert np.array_equal(np.argsort(models.blend([sharp, other]), axis=0), expected)


def test_a_text_alone_is_blended_as_among_others_and_certainty_is_no_infinity():
    rng = np.random.default_rng(0)
    one, other = rng.random((60, 2)), rng.random((60, 2))
    one[0], other[1], other[:, 1] = 0, 1, 0.3  # the second label never varies in one model
    together = models.blend([one, other])
    assert np.isfinite(together).all()
    assert models.blend([one[7:8], other[7:8]], [one, other]) == pytest.approx(together[7:8])


def test_a_block_makes_every_state_the_mean_and_the_library_reloads_it(small_checkpoint, batch, tmp_path):
    model = models.load_model(small_checkpoint, ["a", "b"]).eval()
    layers = model.config.n_layers
    with torch.inference_mode():
        hidden, mask = model.distilbert(**batch).last_hidden_state, batch["attention_mask"].unsqueeze(-1)
        mean = (hidden * mask).sum(1) / mask.sum(1)
        expected = torch.nn.functional.layer_norm(mean, mean.shape[-1:])
        models.add_mean_pooling(model)
        states = model.distilbert(**batch).last_hidden_state
        assert torch.nn.functional.cosine_similarity(states[:, 0], expected).min() > 0.9999
        assert torch.nn.functional.cosine_similarity(states[0, 1], expected[0], dim=0) > 0.9999
        model.save_pretrained(tmp_path)
        again = models.load_model(tmp_path).eval()
        assert again.config.n_layers == layers + 1
        assert torch.equal(again(**batch).logits, model(**batch).logits)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert not any(f"layer.{layers}." in name for name in trained)
    model.train()
    assert torch.equal(*(model.distilbert.transformer.layer[-1](hidden, None) for _ in range(2))), "no dropout in it"


def test_a_block_is_refused_for_other_families():
    from transformers import BertConfig, BertModel

    sizes = {"num_hidden_layers": 1, "num_attention_heads": 1, "hidden_size": 8, "intermediate_size": 8}
    with pytest.raises(ValueError, match="for DistilBERT, not for BertModel"):
        models.add_mean_pooling(BertModel(BertConfig(vocab_size=30, **sizes)))


# Unknown labels -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["all_zeros", "label_prior", "tfidf_regression", "linear_svm", "frozen_regression"])
def test_baselines_learn_a_label_from_the_texts_of_which_it_is_known(name, small_checkpoint):
    """The third label is known nowhere, the fourth where it is a yes, the fifth of one yes and one no."""
    texts = [f"{'good' if i % 2 else 'bad'} text number {i}" for i in range(24)]
    y_train = np.array([[i % 2, i % 2, UNKNOWN, 1 if i % 2 else UNKNOWN, UNKNOWN] for i in range(24)], dtype=np.float32)
    y_train[:2, 4] = [0, 1]
    y_train[12:, 1] = UNKNOWN
    more = (str(small_checkpoint),) if name == "frozen_regression" else ()
    y_prob = getattr(models, name)(texts, y_train, ["good text", "bad text"], *more)
    assert ((y_prob >= 0) & (y_prob <= 1)).all()
    if name == "all_zeros":
        return
    assert (y_prob[:, 2] == 0).all()
    assert (y_prob[:, 3] == 1).all()
    if name == "label_prior":
        assert y_prob[0].tolist() == [0.5, 0.5, 0, 1, 0.5]
    else:
        assert y_prob[0, 1] > y_prob[1, 1]
    if name == "frozen_regression":
        alone = models.frozen_regression(texts[:12], y_train[:12, :2], ["good text", "bad text"], *more)
        assert np.allclose(y_prob[:, 1], alone[:, 1], atol=1e-4)
        assert not np.allclose(y_prob[:, 0], alone[:, 0], atol=1e-4)
