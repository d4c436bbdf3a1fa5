"""From a saved folder to decisions about new texts."""

from pathlib import Path

import numpy as np
import pandas as pd

from helpers.metrics import decide


class Predictor:
    """A fine-tuned model folder as a function from texts to probabilities and labels.

    Weights, tokenizer, label names and thresholds travel in the folder.

    Parameters
    ----------
    folder : path
        Written by `save_pretrained` (the model and its tokenizer).
    device : torch.device or str
    max_len : int
        Longer texts are cut at this number of tokens.

    Raises
    ------
    FileNotFoundError
        When the folder holds no model.
    ValueError
        When its config has no multi-label problem type, or thresholds for other labels.
    """

    def __init__(self, folder, device="cpu", max_len=128):
        from transformers import pipeline

        from helpers.models import load_model, load_tokenizer

        folder = Path(folder)
        if not (folder / "config.json").exists():
            raise FileNotFoundError(
                f"{folder} holds no saved model (no config.json); run notebook 04 first, or give another folder"
            )
        model = load_model(folder)
        if model.config.problem_type != "multi_label_classification":
            raise ValueError(
                f"{folder}: problem_type is {model.config.problem_type!r}, so probabilities would come from a softmax; "
                "save the model with problem_type='multi_label_classification'"
            )
        self.label_names = [model.config.id2label[i] for i in range(model.config.num_labels)]
        thresholds = getattr(model.config, "thresholds", None) or dict.fromkeys(self.label_names, 0.5)
        if set(thresholds) != set(self.label_names):
            raise ValueError(
                f"{folder}: the thresholds are for {sorted(thresholds)}, the model's labels are {sorted(self.label_names)}"
            )
        self.thresholds = np.array([thresholds[name] for name in self.label_names])
        self.pipeline = pipeline("text-classification", model=model, tokenizer=load_tokenizer(folder), device=device)
        self.max_len = max_len

    def probabilities(self, texts, batch_size=32):
        """Float array of shape (n_texts, n_labels), the columns in the order of `label_names`.

        Raises
        ------
        TypeError
            When `texts` is one string instead of a list, or holds something that is no text.
        ValueError
            When a text is empty.
        """
        if isinstance(texts, str):
            raise TypeError("give a list of texts, not one string: predictor(['...'])")
        texts = list(texts)
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"text {i} is {text!r}; every text is a string")
            if not text.strip():
                raise ValueError(f"text {i} is empty; leave it out, a model's answer to nothing means nothing")
        if not texts:
            return np.zeros((0, len(self.label_names)))
        answers = self.pipeline(texts, top_k=None, truncation=True, max_length=self.max_len, batch_size=batch_size)
        # The pipeline sorts each answer by score: put the columns back by name.
        by_name = [{item["label"]: item["score"] for item in answer} for answer in answers]
        return np.array([[scores[name] for name in self.label_names] for scores in by_name])

    def __call__(self, texts):
        """A DataFrame: text, the labels decided by the thresholds, and a probability column a label."""
        y_prob = self.probabilities(texts)
        decided = [
            [name for name, on in zip(self.label_names, row, strict=True) if on]
            for row in decide(y_prob, self.thresholds)
        ]
        table = pd.DataFrame(y_prob, columns=self.label_names)
        table.insert(0, "labels", decided)
        table.insert(0, "text", list(texts))
        return table
