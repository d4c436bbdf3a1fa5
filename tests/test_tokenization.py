import numpy as np
import pytest
import torch

from helpers.data import label_matrix, read_splits
from helpers.models import load_tokenizer
from helpers.tokenization import MultiLabelCollator, MultiLabelDataset, tokenize_splits


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


def test_labels_the_loss_cannot_use_are_refused(tokenizer):
    collator, item = MultiLabelCollator(tokenizer), {"input_ids": [2, 3], "attention_mask": [1, 1]}
    with pytest.raises(ValueError, match="must be float32"):
        collator([{**item, "labels": [0, 1]}])
    with pytest.raises(ValueError, match=r"different lengths in one batch: \[1, 2\]"):
        collator([{**item, "labels": [0.0, 1.0]}, {**item, "labels": [0.0]}])


def test_tokenized_splits_keep_labels_and_agree_with_the_dataset(tokenizer, small_csv):
    splits = read_splits(small_csv)
    tokenized = tokenize_splits(splits, tokenizer, 8)["train"]
    data = MultiLabelDataset(splits["train"]["text"], label_matrix(splits["train"]), tokenizer, 8)
    assert tokenized["input_ids"][:] == [data[i]["input_ids"] for i in range(len(data))]
    assert max(len(ids) for ids in tokenized["input_ids"]) == 8
    assert np.array_equal(label_matrix(tokenized), label_matrix(splits["train"]))
