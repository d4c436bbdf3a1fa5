"""Every family of encoders goes the whole way, from a checkpoint to answers; and so does the profile "full"."""

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tokenizers
import torch
import transformers
from conftest import ROOT, TINY_WORDS, tiny_tokenizer

from helpers import models, trainer
from helpers.checkpoints import embedded_checkpoint
from helpers.data import label_matrix
from helpers.inference import Predictor
from helpers.runtime import start_run
from helpers.training import freeze_lower_layers

SIZES = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
LENGTHS = {"max_position_embeddings": 66}
DISTIL = dict(zip(("dim", "hidden_dim", "n_layers", "n_heads"), SIZES.values(), strict=True))
SHARED_POSITIONS = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 8}
SHARED_POSITIONS |= {"norm_rel_ebd": "layer_norm", "share_att_key": True}  # as DeBERTa-v3 has them


def word_pieces(texts):
    return tiny_tokenizer(TINY_WORDS)


def word_pieces_of_mpnet(texts):
    words = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>", *TINY_WORDS[5:]]
    return transformers.MPNetTokenizer(vocab={word: i for i, word in enumerate(words)})


def characters(texts):
    return transformers.CanineTokenizer()


def byte_pairs(texts):
    """With the special tokens in RoBERTa's order: the id of the padding, 1, is where its positions begin."""
    trained = tokenizers.ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(texts, 300, special_tokens=special, show_progress=False)
    made = json.loads(trained.to_str())["model"]
    return transformers.RobertaTokenizer(vocab=made["vocab"], merges=[tuple(pair) for pair in made["merges"]])


