import json

import numpy as np
import pytest
import torch
from conftest import tiny_checkpoint, tiny_tokenizer

from helpers import models
from helpers.checkpoints import CheckpointError
from helpers.labels import UNKNOWN

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


# Loaded once more -----------------------------------------------------------------------------------------------------


def tuned(folder, label_names, kind="DistilBert", problem="multi_label_classification", **config):
    """A fine-tuned model on disk whose head is all sevens."""
    named = {"id2label": dict(enumerate(label_names)), "label2id": {name: i for i, name in enumerate(label_names)}}
    thresholds = dict.fromkeys(label_names, 0.25)
    entries = {"problem_type": problem, "thresholds": thresholds, **named, **config}
    tiny_checkpoint(folder, kind, "ForSequenceClassification", **entries)
    model = models.AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        for parameter in head_of(model):
            parameter.fill_(7)
    model.save_pretrained(folder)
    return folder


def head_of(model):
    return [p for name, p in model.named_parameters() if not name.startswith(model.base_model_prefix + ".")]


def is_kept(model):
    """Whether the head is all sevens; fails where it is partly so."""
    sevens = {bool((p == 7).all()) for p in head_of(model)}
    assert len(sevens) == 1
    return sevens.pop()


@pytest.mark.parametrize("kind", ["DistilBert", "Bert", "Roberta"])
@pytest.mark.parametrize(
    ("labels", "was_for"),
    [
        (["a", "b", "c", "d"], "other labels, [a, b, c]"),
        (["a", "b"], "other labels, [a, b, c]"),
        (["x", "y", "z"], "other labels, [a, b, c]"),
        (["a", "c", "b"], "these labels in another order, [a, b, c]"),
        (["A", "b", "c"], "other labels, [a, b, c]"),
    ],
)
def test_a_head_for_other_labels_is_replaced_and_its_thresholds_go(kind, labels, was_for, tmp_path, capsys):
    folder = tuned(tmp_path, ["a", "b", "c"], kind)
    model = models.load_model(folder, labels)
    assert capsys.readouterr().out == (
        f"The head of {folder} was for {was_for}: it is replaced by a new one, to be learned.\n"
    )
    assert not is_kept(model)
    assert head_of(model)[0].std() < 0.1, "as new heads are"
    assert head_of(model)[-1].shape == (len(labels),)
    assert list(model.config.id2label.values()) == labels
    assert not hasattr(model.config, "thresholds")
    model.save_pretrained(tmp_path / "again")
    assert "thresholds" not in json.loads((tmp_path / "again" / "config.json").read_text())
    before = models.AutoModel.from_pretrained(folder).state_dict()
    same = [torch.equal(before[name], tensor) for name, tensor in model.base_model.state_dict().items()]
    assert all(same), "the encoder is taken over"


@pytest.mark.parametrize("kind", ["DistilBert", "Bert", "Roberta"])
def test_a_head_for_the_same_labels_is_kept(kind, tmp_path, capsys):
    folder = tuned(tmp_path, ["a", "b", "c"], kind)
    model = models.load_model(folder, ["a", "b", "c"])
    assert capsys.readouterr().out == (
        f"The head of {folder} is for these labels in this order: it is kept, and trained further.\n"
    )
    assert is_kept(model)
    assert model.config.thresholds == {"a": 0.25, "b": 0.25, "c": 0.25}


@pytest.mark.parametrize(
    ("names", "problem", "labels", "was_for"),
    [
        (["a", "b"], "single_label_classification", ["a", "b"], "one label a text, of [a, b]"),
        (["a", "b"], None, ["a", "b"], "one label a text, of [a, b]"),
        (["LABEL_0", "LABEL_1"], "multi_label_classification", ["a", "b"], "2 labels without names"),
        (["LABEL_0", "LABEL_1"], "multi_label_classification", ["LABEL_0", "LABEL_1"], "2 labels without names"),
        (list("abcdefgh"), "multi_label_classification", ["a"], "other labels, [a, b, c, d, e and 3 more]"),
    ],
)
def test_a_head_of_another_kind_is_replaced(names, problem, labels, was_for, tmp_path, capsys):
    model = models.load_model(tuned(tmp_path, names, problem=problem), labels)
    assert f" was for {was_for}: it is replaced" in capsys.readouterr().out
    assert not is_kept(model)
    assert model.config.problem_type == "multi_label_classification"


def test_the_output_layer_of_another_task_is_not_taken_for_a_head(tmp_path, capsys):
    """Its tensors have the same names and shapes."""
    for kind in ("DistilBert", "Bert"):
        names = {0: "O", 1: "B-PER"}
        folder = tiny_checkpoint(tmp_path / kind, kind, "ForTokenClassification", id2label=names)
        model = models.load_model(folder, ["a", "b"])
        assert " was for one label a text, of [O, B-PER]: it is replaced" in capsys.readouterr().out
        old = models.AutoModelForSequenceClassification.from_pretrained(folder).classifier.weight
        assert not torch.equal(model.classifier.weight, old)
    named = tuned(tmp_path / "cut", ["a", "b"])
    config = json.loads((named / "config.json").read_text())
    (named / "config.json").write_text(json.dumps({**config, "id2label": {"0": "a", "1": "b", "2": "c"}}))
    models.load_model(named, ["a", "b", "c"])
    assert " was for another task: it is replaced" in capsys.readouterr().out


