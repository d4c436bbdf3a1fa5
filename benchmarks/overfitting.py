"""Twelve epochs on the built-in comments: when does validation turn? Three seeds, notebook 4's Trainer.

python benchmarks/overfitting.py

The course's recipe, and the same with all layers trained. The rate decays to zero over the twelve epochs in both; no
epoch is chosen. Losses are the weighted ones that are trained on. All of it on validation; the test split is not read.
Results: results/overfitting.csv.
"""

import pandas as pd
import recipes
from common import save_results

from helpers import training
from helpers.data import label_matrix
from helpers.metrics import decision_scores
from helpers.models import to_probabilities
from helpers.trainer import compute_metrics

SEEDS, EPOCHS = (1, 2, 3), 12
RECIPES = {"the course's": True, "all layers": False}  # are the lower layers frozen?


def with_f1(prediction):
    """What the course watches, and the macro F1 of decisions at 0.5."""
    decided = decision_scores(prediction.label_ids, to_probabilities(prediction.predictions))
    return {**compute_metrics(prediction), "f1": decided["F1 macro"]}


def watch_f1(course):
    course.compute_metrics = with_f1


def rows(run, splits, seed, recipe):
    """A row an epoch."""
    weights = training.pos_weights(label_matrix(splits["train"]))
    arguments = {"save_strategy": "no", "load_best_model_at_end": False}
    course = recipes.by_trainer(run, seed, weights, EPOCHS, RECIPES[recipe], watch_f1, **arguments)
    history = course.state.log_history
    trained = [row["loss"] for row in history if "loss" in row]
    evaluated = [row for row in history if "eval_loss" in row]
    for epoch, (loss, row) in enumerate(zip(trained, evaluated, strict=True), start=1):
        yield {
            "dataset": "comments",
            "recipe": recipe,
            "seed": seed,
            "epoch": epoch,
            "training loss": loss,
            "validation loss": row["eval_loss"],
            "macro-AP": row["eval_macro_ap"],
            "F1 macro": row["eval_f1"],
        }


def main():
    table = []
    run, splits = recipes.open_run("comments")
    for seed in SEEDS:
        for recipe in RECIPES:
            table += rows(run, splits, seed, recipe)
            save_results("overfitting", pd.DataFrame(table))


if __name__ == "__main__":
    main()
