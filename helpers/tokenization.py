"""From text to padded tensors, and from token ids back to text."""

import os
import tempfile

import numpy as np
import pandas as pd
import torch
from datasets import DatasetDict
from datasets.fingerprint import get_temporary_cache_files_directory
from torch.utils.data import Dataset

from helpers.labels import LISTS


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

    Returns a dict of tensors: input_ids and attention_mask, int64 of shape (batch, longest), and labels, float32 of
    shape (batch, n_labels).

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
                "labels must be floating point, float32 as the logits are: BCEWithLogitsLoss takes no integers and no booleans. Convert them with .astype('float32')"
            )
        if len({tuple(vector.shape) for vector in labels}) > 1:
            raise ValueError(
                f"label vectors of different lengths in one batch: {sorted({len(v) for v in labels})}. Every row needs one number a label"
            )
        batch["labels"] = torch.stack(labels).to(torch.float32)
        return batch


def tokenize_splits(splits, tokenizer, max_len, num_proc=None):
    """Add input_ids and attention_mask to every split; texts are cut at max_len tokens.

    The result is written to disk, in Arrow, as it is made and read from there, so that memory does not grow with the
    number of rows. It is deleted when Python ends.

    Parameters
    ----------
    splits : datasets.DatasetDict, or dict of datasets.Dataset
    tokenizer : transformers tokenizer
    max_len : int
    num_proc : int, optional
        Number of processes; default: one for each 20,000 rows, up to the number of cores.

    Returns
    -------
    datasets.DatasetDict
    """
    if num_proc is None:
        num_proc = min(os.cpu_count() or 1, max(part.num_rows for part in splits.values()) // 20_000)

    def tokenize(batch):
        return tokenizer(batch["text"], truncation=True, max_length=max_len, return_token_type_ids=False)

    folder = tempfile.mkdtemp(dir=get_temporary_cache_files_directory())
    files = {name: os.path.join(folder, f"{name}.arrow") for name in splits}
    options = {"batched": True, "cache_file_names": files, "num_proc": num_proc if num_proc > 1 else None}
    return DatasetDict(splits).map(tokenize, desc="Tokenizing", **options)


def share_cut(texts, tokenizer, max_len):
    """What a MAX_LEN throws away: (share of the texts that are cut, share of all tokens that are cut off).

    Parameters
    ----------
    texts : sequence of str
    tokenizer : transformers tokenizer
    max_len : int
        Special tokens included.
    """
    encoded = tokenizer(list(texts), return_token_type_ids=False, return_attention_mask=False, verbose=False)
    n_tokens = np.array([len(ids) for ids in encoded["input_ids"]])
    over = np.maximum(n_tokens - max_len, 0)
    return float(np.mean(over > 0)), float(over.sum() / n_tokens.sum())


def decode_texts(ids, tokenizer, faults, notes):
    """Texts of a data set that comes as `input_ids`, with the special tokens and the padding taken off.

    Parameters
    ----------
    ids : pandas.Series of lists of int
    tokenizer : str or None
        Folder or hub name of the tokenizer that made them; None for the embedded one.
    faults, notes : as in `helpers.labels.labels_from_cells`

    Returns
    -------
    pandas.Series of str, or None where a fault is such that there are no texts
    """
    from helpers import checkpoints, models

    name = tokenizer or "the embedded tokenizer"
    tokenizer = models.load_tokenizer(tokenizer or checkpoints.embedded_checkpoint())
    remedy = "name the one they were made with: read_splits(..., tokenizer=...)"
    rows, kind = ids.to_list(), pd.api.types.infer_dtype
    if not all(isinstance(row, LISTS) and kind(row, skipna=False) in ("integer", "empty") for row in rows):
        faults.add_whole("column 'input_ids' does not hold lists of ids; give the data as .parquet or .jsonl")
        return None
    outside = [i for i, row in enumerate(rows) if not len(row) or min(row) < 0 or max(row) >= len(tokenizer)]
    for i in outside:
        what = f"id {max(rows[i])} is not" if len(rows[i]) else "there is no id"
        faults.add(i, "input_ids", f"{what} in the vocabulary of {name} ({len(tokenizer):,} pieces); {remedy}")
    if outside or not rows:
        return None
    starts = {int(row[0]) for row in rows}
    if len(rows) > 1 and len(starts) == 1 and starts != {tokenizer.cls_token_id}:
        piece = tokenizer.convert_ids_to_tokens(starts.pop())
        what = f"every row starts with what is {piece!r} there, not with {tokenizer.cls_token}"
        faults.add_whole(f"column 'input_ids': these are not the ids of {name} ({what}); {remedy}")
        return None
    special = {tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id}
    rows = [[i for i in row if i not in special] for row in rows]
    text = pd.Series(tokenizer.batch_decode(rows), dtype="str")
    sample = np.linspace(0, len(rows) - 1, min(len(rows), 200)).astype(int)
    again = tokenizer(text.iloc[sample].to_list(), add_special_tokens=False, verbose=False)["input_ids"]
    kept = np.mean([rows[i] == row for i, row in zip(sample, again, strict=True)])
    if kept < 0.8:
        what = f"of {len(sample)} rows, decoded and tokenized again, {kept:.0%} give the same ids"
        faults.add_whole(f"column 'input_ids': these are not the ids of {name} ({what}); {remedy}")
    empty = (text.str.strip() == "").to_numpy()
    faults.add(np.flatnonzero(empty), "input_ids", "the text is empty; delete the row")
    notes.append(f"the texts were decoded from ids with {name}: capitals and cut ends are not in them")
    return text
