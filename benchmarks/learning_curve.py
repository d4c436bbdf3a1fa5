"""Score against training rows: linear SVM, frozen encoder and fine-tuning on the film plots, three draws of rows each.

python benchmarks/learning_curve.py

Every fine-tuned model takes as many steps as three epochs over all rows: with fewer rows, more epochs. Scores:
validation macro-AP, of the last epoch. Results: results/learning_curve.csv.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
from common import save_results

from helpers import models, runtime, training
from helpers.data import label_matrix
from helpers.device import seed_everything
from helpers.metrics import macro_average_precision
from helpers.quiet import quiet_loading

SIZES, SEEDS = (50, 100, 200, 400, None), (1, 2, 3)


def fine_tuned(run, train, valid, steps, seed):
    """Validation probabilities after `steps` steps of the course's recipe, in the order of the rows."""
    settings = replace(run.settings, seed=seed)
    seed_everything(seed)
    tokenizer = models.load_tokenizer(run.checkpoint)
    with quiet_loading():
        model = models.DistilBERTClass(run.checkpoint, len(run.label_names), attention=run.compute.attention)
    model.to(run.compute.device)
    training.freeze_lower_layers(model)
    models.add_mean_pooling(model)
    loader = training.make_loader(train, tokenizer, settings, train=True)
    optimizer, scheduler = training.optimizer_and_schedule(model, settings.learning_rate, steps)
    pos_weight = training.pos_weights(label_matrix(train)).to(run.compute.device)
    for _ in range(-(-steps // len(loader))):
        training.train_one_epoch(model, loader, optimizer, scheduler, pos_weight, run.compute)
    valid_loader = training.make_loader(valid, tokenizer, settings, train=False)
    return training.validation(model, valid_loader, run.compute)[1]


def main():
    run = runtime.start_run("benchmark", "movies", valid_batch_size=64, output_dir="build")
    valid = run.splits["validation"]
    n_train = len(run.splits["train"])
    y_valid, steps = label_matrix(valid), 3 * -(-n_train // run.settings.train_batch_size)
    rows = []
    for seed in SEEDS:
        order = np.random.default_rng(seed).permutation(n_train)
        for size in SIZES:
            train = run.splits["train"].select(order[:size])
            texts, y_train, new_texts = train["text"][:], label_matrix(train), valid["text"][:]
            predictions = {
                "linear SVM": models.linear_svm(texts, y_train, new_texts),
                "frozen + LR": models.frozen_regression(
                    texts, y_train, new_texts, run.checkpoint, run.settings.max_len, run.compute
                ),
                "fine-tuned": fine_tuned(run, train, valid, steps, seed),
            }
            for model, y_prob in predictions.items():
                score = macro_average_precision(y_valid, y_prob)
                rows.append({"dataset": "movies", "rows": len(train), "model": model, "seed": seed, "macro-AP": score})
                print(f"{len(train)} rows, seed {seed}: {model} {score:.3f}", flush=True)
    save_results("learning_curve", pd.DataFrame(rows))


if __name__ == "__main__":
    main()
