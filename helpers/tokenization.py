"""From text to padded tensors."""

import torch
from torch.utils.data import Dataset


class MultiLabelDataset(Dataset):
    """Texts and label vectors for a DataLoader; tokenized once, padded later, batch by batch.

    Parameters
    ----------
    texts : sequence of str
    labels : float32 array of shape (n_examples, n_labels)
    tokenizer : transformers tokenizer
    max_len : int
        Longer texts are cut to this number of tokens, special tokens included.
    """

    def __init__(self, texts, labels, tokenizer, max_len):
        self.encodings = tokenizer(list(texts), truncation=True, max_length=max_len, return_token_type_ids=False)
        self.labels = torch.as_tensor(labels, dtype=torch.float32)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        item = {name: values[index] for name, values in self.encodings.items()}
        return {**item, "labels": self.labels[index]}


class MultiLabelCollator:
    """Pads a list of items to the longest of them and stacks their labels.

    Returns a dict of tensors: input_ids and attention_mask, int64 of shape (batch, longest), and labels, float32 of shape
    (batch, n_labels).

    Raises
    ------
    ValueError
        When a label vector is not floating point or differs in length from the others.
    """

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __call__(self, items):
        inputs = [{name: item[name] for name in ("input_ids", "attention_mask")} for item in items]
        batch = dict(self.tokenizer.pad(inputs, return_tensors="pt"))
        labels = [torch.as_tensor(item["labels"]) for item in items]
        if any(not vector.is_floating_point() for vector in labels):
            raise ValueError(
                "labels must be float32, one number a label: BCEWithLogitsLoss cannot use integers. Convert them with .astype('float32')"
            )
        if len({tuple(vector.shape) for vector in labels}) > 1:
            raise ValueError(
                f"label vectors of different lengths in one batch: {sorted({len(v) for v in labels})}. Every row needs one number a label"
            )
        batch["labels"] = torch.stack(labels).to(torch.float32)
        return batch


def tokenize_splits(splits, tokenizer, max_len):
    """Add input_ids and attention_mask to every split of a DatasetDict; texts are cut at max_len tokens."""

    def tokenize(batch):
        return tokenizer(batch["text"], truncation=True, max_length=max_len, return_token_type_ids=False)

    return splits.map(tokenize, batched=True)
