"""Shared fixtures: the embedded checkpoint, a very small random one, and data files made on the spot."""

import ast
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
APPENDIX = sorted((ROOT / "notebooks" / "appendix").glob("*.ipynb"))

os.environ.setdefault("MULTILABEL_COURSE_PRECISION", "fp32")  # the precision that every machine has
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def embedded():
    """Folder of the embedded model, converted."""
    from helpers.checkpoints import embedded_checkpoint

    return embedded_checkpoint()


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory):
    """A DistilBERT of a few thousand random weights, with a vocabulary of letters and a few words."""
    import torch
    from transformers import BertTokenizer, DistilBertConfig, DistilBertModel

    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *"abcdefghijklmnopqrstuvwxyz0123456789.",
        "good",
        "bad",
        "ugly",
        "text",
        "number",
    ]
    words += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz0123456789"]
    folder = tmp_path_factory.mktemp("small")
    torch.manual_seed(0)
    config = DistilBertConfig(
        vocab_size=len(words), dim=16, hidden_dim=32, n_layers=2, n_heads=2, max_position_embeddings=64
    )
    DistilBertModel(config).save_pretrained(folder)
    BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(folder)
    return folder


@pytest.fixture
def small_csv(tmp_path):
    """A CSV of 60 texts in which a word tells each label."""
    rng = np.random.default_rng(0)
    labels = rng.random((60, 3)) < [0.5, 0.4, 0.3]
    labels[:6] = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [0, 0, 0]]
    names = ["good", "bad", "ugly"]
    texts = [
        " ".join(["text", "number", str(i), *[n for n, on in zip(names, row, strict=True) if on]])
        for i, row in enumerate(labels)
    ]
    path = tmp_path / "small.csv"
    pd.DataFrame(
        {"text": texts, "labels": ["|".join(n for n, on in zip(names, row, strict=True) if on) for row in labels]}
    ).to_csv(path, index=False)
    return path


@pytest.fixture
def small_run(small_csv, small_checkpoint, tmp_path):
    """A Run on the small data and checkpoint."""
    from helpers.runtime import start_run

    return start_run(
        "test",
        "movies",
        dataset=str(small_csv),
        checkpoint=str(small_checkpoint),
        max_len=32,
        train_batch_size=8,
        valid_batch_size=8,
        epochs=2,
        learning_rate=1e-3,
        seed=1,
        output_dir=str(tmp_path / "build"),
    )


def shown(notebook, *names, **around):
    """Functions that only a notebook has, made from its text; `around`: what they take from its other cells."""
    path = ROOT / "notebooks" / "text" / f"{notebook}.py"
    nodes = [node for node in ast.parse(path.read_text("utf-8")).body if getattr(node, "name", None) in names]
    space = {"np": np, "pd": pd, **around}
    exec(compile(ast.Module(nodes, []), path, "exec"), space)
    return [space[name] for name in names]


def changed(run, **changes):
    """The same run with other settings; its folder stays."""
    return replace(run, settings=replace(run.settings, **changes))


TINY_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz0123456789.", "good", "bad"]
TINY_WORDS += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz0123456789"]


def tiny_tokenizer(words=TINY_WORDS, **options):
    """A WordPiece tokenizer with these words; pass pad_token=None and the like for a broken one."""
    from transformers import BertTokenizer

    return BertTokenizer(vocab={word: i for i, word in enumerate(words)}, **options)


def tiny_checkpoint(folder, kind="DistilBert", head=None, tokenizer=True, **config):
    """A checkpoint of two layers, 32 wide, of random weights, saved to a folder; returns the folder.

    `kind` is a family of transformers (DistilBert, Bert, Roberta...). `head`: what is to follow the name in the class
    (ForSequenceClassification...), default the encoder alone.
    """
    import torch
    import transformers

    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    if kind == "DistilBert":
        names = ("dim", "hidden_dim", "n_layers", "n_heads")
    sizes = dict(zip(names, (32, 32, 2, 2), strict=True)) | {"vocab_size": len(TINY_WORDS)}
    made = getattr(transformers, f"{kind}Config")(**{**sizes, "max_position_embeddings": 66, **config})
    torch.manual_seed(0)
    getattr(transformers, f"{kind}{head or 'Model'}")(made).save_pretrained(folder)
    if tokenizer:
        tiny_tokenizer().save_pretrained(folder)
    return folder


def with_unknown(run, share=0.3):
    """The same run with a share of its label cells unknown, in other rows for each label; its folder stays."""
    from helpers.data import UNKNOWN, label_matrix

    splits = type(run.splits)(run.splits)
    for name, part in run.splits.items():
        y = label_matrix(part)
        y[np.random.default_rng(0).random(y.shape) < share] = UNKNOWN
        splits[name] = part.map(lambda row, i, y=y: {"labels": y[i]}, with_indices=True)
    return replace(run, splits=splits)
