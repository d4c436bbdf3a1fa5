"""Milliseconds of a training step an example on this machine: how attention is computed, and dropout on it.

python benchmarks/attention.py [DATASET]. Batches of 16 of similar length, lower layers frozen, each setting measured on
the same batches. Results: results/attention.csv.
"""

import sys
import time

import pandas as pd
import torch
from common import save_results

from helpers import models, runtime, training


class Scheduler:
    """Leaves the rates as they are."""

    def step(self):
        pass


def measure(run, attention, dropout, batches):
    """Milliseconds an example over the batches, after two to warm up."""
    model = models.DistilBERTClass(run.checkpoint, len(run.label_names), attention=attention).to(run.compute.device)
    for layer in model.encoder.transformer.layer:
        layer.attention.dropout.p = dropout
    training.freeze_lower_layers(model)
    groups = training.parameter_groups(model, run.settings.learning_rate)
    optimizer = torch.optim.AdamW(groups, fused=True)
    training.train_one_epoch(model, batches[:2], optimizer, Scheduler(), None, run.compute)
    start = time.perf_counter()
    training.train_one_epoch(model, batches, optimizer, Scheduler(), None, run.compute)
    return 1000 * (time.perf_counter() - start) / sum(len(batch["labels"]) for batch in batches)


def main(dataset):
    run = runtime.start_run("benchmark", dataset, output_dir="build", recipe="loop")
    tokenizer = models.load_tokenizer(run.checkpoint)
    batches = list(training.make_loader(run.splits["train"], tokenizer, run.settings, train=True))[:20]
    settings = [(attention, dropout) for attention in ("sdpa", "eager") for dropout in (0.1, 0.0)]
    milliseconds = {setting: measure(run, *setting, batches) for setting in settings}
    table = pd.Series(milliseconds, name="ms an example").rename_axis(["attention", "attention dropout"]).reset_index()
    table["speed-up"] = milliseconds["sdpa", 0.1] / table["ms an example"]
    save_results("attention", table.assign(precision=run.compute.precision))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "movies")
