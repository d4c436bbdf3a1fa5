"""Milliseconds of a training step an example on this machine: how attention is computed, and dropout on it.

python benchmarks/attention.py [DATASET]. Batches of 16 of similar length, lower layers frozen, each setting measured on the same batches.
Results: results/attention.csv.
"""

import sys
import time

import pandas as pd
import torch
from common import save_results

from helpers import models, runtime, training

run = runtime.start_run("benchmark", sys.argv[1] if len(sys.argv) > 1 else "movies", output_dir="build", recipe="loop")
train = run.load_splits()["train"]
tokenizer = models.load_tokenizer(run.checkpoint_path)
batches = list(training.make_loader(train, tokenizer, run, train=True))[:20]
examples = sum(len(batch["labels"]) for batch in batches)


class Scheduler:
    def step(self):
        pass


milliseconds = {}
for attention in ("sdpa", "eager"):
    for dropout in (0.1, 0.0):
        model = models.DistilBERTClass(run.checkpoint_path, len(run.label_names), attention=attention).to(run.device)
        for layer in model.encoder.transformer.layer:
            layer.attention.dropout.p = dropout
        training.freeze_lower_layers(model)
        optimizer = torch.optim.AdamW(training.parameter_groups(model, run.learning_rate), fused=True)
        training.train_one_epoch(model, batches[:2], optimizer, Scheduler(), None, run)
        start = time.perf_counter()
        training.train_one_epoch(model, batches, optimizer, Scheduler(), None, run)
        milliseconds[attention, dropout] = 1000 * (time.perf_counter() - start) / examples

table = pd.Series(milliseconds, name="ms an example").rename_axis(["attention", "attention dropout"]).reset_index()
table["speed-up"] = milliseconds["sdpa", 0.1] / table["ms an example"]
save_results("attention", table.assign(precision=run.precision))
