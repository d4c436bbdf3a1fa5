"""What the weighting of positives does to score and probabilities: six losses, five seeds, two data sets.

python benchmarks/weighting.py [GOEMOTIONS]    GOEMOTIONS: a folder with train.csv.gz, dev.csv.gz and test.csv.gz

Notebook 4's training with no weights, with the square root of n_neg / n_pos, with the ratio itself, with scikit-learn's
"balanced" n / (2 n_pos), and with two losses that weigh each cell by how well it is answered already: focal (Lin et
al., 2017, arXiv:1708.02002, gamma 2) and asymmetric (Ridnik et al., 2021, arXiv:2009.14119: gamma 0 for positives, 4
for negatives, margin .05). The built-in comments, and 2,000 training rows of GoEmotions. A row a label; cuts are tuned
on validation. "Undone" are the probabilities p / (p + w (1 - p)). Results: results/weighting.csv.
"""

import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import recipes
import torch
from common import save_results
from sklearn.metrics import brier_score_loss, f1_score, log_loss
from torch.nn.functional import logsigmoid

from helpers import training
from helpers.data import label_matrix
from helpers.labels import count_positives, label_shares
from helpers.metrics import label_average_precision
from helpers.thresholds import tune_thresholds

BOTH = ("validation", "test")


def focal(logits, labels, gamma=2):
    """Focal loss of each cell, float tensor of shape (n_examples, n_labels)."""
    signed = torch.where(labels == 1, logits, -logits)
    return -(torch.sigmoid(-signed) ** gamma) * logsigmoid(signed)


def asymmetric(logits, labels, gamma=4, margin=0.05):
    """Asymmetric loss of each cell, float tensor of shape (n_examples, n_labels); plain for positives."""
    no = (torch.sigmoid(logits) - margin).clamp(min=0)
    return torch.where(labels == 1, -logsigmoid(logits), -(no**gamma) * torch.log1p(-no))


def loss_of(cells, model, inputs, return_outputs=False, num_items_in_batch=None):
    """What `compute_loss` does, for a loss of cells; every cell is known here."""
    outputs = model(**{name: value for name, value in inputs.items() if name != "labels"})
    loss = cells(outputs.logits.float(), inputs["labels"]).sum() / (num_items_in_batch or inputs["labels"].numel())
    return (loss, outputs) if return_outputs else loss


def with_loss(cells):
    """What gives a Trainer a loss of cells; None where the one it has stays."""
    return cells and (lambda course: setattr(course, "compute_loss", partial(loss_of, cells)))


def weightings(y_train):
    """{name: (pos_weight or None, a loss of cells or None)}."""
    n_pos = torch.from_numpy(count_positives(y_train)).float()
    return {
        "none": (None, None),
        "sqrt": (training.pos_weights(y_train, cap=np.inf), None),
        "full": (training.pos_weights(y_train, power=1, cap=np.inf), None),
        "balanced": (len(y_train) / (2 * n_pos), None),
        "focal": (None, focal),
        "asymmetric": (None, asymmetric),
    }


def per_label(y_true, y_prob, cuts, weight):
    """Columns of the results, an array of shape (n_labels,) each."""
    known = {
        "positives": count_positives(y_true),
        "AP": label_average_precision(y_true, y_prob),
        "F1 at 0.5": f1_score(y_true, y_prob >= 0.5, average=None, zero_division=0),
        "tuned F1": f1_score(y_true, y_prob >= cuts, average=None, zero_division=0),
        "mean probability": y_prob.mean(axis=0),
        "true share": label_shares(y_true),
    }
    undone = None if weight is None else y_prob / (y_prob + weight * (1 - y_prob))
    for suffix, prob in (("", y_prob), (" undone", undone)):
        for name, score in (("Brier", brier_score_loss), ("log loss", partial(log_loss, labels=[0, 1]))):
            pairs = () if prob is None else zip(y_true.T, prob.T.clip(1e-7, 1 - 1e-7), strict=True)
            known[name + suffix] = [score(true, column) for true, column in pairs] or np.nan
    return known


def rows(name, run, splits, seed):
    """A row a weighting, split and label."""
    batches = recipes.loaders(run, splits, BOTH)
    for weighting, (pos_weight, cells) in weightings(label_matrix(splits["train"])).items():
        course = recipes.by_trainer(run, seed, pos_weight, run.settings.epochs, change=with_loss(cells))
        model = recipes.Library(course.model)
        found = {split: training.validation(model, batches[split], run.compute) for split in BOTH}
        cuts = tune_thresholds(*found["validation"])
        weight = None if cells else 1 if pos_weight is None else pos_weight.double().numpy()
        for split, (y_true, y_prob) in found.items():
            columns = per_label(y_true, y_prob.astype(float), cuts, weight)
            print(f"{name}, seed {seed}, {weighting}, {split}: {np.nanmean(columns['AP']):.3f}", flush=True)
            key = {"dataset": name, "weighting": weighting, "seed": seed, "split": split, "label": run.label_names}
            yield pd.DataFrame(key | columns)


def main(goemotions=None):
    table = []
    with tempfile.TemporaryDirectory() as folder:
        sets = {"comments": "comments"}
        if goemotions:
            sets["goemotions, 2,000 rows"] = recipes.some_goemotions(goemotions, Path(folder) / "goemotions.csv")
        opened = {name: recipes.open_run(source) for name, source in sets.items()}
        for seed in recipes.SEEDS:
            for name, (run, splits) in opened.items():
                table += rows(name, run, splits, seed)
                save_results("weighting", pd.concat(table))


if __name__ == "__main__":
    main(*sys.argv[1:2])
