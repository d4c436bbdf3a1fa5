"""Score against training rows: TF-IDF, frozen encoder and fine-tuning on the film plots, three draws of rows each.

python benchmarks/learning_curve.py

Every fine-tuned model takes as many steps as three epochs over all rows: with fewer rows, more epochs. Scores: validation macro-AP, of the
last epoch. Results: results/learning_curve.csv.
"""

import numpy as np
import pandas as pd
import torch
from common import by_length, save_results
from transformers import get_linear_schedule_with_warmup

from helpers import models, runtime, training
from helpers.data import label_matrix
from helpers.metrics import macro_average_precision

SIZES, SEEDS = (50, 100, 200, 400, None), (1, 2, 3)


def fine_tuned(run, train, valid, steps, seed):
    """Validation probabilities after `steps` steps of the course's recipe, in the order of the rows."""
    run.seed = seed
    runtime.seed_everything(seed)
    tokenizer = models.load_tokenizer(run.checkpoint_path)
    with models.quiet_loading():
        model = models.DistilBERTClass(run.checkpoint_path, len(run.label_names), attention=run.attention).to(
            run.device
        )
    training.freeze_lower_layers(model)
    loader = training.make_loader(train, tokenizer, run, train=True)
    optimizer = torch.optim.AdamW(training.parameter_groups(model, run.learning_rate), fused=True)
    scheduler = get_linear_schedule_with_warmup(optimizer, round(0.1 * steps), steps)
    pos_weight = training.pos_weights(label_matrix(train)).to(run.device)
    for _ in range(-(-steps // len(loader))):
        training.train_one_epoch(model, loader, optimizer, scheduler, pos_weight, run)
    return training.validation(model, training.make_loader(valid, tokenizer, run, train=False), run)[0]


run = runtime.start_run("benchmark", "movies", valid_batch_size=64, output_dir="build")
splits = run.load_splits()
valid = by_length(splits["validation"])
y_valid, steps = label_matrix(valid), 3 * -(-len(splits["train"]) // run.train_batch_size)
rows = []
for seed in SEEDS:
    order = np.random.default_rng(seed).permutation(len(splits["train"]))
    for size in SIZES:
        train = splits["train"].select(order[:size])
        texts, y_train, new_texts = train["text"][:], label_matrix(train), valid["text"][:]
        predictions = {
            "TF-IDF + LR": models.tfidf_regression(texts, y_train, new_texts),
            "frozen + LR": models.frozen_regression(
                texts, y_train, new_texts, run.checkpoint_path, run.max_len, run.device, run.autocast
            ),
            "fine-tuned": fine_tuned(run, train, valid, steps, seed),
        }
        for model, y_prob in predictions.items():
            score = macro_average_precision(y_valid, y_prob)
            rows.append({"dataset": "movies", "rows": len(train), "model": model, "seed": seed, "macro-AP": score})
            print(f"{len(train)} rows, seed {seed}: {model} {score:.3f}", flush=True)
save_results("learning_curve", pd.DataFrame(rows))
