"""All of GoEmotions: the course's recipe, counted words and their blend, one training each.

python benchmarks/all_goemotions.py GOEMOTIONS    GOEMOTIONS: a folder with train.csv.gz, dev.csv.gz and test.csv.gz

The recipe is that of benchmarks/recipes.py, the counted words are the linear SVM; thresholds from validation,
scores on test. Seconds: from texts to test probabilities. Results: results/all_goemotions.csv.
"""

import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import recipes
from common import save_results

from helpers import models, training
from helpers.data import label_matrix
from helpers.metrics import decision_scores, macro_average_precision
from helpers.thresholds import trusted_thresholds, tune_thresholds

BOTH = ("validation", "test")


def main(goemotions):
    with tempfile.TemporaryDirectory() as folder:
        source = recipes.some_goemotions(goemotions, Path(folder) / "goemotions.csv", None, None)
        run, splits = recipes.open_run(source)
    y_true = {split: label_matrix(splits[split]) for split in BOTH}
    start = time.perf_counter()
    model, _ = recipes.train(recipes.ladder()[recipes.COURSE], run, splits, seed=1)
    loaders = recipes.loaders(run, splits, BOTH)
    answers = {"fine-tuned": {split: training.validation(model, loaders[split], run.compute)[1] for split in BOTH}}
    seconds = {"fine-tuned": time.perf_counter() - start}
    start = time.perf_counter()
    texts = splits["train"]["text"][:]
    y_train, n_valid = label_matrix(splits["train"]), len(y_true["validation"])
    y_prob = models.linear_svm(texts, y_train, [text for split in BOTH for text in splits[split]["text"][:]])
    answers["linear SVM"] = {"validation": y_prob[:n_valid], "test": y_prob[n_valid:]}
    seconds["linear SVM"] = time.perf_counter() - start
    both = answers["fine-tuned"], answers["linear SVM"]
    reference = [one["validation"] for one in both]
    answers["blend"] = {split: models.blend([one[split] for one in both], reference) for split in BOTH}
    seconds["blend"] = sum(seconds.values())
    rows = []
    for name, y_prob in answers.items():
        known = y_true["validation"], y_prob["validation"]
        cuts = {
            "0.5": 0.5,
            "highest F1": tune_thresholds(*known),
            "the course's": trusted_thresholds(*known)["threshold"],
        }
        scores = {rule: decision_scores(y_true["test"], y_prob["test"], cut)["F1 macro"] for rule, cut in cuts.items()}
        score = macro_average_precision(y_true["test"], y_prob["test"])
        rows.append({"model": name, "rows": len(texts), "test macro-AP": score, **scores, "seconds": seconds[name]})
    save_results("all_goemotions", pd.DataFrame(rows))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        print("all_goemotions: give the folder with GoEmotions' three files")