def test_a_pretrained_encoder_gets_its_head_without_a_word_of_an_old_one(tmp_path, capsys):
    folder = tiny_checkpoint(tmp_path, "Bert", "ForMaskedLM", thresholds={"a": 0.5})
    model = models.load_model(folder, ["a", "b"])
    printed = capsys.readouterr().out
    assert printed.startswith("Newly initialised, to be learned: bert.pooler.dense.bias, ")
    assert "classifier.weight" in printed
    assert not hasattr(model.config, "thresholds")


def test_two_labels_of_one_name_are_no_labels(small_checkpoint):
    with pytest.raises(ValueError, match="two labels have the name 'b'; give each its own"):
        models.load_model(small_checkpoint, ["a", "b", "b"])


@pytest.mark.parametrize("labels", [None, ["a", "b", "c"]])
def test_a_config_that_asks_for_hidden_states_does_not_get_them(labels, tmp_path):
    folder = tuned(tmp_path, ["a", "b", "c"], output_hidden_states=True)
    config = json.loads((folder / "config.json").read_text()) | {"output_attentions": True}
    (folder / "config.json").write_text(json.dumps(config))
    inputs = models.load_tokenizer(folder)(TEXTS, padding=True, return_tensors="pt", return_token_type_ids=False)
    model = models.load_model(folder, labels, attn_implementation="sdpa")
    assert list(model(**inputs)) == ["logits"]
    own = models.DistilBERTClass(folder, 3, attention="sdpa")
    assert own(inputs["input_ids"], inputs["attention_mask"]).shape == (5, 3)


def sentence(folder, label_names=None):
    with pytest.raises(CheckpointError) as error:
        models.load_model(folder, label_names)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_saved_model_is_whole_or_refused(tmp_path):
    remedy = "save it anew with model.save_pretrained, or give another folder"
    bare = tiny_checkpoint(tmp_path / "bare")
    assert sentence(bare) == (
        f"{bare} is no whole model: of its weights 4 are missing (such as classifier.bias); {remedy}"
    )
    folder = tuned(tmp_path / "tuned", ["a", "b", "c"])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "id2label": {"0": "a", "1": "b"}}))
    assert sentence(folder) == (
        f"{folder} is no whole model: of its weights 2 are of another shape than its config says (such as classifier.bias); "
        f"{remedy}"
    )
    (folder / "config.json").write_text(json.dumps({**config, "n_layers": 3}))
    for label_names in (None, ["x"]):
        assert "of its weights 16 are missing (such as distilbert.transformer.layer.2." in sentence(folder, label_names)
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 500}))
    for label_names in (None, ["x"]):
        assert "1 are of another shape than its config says (such as distilbert.emb" in sentence(folder, label_names)
    (folder / "config.json").write_text(json.dumps(config))
    weights = (folder / "model.safetensors").read_bytes()
    for content in (weights[:-1], weights[:100], b""):
        (folder / "model.safetensors").write_bytes(content)
        for label_names in (None, ["x"]):
            text = sentence(folder, label_names)
            assert text.startswith(f"{folder} cannot be loaded (Error while deserializing header")
            assert text.endswith("); copy it again, or give another folder")


def test_texts_are_padded_behind(tmp_path):
    tiny_tokenizer(padding_side="left").save_pretrained(tmp_path)
    assert models.AutoTokenizer.from_pretrained(tmp_path).padding_side == "left"
    inputs = models.load_tokenizer(tmp_path)(["good", "good good bad"], padding=True)
    assert inputs["attention_mask"][0] == [1, 1, 1, 0, 0]


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


@pytest.mark.parametrize("label_names", [None, ["a", "b"]])
def test_a_saved_block_is_known_again_and_stays_the_only_one(label_names, small_checkpoint, batch, tmp_path):
    model = models.add_mean_pooling(models.load_model(small_checkpoint, ["a", "b"]))
    models.add_mean_pooling(model)
    assert model.config.n_layers == 3
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["mean_pooling"] is True
    for again in (models.load_model(tmp_path, label_names), models.DistilBERTClass(tmp_path, 2)):
        encoder = next(module for module in again.children() if hasattr(module, "transformer"))
        assert models.add_mean_pooling(again) is again
        assert len(encoder.transformer.layer) == encoder.config.n_layers == 3
        trained = {name for name, p in encoder.named_parameters() if p.requires_grad}
        assert not any(".layer.2." in name for name in trained)
        hidden = encoder(**batch).last_hidden_state
        block = encoder.train().transformer.layer[-1]
        assert torch.equal(*(block(hidden, None) for _ in range(2))), "no dropout in it"


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
