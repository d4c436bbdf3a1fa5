"""Averaged weights and more epochs: does either pay? The course's recipe, three seeds, validation.

python benchmarks/averaging.py [GOEMOTIONS]    GOEMOTIONS: a folder with train.csv.gz, dev.csv.gz and test.csv.gz

Beside the trained weights an exponential moving average of them is kept for each of some decays. Until a decay's span,
1 / (1 - decay) steps, has passed, it is the even mean of all steps (Polyak and Juditsky, 1992, doi:10.1137/0330046), so
that the start has no extra weight. All are scored after each epoch of the same training, and the best epoch of each
counts, as in the course.
The test split is not read. Results: results/averaging.csv.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
import recipes
import torch
from common import save_results

from helpers import training
from helpers.metrics import macro_average_precision

SEEDS, EPOCHS, DECAYS = (1, 2, 3), (3, 5), (0.98, 0.99, 0.999)


class Averages:
    """A schedule that, at each of its steps, also moves the averages of a model's trained parameters."""

    def __init__(self, model, scheduler, decays):
        self.trained, self.scheduler, self.steps = [p for p in model.parameters() if p.requires_grad], scheduler, 0
        self.kept = {decay: [p.detach().clone() for p in self.trained] for decay in decays}

    @torch.no_grad()
    def step(self):
        self.scheduler.step()
        self.steps += 1
        for decay, kept in self.kept.items():
            torch._foreach_lerp_(kept, self.trained, 1 - min(decay, 1 - 1 / self.steps))

    def copies(self):
        """The trained parameters as they are, under 0, and their averages, each under its decay."""
        return {0: [p.detach().clone() for p in self.trained], **self.kept}

    @torch.no_grad()
    def put(self, parameters):
        for parameter, value in zip(self.trained, parameters, strict=True):
            parameter.copy_(value)


def train(recipe, run, splits, seed, decays=DECAYS):
    """Train one model with averages beside it.

    Returns
    -------
    (model, put, best) : best maps 0 (the trained weights) and each decay to (best epoch's validation macro-AP, its
    parameters), and put(parameters) puts these into the model.
    """
    model, loader, optimizer, scheduler, pos_weight, options = recipes.prepare(recipe, run, splits, seed)
    averages, best = Averages(model, scheduler, decays), {}
    valid_loader = recipes.loaders(run, splits, ["validation"])["validation"]
    for epoch in range(recipe.epochs):
        training.train_one_epoch(model, loader, optimizer, averages, pos_weight, run.compute, **options)
        copies = averages.copies()
        for decay, parameters in copies.items():
            averages.put(parameters)
            score = macro_average_precision(*training.validation(model, valid_loader, run.compute))
            print(f"epoch {epoch + 1}, decay {decay}: {score:.3f}", flush=True)
            if decay not in best or score > best[decay][0]:
                best[decay] = score, [p.clone() for p in parameters]
        averages.put(copies[0])
    return model, averages.put, best


def rows(name, run, splits, seed, epochs):
    """A row for the trained weights and one for each decay: the best epoch's validation macro-AP."""
    recipe = replace(recipes.ladder()[recipes.COURSE], epochs=epochs)
    for decay, (score, _) in train(recipe, run, splits, seed)[-1].items():
        print(f"{name}: {epochs} epochs, decay {decay}, seed {seed}: {score:.3f}", flush=True)
        yield {"dataset": name, "epochs": epochs, "decay": decay, "seed": seed, "macro-AP": score}


def main(goemotions=None):
    table = []
    with tempfile.TemporaryDirectory() as folder:
        sets = {"movies": "movies"}
        if goemotions:
            sets["goemotions, 2,000 rows"] = recipes.some_goemotions(goemotions, Path(folder) / "goemotions.csv")
        for name, source in sets.items():
            run, splits = recipes.open_run(source)
            for seed in SEEDS:
                for epochs in EPOCHS:
                    table += rows(name, run, splits, seed, epochs)
            save_results("averaging", pd.DataFrame(table))


if __name__ == "__main__":
    main(*sys.argv[1:2])
