"""All of GoEmotions: the course's recipe, averaged weights, counted words, and blends with these.

python benchmarks/all_goemotions.py GOEMOTIONS    GOEMOTIONS: a folder with train.csv.gz, dev.csv.gz and test.csv.gz

One training, as in benchmarks/recipes.py; beside it the moving average of the weights of benchmarks/averaging.py.
The counted words are the linear SVM. What is chosen is chosen by validation; thresholds are from validation, too, and
test is scored once. Seconds: from texts to test probabilities. Results: results/all_goemotions.csv.
"""

import sys
import tempfile
import time
from pathlib import Path

import averaging
import pandas as pd
import recipes
from common import save_results

from helpers import models, training
from helpers.data import label_matrix
from helpers.metrics import decision_scores, macro_average_precision
from helpers.thresholds import trusted_thresholds, tune_thresholds

BOTH = ("validation", "test")
DECAY = 0.999


def fine_tuned(run, splits):
    """({model: {split: probabilities}}, {model: seconds}), with and without averaged weights."""
    answers, seconds, start = {}, {}, time.perf_counter()
    recipe = recipes.ladder()[recipes.COURSE]
    model, put, best = averaging.train(recipe, run, splits, seed=1, decays=(DECAY,))
    taken, loaders = time.perf_counter() - start, recipes.loaders(run, splits, BOTH)
    for decay, (_, parameters) in best.items():
        start, name = time.perf_counter(), "averaged weights" if decay else "fine-tuned"
        put(parameters)
        answers[name] = {split: training.validation(model, loaders[split], run.compute)[1] for split in BOTH}
        seconds[name] = taken + time.perf_counter() - start
    return answers, seconds


def main(goemotions):
    with tempfile.TemporaryDirectory() as folder:
        source = recipes.some_goemotions(goemotions, Path(folder) / "goemotions.csv", None, None)
        run, splits = recipes.open_run(source)
    y_true = {split: label_matrix(splits[split]) for split in BOTH}
    answers, seconds = fine_tuned(run, splits)
    start = time.perf_counter()
    texts = splits["train"]["text"][:]
    y_train, n_valid = label_matrix(splits["train"]), len(y_true["validation"])
    y_prob = models.linear_svm(texts, y_train, [text for split in BOTH for text in splits[split]["text"][:]])
    svm = {"validation": y_prob[:n_valid], "test": y_prob[n_valid:]}
    seconds["linear SVM"] = time.perf_counter() - start
    for name, own in list(answers.items()):
        reference = own["validation"], svm["validation"]
        blended = f"{name}, blended with the SVM"
        answers[blended] = {split: models.blend([own[split], svm[split]], reference) for split in BOTH}
        seconds[blended] = seconds[name] + seconds["linear SVM"]
    rows = []
    for name, y_prob in {**answers, "linear SVM": svm}.items():
        known = y_true["validation"], y_prob["validation"]
        cuts = {
            "0.5": 0.5,
            "highest F1": tune_thresholds(*known),
            "the course's": trusted_thresholds(*known)["threshold"],
        }
        scores = {rule: decision_scores(y_true["test"], y_prob["test"], cut)["F1 macro"] for rule, cut in cuts.items()}
        points = {f"{split} macro-AP": macro_average_precision(y_true[split], y_prob[split]) for split in BOTH}
        rows.append({"model": name, "rows": len(texts), **points, **scores, "seconds": seconds[name]})
    save_results("all_goemotions", pd.DataFrame(rows))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        print("all_goemotions: give the folder with GoEmotions' three files")