def byte_pairs_of_modernbert(texts):
    """Byte-level BPE with BERT's special tokens, of no class of its own, as ModernBERT's is."""
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    backend = byte_pairs(texts).backend_tokenizer
    backend.add_special_tokens(list(names.values()))
    ids = [(name, backend.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    backend.post_processor = tokenizers.processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def unigrams(kind):
    def make(texts):
        return getattr(transformers, f"{kind}Tokenizer")().train_new_from_iterator(texts, 100, show_progress=False)

    return make


# family: (its tokenizer, what its config has beside or instead of SIZES and LENGTHS)
FAMILIES = {
    "DistilBert": (word_pieces, DISTIL | LENGTHS),
    "Bert": (word_pieces, SIZES | LENGTHS),
    "Canine": (characters, SIZES | LENGTHS | {"num_hash_buckets": 64}),
    "Electra": (word_pieces, SIZES | LENGTHS | {"embedding_size": 16}),
    "MPNet": (word_pieces_of_mpnet, SIZES | LENGTHS),
    "Roberta": (byte_pairs, SIZES | LENGTHS),
    "Longformer": (byte_pairs, SIZES | LENGTHS | {"attention_window": 8}),
    "ModernBert": (byte_pairs_of_modernbert, SIZES | LENGTHS | {"local_attention": 8}),
    "XLMRoberta": (unigrams("XLMRoberta"), SIZES | LENGTHS),
    "Albert": (unigrams("Albert"), SIZES | LENGTHS | {"embedding_size": 16}),
    "DebertaV2": (unigrams("DebertaV2"), SIZES | LENGTHS | SHARED_POSITIONS),
}
QUICK = ("DistilBert", "Bert", "Canine")


def checkpoint(family, folder, texts):
    """A folder with an encoder of the family, of random weights, and a tokenizer made of the texts."""
    make, options = FAMILIES[family]
    tokenizer = make(texts)
    if family != "Canine":
        names = ("pad", "bos", "eos", "cls", "sep")
        ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in names}
        options = options | {"vocab_size": len(tokenizer)} | {name: i for name, i in ids.items() if i is not None}
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(initializer_range=0.2, **options)
    getattr(transformers, f"{family}Model")(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", [f if f in QUICK else pytest.param(f, marks=pytest.mark.all) for f in FAMILIES])
def test_a_family_is_trained_saved_reloaded_and_asked(family, small_csv, tmp_path, monkeypatch):
    # CANINE's tokenizer lists all 1.1 million characters whenever it is made; these are those up to its special ones
    monkeypatch.setattr(transformers.models.canine.tokenization_canine, "UNICODE_VOCAB_SIZE", 0xE010)
    texts = pd.read_csv(small_csv)["text"].tolist()
    run = start_run(
        "test",
        "movies",
        dataset=str(small_csv),
        checkpoint=str(checkpoint(family, tmp_path / "checkpoint", texts)),
        max_len=32,
        train_batch_size=8,
        valid_batch_size=8,
        epochs=2,
        learning_rate=1e-3,
        seed=1,
        output_dir=tmp_path / "build",
    )
    assert len(models.load_tokenizer(run.checkpoint)(texts[0])["input_ids"]) > 4
    folder, valid = trainer.fine_tune(run), run.splits["validation"]
    y_true, y_prob = run.folder.predictions("validation")
    assert np.array_equal(y_true, label_matrix(valid))
    assert np.ptp(y_prob, axis=0).min() > 1e-3, "an answer that hangs on the text"
    predictor = Predictor(folder)
    assert (predictor.max_len, predictor.label_names) == (32, run.label_names)
    assert np.allclose(predictor.probabilities(valid["text"][:]), y_prob, atol=1e-5)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    assert type(model).__name__ == f"{family}ForSequenceClassification"
    before = transformers.AutoModel.from_pretrained(run.checkpoint).state_dict()
    after = model.base_model.state_dict()
    learned = {name for name, tensor in after.items() if "pooler" not in name and not torch.equal(before[name], tensor)}
    top = 0 if family == "Albert" else 2  # its layers are one
    assert {name for name in learned if f".{top}." not in name} <= {"final_norm.weight"}
    assert len(learned) > 6
    own = models.DistilBERTClass(run.checkpoint, 3)
    freeze_lower_layers(own)
    assert {name for name, p in own.encoder.named_parameters() if p.requires_grad and "pooler" not in name} >= learned


FULL = """
import json, sys
sys.path.insert(0, {root!r})
from helpers import trainer
from helpers.inference import Predictor
from helpers.runtime import start_run

run = start_run("04_trainer_class_weights", "comments", profile="full", epochs=1, output_dir="build")
print(run)
folder = trainer.fine_tune(run)
y_true, y_prob = run.folder.predictions("validation")
again = Predictor(folder).probabilities(run.splits["validation"]["text"][:])
result = {{
    "labels": run.label_names, "test rows": len(run.final_test()), "change": abs(again - y_prob).max(),
    "positives": (y_true == 1).sum(axis=0).tolist(), "model": json.loads((folder / "config.json").read_text()),
}}
open("result.json", "w").write(json.dumps(result))
"""


@pytest.mark.all
def test_the_full_profile_runs_from_the_hubs_names_to_answers(small_csv, tmp_path):
    """Offline: data in a folder of the hub data set's name, the checkpoint in a cache as the hub's client leaves it."""
    texts = pd.read_csv(small_csv)["text"].tolist()
    cached = tmp_path / "hf" / "hub" / "models--google-bert--bert-base-uncased"
    sizes = SIZES | {"max_position_embeddings": 130}
    tokenizer = word_pieces(texts)
    config = transformers.BertConfig(vocab_size=len(tokenizer), **sizes)
    transformers.BertForMaskedLM(config).save_pretrained(cached / "snapshots" / "abc123")
    tokenizer.save_pretrained(cached / "snapshots" / "abc123")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc123")
    rng = np.random.default_rng(0)
    (tmp_path / "zcamz" / "toxic").mkdir(parents=True)
    embedded = models.load_tokenizer(embedded_checkpoint())  # its vocabulary is that of bert-base-uncased
    for split in ("train", "validation", "test"):
        some = [f"{text} in {split}" for text in texts]
        encoded = dict(embedded(some, padding="max_length", truncation=True, max_length=128))
        labels = (rng.random((len(some), 6)) < 0.4).astype(float).tolist()
        encoded["labels"] = labels
        pd.DataFrame(encoded).to_parquet(tmp_path / "zcamz" / "toxic" / f"{split}.parquet")
    (tmp_path / "full.py").write_text(FULL.format(root=str(ROOT)))
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    for name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE"):
        environment.pop(name, None)
    command = [sys.executable, "full.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    table = {line[:18].strip(): line[18:].split()[0] for line in done.stdout.splitlines() if line[18:].strip()}
    assert (table["data set"], table["checkpoint"]) == ("zcamz/toxic,", "google-bert/bert-base-uncased")
    assert (table["max_len"], table["frozen"]) == ("128", "nothing")
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["labels"] == ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]
    assert result["test rows"] == 60
    assert min(result["positives"]) > 10
    assert result["model"]["architectures"] == ["BertForSequenceClassification"]
    assert set(result["model"]["thresholds"]) == set(result["labels"])
    assert result["change"] < 1e-5
