"""The course's recipe with other batches, and without one of its steps at a time: built-in film plots, five seeds.

python benchmarks/one_step_less.py

Batches: texts of similar length or mixed, 8 or 16 of them, everything else as in the recipe. Steps:
benchmarks/recipes.py adds one after another; here each is taken out of the whole recipe, so that what it brings beside
all others can be read, and warm-up and decay, which came together there, are taken out apart as well. All of it on
validation; the test split is not read. Results: results/batches.csv, results/one_step_less.csv.
"""

from dataclasses import replace

import pandas as pd
import recipes
from common import save_results

WHOLE = "similar lengths, 16"
BATCHES = {
    WHOLE: {},
    "mixed lengths, 16": {"order": "mixed"},
    "similar lengths, 8": {"batch_size": 8},
    "mixed lengths, 8": {"order": "mixed", "batch_size": 8},
}
WITHOUT = {
    "warm-up and decay": {"warm_up": False, "decay": False},
    "warm-up": {"warm_up": False},
    "decay": {"decay": False},
    "head at 10x the rate": {"head_rate": 1},
    "weight decay": {"weight_decay": 0.0},
    "clipped gradients": {"clip": False},
    "weighted positives": {"power": 0.0},
    "frozen lower layers": {"freeze": False},
    "mean pooling": {"mean_pooling": False},
}


def trained(name, change, run, splits):
    """The course's recipe with one change: a row a seed, on validation."""
    recipe = replace(recipes.ladder()[recipes.COURSE], **change)
    return list(recipes.trained_rows("movies", name, recipe, run, splits, ["validation"]))


def main():
    run, splits = recipes.open_run("movies")
    batches = [row for name, change in BATCHES.items() for row in trained(name, change, run, splits)]
    save_results("batches", pd.DataFrame(batches))
    table = [row | {"model": "the whole recipe"} for row in batches if row["model"] == WHOLE]
    for name, change in WITHOUT.items():
        table += trained(f"without {name}", change, run, splits)
        save_results("one_step_less", pd.DataFrame(table))


if __name__ == "__main__":
    main()
