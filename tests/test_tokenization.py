import logging

import numpy as np
import pytest
import torch

from helpers.data import label_matrix, read_splits
from helpers.models import load_model, load_tokenizer
from helpers.tokenization import MultiLabelCollator, MultiLabelDataset, share_cut, tokenize_splits


@pytest.fixture
def tokenizer(small_checkpoint):
    return load_tokenizer(small_checkpoint)


def test_items_are_cut_but_not_padded(tokenizer):
    data = MultiLabelDataset(["good", "good bad ugly " * 20], np.eye(2, dtype=np.float32), tokenizer, max_len=12)
    assert len(data) == 2
    assert [len(data[i]["input_ids"]) for i in range(2)] == [3, 12]
    assert data[1]["labels"].dtype == torch.float32
    assert data[1]["labels"].tolist() == [0, 1]


def test_a_batch_is_padded_to_its_longest_and_masked(tokenizer):
    data = MultiLabelDataset(["good", "good bad ugly"], np.eye(2), tokenizer, max_len=12)
    batch = MultiLabelCollator(tokenizer)([data[0], data[1]])
    assert batch["input_ids"].shape == (2, 5)
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch["input_ids"].dtype == torch.int64
    assert batch["labels"].dtype == torch.float32
    assert batch["labels"].tolist() == [[1, 0], [0, 1]]


def test_what_is_cut_is_counted_in_texts_and_tokens_without_a_warning(tokenizer, caplog):
    tokenizer.model_max_length = 5
    logging.getLogger("transformers").addHandler(caplog.handler)  # it does not propagate
    assert share_cut(["good", "good bad ugly good", "bad good"], tokenizer, 4) == (1 / 3, 2 / 13)
    assert share_cut(["good", "bad"], tokenizer, 3) == (0, 0)
    logging.getLogger("transformers").removeHandler(caplog.handler)
    assert not caplog.records


def test_labels_the_loss_cannot_use_are_refused(tokenizer):
    collator, item = MultiLabelCollator(tokenizer), {"input_ids": [2, 3], "attention_mask": [1, 1]}
    message = "must be floating point, float32 as the logits are: BCEWithLogitsLoss takes no integers and no booleans"
    for refused in ([0, 1], [True, False], np.array([0, 1], np.uint8)):
        with pytest.raises(ValueError, match=message):
            collator([{**item, "labels": refused}])
        with pytest.raises(RuntimeError):
            torch.nn.functional.binary_cross_entropy_with_logits(torch.zeros(2), torch.as_tensor(refused))
    for taken in (np.float16, np.float32, np.float64):
        batch = collator([{**item, "labels": np.array([0, 1], taken)}])
        assert batch["labels"].dtype == torch.float32
    with pytest.raises(ValueError, match=r"different lengths in one batch: \[1, 2\]"):
        collator([{**item, "labels": [0.0, 1.0]}, {**item, "labels": [0.0]}])


def test_tokenized_splits_keep_labels_and_agree_with_the_dataset(tokenizer, small_csv):
    splits = read_splits(small_csv)
    tokenized = tokenize_splits(splits, tokenizer, 8)["train"]
    data = MultiLabelDataset(splits["train"]["text"], label_matrix(splits["train"]), tokenizer, 8)
    assert tokenized["input_ids"][:] == [data[i]["input_ids"] for i in range(len(data))]
    assert max(len(ids) for ids in tokenized["input_ids"]) == 8
    assert np.array_equal(label_matrix(tokenized), label_matrix(splits["train"]))


def test_tokenized_splits_lie_on_disk_also_from_two_processes(tokenizer, small_csv):
    splits = read_splits(small_csv)
    assert not splits["train"].cache_files, "the source is in memory"
    alone = tokenize_splits(splits, tokenizer, 8)
    together = tokenize_splits(splits, tokenizer, 8, num_proc=2)
    for tokenized in (alone, together):
        assert tokenized["train"].cache_files
        assert tokenized["train"]["input_ids"][:] == alone["train"]["input_ids"][:]
    assert len(together["train"].cache_files) == 2


def test_longformer_runs_in_the_same_code(tokenizer, tmp_path, small_csv):
    """A tiny one with random weights, on texts longer than its attention window: loader, training, saving, loading."""
    from transformers import LongformerConfig, LongformerModel

    config = LongformerConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        attention_window=[8, 8],
        max_position_embeddings=130,
        pad_token_id=tokenizer.pad_token_id,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    torch.manual_seed(0)
    LongformerModel(config).save_pretrained(tmp_path / "longformer")
    tokenizer.save_pretrained(tmp_path / "longformer")
    model = load_model(tmp_path / "longformer", ["a", "b", "c"])
    texts = ["good text", "bad " * 15, "ugly number " * 50]
    data = MultiLabelDataset(texts, np.eye(3, dtype=np.float32), load_tokenizer(tmp_path / "longformer"), 120)
    batch = MultiLabelCollator(tokenizer)([data[i] for i in range(3)])
    assert batch["input_ids"].shape == (3, 102)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for _ in range(40):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    model.save_pretrained(tmp_path / "tuned")
    again = load_model(tmp_path / "tuned")
    with torch.inference_mode():
        assert torch.equal(again(**batch).logits, model.eval()(**batch).logits)
