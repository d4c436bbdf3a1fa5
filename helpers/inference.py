"""From a saved folder to decisions about new texts."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.checkpoints import examine, local_folder
from helpers.metrics import decide
from helpers.settings import MIN_LENGTH

THRESHOLD = 0.5  # where a model carries none
LENGTH = 512  # tokens, where neither tokenizer nor model says how many
NO_LENGTH = 1_000_000  # a tokenizer without a length of its own says 1e30


class Predictor:
    """A fine-tuned model folder as a function from texts to probabilities and labels.

    Weights, tokenizer, label names, thresholds and the length at which texts are cut travel in the folder. Without
    thresholds in the config a label is decided at 0.5.

    Parameters
    ----------
    folder : path
        Written by `save_pretrained` (the model and its tokenizer).
    device : torch.device or str
    max_len : int, optional
        Longer texts are cut at this number of tokens. Default: the tokenizer's `model_max_length`, which is the
        MAX_LEN of the training, as far as the model can read.

    Raises
    ------
    FileNotFoundError
        When the folder holds no model.
    helpers.checkpoints.CheckpointError
        When its tokenizer or weights are missing or damaged, those of the head too.
    ValueError
        When its config has no multi-label problem type, two labels of one name, or thresholds that are no numbers from
        0 to 1 or not those of its labels; when max_len is more than the model can read.
    """

    def __init__(self, folder, device="cpu", max_len=None):
        from transformers import pipeline

        from helpers.models import load_model, load_tokenizer

        folder = local_folder(folder) or Path(folder)
        if not (folder / "config.json").exists():
            raise FileNotFoundError(
                f"{folder} holds no saved model (no config.json); run notebook 04 first, or give another folder"
            )
        limit = examine(folder).longest_input
        model, tokenizer = load_model(folder), load_tokenizer(folder)
        if model.config.problem_type != "multi_label_classification":
            raise ValueError(
                f"{folder}: problem_type is {model.config.problem_type!r}, so probabilities would come from a softmax; "
                "save the model with problem_type='multi_label_classification'"
            )
        self.label_names = saved_labels(model.config, folder)
        self.thresholds = saved_thresholds(model.config, self.label_names, folder)
        self.max_len = cut_length(max_len, tokenizer.model_max_length, limit)
        self.pipeline = pipeline("text-classification", model=model, tokenizer=tokenizer, device=device)

    def probabilities(self, texts, batch_size=32):
        """Float array of shape (n_texts, n_labels), the columns in the order of `label_names`.

        Parameters
        ----------
        texts : list, column or iterator of str
        batch_size : int

        Raises
        ------
        TypeError
            When `texts` is one string or a whole table instead of a list, or holds something that is no text.
        ValueError
            When a text is empty.
        """
        texts = checked_texts(texts)
        if not texts:
            return np.zeros((0, len(self.label_names)))
        answers = self.pipeline(texts, top_k=None, truncation=True, max_length=self.max_len, batch_size=batch_size)
        # The pipeline sorts each answer by score: put the columns back by name.
        by_name = [{item["label"]: item["score"] for item in answer} for answer in answers]
        return np.array([[scores[name] for name in self.label_names] for scores in by_name])

    def __call__(self, texts):
        """A DataFrame: text, the labels decided by the thresholds, and a probability column a label.

        A label that is itself called "text" or "labels" has its probability in the column "p(text)" or "p(labels)".
        """
        texts = checked_texts(texts)
        y_prob = self.probabilities(texts)
        decided = [
            [name for name, on in zip(self.label_names, row, strict=True) if on]
            for row in decide(y_prob, self.thresholds)
        ]
        table = pd.DataFrame(y_prob, columns=probability_columns(self.label_names))
        table.insert(0, "labels", decided)
        table.insert(0, "text", texts)
        return table


def checked_texts(texts):
    """The texts as a list; see `Predictor.probabilities` for what is refused."""
    if isinstance(texts, (str, bytes)):
        raise TypeError("give a list of texts, not one string: predictor(['...'])")
    if isinstance(texts, (pd.DataFrame, Mapping)) or hasattr(texts, "column_names"):
        kind = type(texts).__name__
        raise TypeError(f"give the column of texts, not the whole {kind}: predictor(frame['text'])")
    if not isinstance(texts, Iterable):
        raise TypeError(f"give a list of texts, not {texts!r}: predictor(['...'])")
    texts = list(texts)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"text {i} is {text!r}; every text is a string")
        if not text.strip():
            raise ValueError(f"text {i} is empty; leave it out, a model's answer to nothing means nothing")
    return texts


def probability_columns(label_names):
    """A column name a label: its own, but "p(text)" for a label called "text", and likewise for "labels"."""
    taken, columns = {"text", "labels", *label_names}, []
    for name in label_names:
        column = name
        while column in ("text", "labels") or (column != name and column in taken):
            column = f"p({column})"
        columns.append(column)
    return columns


def saved_labels(config, folder):
    """The label names of a saved model, in order; ValueError where they are not one a number, each different."""
    names = [config.id2label[i] for i in sorted(config.id2label)]
    if sorted(config.id2label) != list(range(len(names))):
        raise ValueError(f"{folder}: id2label numbers the labels {sorted(config.id2label)}; it takes 0, 1, 2 and so on")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{folder}: two labels have the name {twice[0]!r}; give each its own in id2label")
    return names


def saved_thresholds(config, label_names, folder):
    """Float array of shape (n_labels,): the thresholds in a saved model's config, 0.5 each where it has none.

    ValueError where they cannot be used.
    """
    thresholds = getattr(config, "thresholds", dict.fromkeys(label_names, THRESHOLD))
    if not isinstance(thresholds, Mapping):
        raise ValueError(
            f"{folder}: thresholds is {thresholds!r}; it takes a number a label, as {{{label_names[0]!r}: 0.5}}, or "
            "nothing at all for 0.5"
        )
    if set(thresholds) != set(label_names):
        without, unknown = (
            sorted(a - b) for a, b in ((set(label_names), set(thresholds)), (set(thresholds), set(label_names)))
        )
        raise ValueError(
            f"{folder}: the thresholds are for other labels: without one are {without}, unknown to the model {unknown}; "
            "choose them anew, as notebook 05 does"
        )
    for name, value in thresholds.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise ValueError(f"{folder}: the threshold of {name!r} is {value!r}; it takes a number from 0 to 1")
    return np.array([thresholds[name] for name in label_names], dtype=float)


def cut_length(max_len, of_tokenizer, limit):
    """Tokens at which texts are cut: `max_len`, or the tokenizer's length as far as the model reads (`limit`)."""
    if max_len is None:
        length = of_tokenizer if of_tokenizer < NO_LENGTH else limit or LENGTH
        return max(MIN_LENGTH, int(min(length, limit or length)))
    if not isinstance(max_len, int) or isinstance(max_len, bool) or max_len < MIN_LENGTH:
        raise ValueError(f"max_len is {max_len!r}; it takes a whole number from {MIN_LENGTH} up")
    if limit and max_len > limit:
        raise ValueError(f"max_len is {max_len}, and the model reads at most {limit} tokens; lower it")
    return max_len
