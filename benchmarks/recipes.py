"""What each step of the recipe buys in score and in seconds, and the whole recipe beside the baselines: five seeds.

python benchmarks/recipes.py [GOEMOTIONS]    GOEMOTIONS: a folder with train.csv.gz, dev.csv.gz and test.csv.gz

The ladder is climbed on the film plots, each step on top of the ones before; what counts there is the validation split.
The course's recipe (COURSE) by the loop and by the Trainer, the same on the first token, counted words, the frozen
encoder, and the blend of COURSE with counted words are scored on both built-in sets and, where the folder is given, on
2,000 of its training rows, on validation and test; the order of batches that transformers has, from long to short, on
validation alone. Seconds are for training (by the Trainer, with its validation); a run beside other work takes longer,
so read their median. One rule for all: the epoch with the best validation macro-AP; for F1, cuts tuned on validation.
Results: results/recipes.csv.
"""

import io
import sys
import tempfile
import time
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from common import save_results
from torch.utils.data import RandomSampler
from transformers import get_constant_schedule_with_warmup, get_linear_schedule_with_warmup
from transformers.trainer_pt_utils import LengthGroupedSampler

from helpers import models, runtime, trainer, training
from helpers.data import label_matrix
from helpers.device import seed_everything
from helpers.metrics import decision_scores, macro_average_precision
from helpers.quiet import quiet_loading
from helpers.runtime import short_name
from helpers.thresholds import tune_thresholds

SEEDS = (1, 2, 3, 4, 5)


@dataclass
class Recipe:
    """How a model is trained; the defaults are the article's recipe."""

    rate: float = 1e-5
    epochs: int = 1
    batch_size: int = 8
    warm_up: bool = False
    decay: bool = False
    head_rate: float = 1
    weight_decay: float = 0.0
    clip: bool = False
    power: float = 0.0
    freeze: bool = False
    mean_pooling: bool = False
    order: str = "shuffled"  # of batches of similar length; "long to short", or "mixed": lengths as they come


STEPS = {
    "article's recipe": {},
    "3 epochs, rate 3e-4, batches of 16": {"epochs": 3, "rate": 3e-4, "batch_size": 16},
    "+ warm-up and decay": {"warm_up": True, "decay": True},
    "+ head at 10x the rate": {"head_rate": 10},
    "+ weight decay, matrices only": {"weight_decay": 0.01},
    "+ clipped gradients": {"clip": True},
    "+ weighted positives": {"power": 0.5},
    "+ frozen lower layers": {"freeze": True},
    "+ mean pooling": {"mean_pooling": True},
}
FIRST_TOKEN, COURSE = list(STEPS)[-2:]
LONG_TO_SHORT = ", batches from long to short"
SAMPLERS = {
    "shuffled": training.ShuffledLengthGroupedSampler,
    "long to short": LengthGroupedSampler,
    "mixed": lambda batch_size, lengths, generator: RandomSampler(lengths, generator=generator),
}


def ladder():
    """The recipes by name, each step added to those before."""
    recipe, recipes = Recipe(), {}
    for name, step in STEPS.items():
        recipes[name] = recipe = replace(recipe, **step)
    return recipes


def prepare(recipe, run, splits, seed):
    """What an epoch takes: (model, loader, optimizer, scheduler, pos_weight, options of `train_one_epoch`)."""
    settings = replace(run.settings, train_batch_size=recipe.batch_size, seed=seed)
    tokenizer = models.load_tokenizer(run.checkpoint)
    y_train = label_matrix(splits["train"])
    seed_everything(seed)
    with quiet_loading():
        model = models.DistilBERTClass(run.checkpoint, y_train.shape[1], attention=run.compute.attention)
    model.to(run.compute.device)
    if recipe.freeze:
        training.freeze_lower_layers(model)
    if recipe.mean_pooling:
        models.add_mean_pooling(model)
    loader = training.make_loader(splits["train"], tokenizer, settings, train=True, sampler=SAMPLERS[recipe.order])
    groups = training.parameter_groups(model, recipe.rate, recipe.weight_decay, recipe.head_rate)
    optimizer = torch.optim.AdamW(groups, fused=True)
    steps = len(loader) * recipe.epochs
    warm_up = ceil(0.1 * steps) if recipe.warm_up else 0
    scheduler = (
        get_linear_schedule_with_warmup(optimizer, warm_up, steps)
        if recipe.decay
        else get_constant_schedule_with_warmup(optimizer, warm_up)
    )
    pos_weight = training.pos_weights(y_train, power=recipe.power).to(run.compute.device)  # power 0: all 1
    options = {} if recipe.clip else {"max_norm": float("inf")}
    return model, loader, optimizer, scheduler, pos_weight, options


def train(recipe, run, splits, seed):
    """Train one model. Returns it with its best epoch's weights, and the seconds of training, without validation."""
    model, loader, optimizer, scheduler, pos_weight, options = prepare(recipe, run, splits, seed)
    valid_loader = loaders(run, splits, ["validation"])["validation"]
    best, seconds = -1.0, 0.0
    for _ in range(recipe.epochs):
        start = time.perf_counter()
        training.train_one_epoch(model, loader, optimizer, scheduler, pos_weight, run.compute, **options)
        seconds += time.perf_counter() - start
        score = macro_average_precision(*training.validation(model, valid_loader, run.compute))
        if score > best:
            best, weights = score, {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(weights)
    return model, seconds


def open_run(dataset):
    """A run on a data set, and its splits; the test split is for the last table."""
    run = runtime.start_run("benchmark", "movies", dataset=str(dataset), valid_batch_size=64, output_dir="build")
    splits = run.splits
    return run, {
        "train": splits["train"],
        "validation": splits["validation"],
        "test": run.final_test(),
    }


def rows(name, model, seed, seconds, splits, predictions):
    """A row for each split in `predictions`, scored with cuts that were tuned on validation."""
    cuts = tune_thresholds(label_matrix(splits["validation"]), predictions["validation"])
    for split, y_prob in predictions.items():
        y_true = label_matrix(splits[split])
        score = macro_average_precision(y_true, y_prob)
        f1 = decision_scores(y_true, y_prob, cuts)["F1 macro"]
        print(f"{name} {split}: {model}, seed {seed}: macro-AP {score:.3f}, {seconds:.0f} s", flush=True)
        yield {
            "dataset": name,
            "split": split,
            "model": model,
            "seed": seed,
            "macro-AP": score,
            "tuned F1 macro": f1,
            "seconds": seconds,
        }


def loaders(run, splits, wanted):
    """A DataLoader for each of the wanted splits, in the order of its rows."""
    tokenizer = models.load_tokenizer(run.checkpoint)
    return {split: training.make_loader(splits[split], tokenizer, run.settings, train=False) for split in wanted}


def trained_rows(name, model_name, recipe, run, splits, wanted):
    """A row a seed and split."""
    batches = loaders(run, splits, wanted)
    for seed in SEEDS:
        model, seconds = train(recipe, run, splits, seed)
        predictions = {split: training.validation(model, batches[split], run.compute)[1] for split in wanted}
        yield from rows(name, model_name, seed, seconds, splits, predictions)


def course_predictions(name, run, splits, seed):
    """(probabilities of validation and test, seconds of training) of the course's recipe; trained once, then kept."""
    kept = Path("build") / f"benchmark-{short_name(name)}-{seed}-{run.folder.path.name[-10:]}.npz"
    if not kept.exists():
        model, seconds = train(ladder()[COURSE], run, splits, seed)
        batches = loaders(run, splits, ("validation", "test"))
        found = {split: training.validation(model, batch, run.compute)[1] for split, batch in batches.items()}
        kept.parent.mkdir(exist_ok=True)
        np.savez(kept, seconds=seconds, **found)
    with np.load(kept) as found:
        return {split: found[split] for split in ("validation", "test")}, float(found["seconds"])


def course_rows(name, run, splits):
    """The course's recipe, and its blend with counted words: a row a seed and split."""
    texts, y_train = splits["train"]["text"][:], label_matrix(splits["train"])
    svm = {split: models.linear_svm(texts, y_train, splits[split]["text"][:]) for split in ("validation", "test")}
    for seed in SEEDS:
        own, seconds = course_predictions(name, run, splits, seed)
        reference = own["validation"], svm["validation"]
        mixed = {split: models.blend([own[split], svm[split]], reference) for split in own}
        yield from rows(name, COURSE, seed, seconds, splits, own)
        yield from rows(name, "blend with linear SVM", seed, seconds, splits, mixed)


def by_trainer(run, seed, pos_weight, epochs, freeze=True, change=None, **arguments):
    """The Trainer after training by the course's recipe; `change` is called with it before."""
    seed_everything(seed)
    ours = replace(run, settings=replace(run.settings, seed=seed, epochs=epochs, freeze=freeze))
    with quiet_loading(), tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        model, tokenizer, _ = trainer.untrained(ours)
        course = trainer.build_trainer(ours, model, tokenizer, pos_weight, folder, **arguments)
        if change:
            change(course)
        course.train()
    return course


def trainer_rows(name, run, splits):
    """The course's recipe, trained by the Trainer: a row a seed and split."""
    pos_weight = training.pos_weights(label_matrix(splits["train"]))
    for seed in SEEDS:
        course = by_trainer(run, seed, pos_weight, ladder()[COURSE].epochs)
        seconds = course.state.log_history[-1]["train_runtime"]
        predictions = {}
        for split, batches in loaders(run, splits, ("validation", "test")).items():
            library = Library(course.model)
            predictions[split] = training.validation(library, batches, run.compute)[1]
        yield from rows(name, COURSE + ", by the Trainer", seed, seconds, splits, predictions)


class Library(torch.nn.Module):
    """A classifier of transformers, called as ours are."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


def baseline_rows(name, run, splits):
    """The label prior, counted words, and the frozen encoder."""
    texts, y_train = splits["train"]["text"][:], label_matrix(splits["train"])
    baselines = {
        "label prior": models.label_prior,
        "TF-IDF + LR": models.tfidf_regression,
        "linear SVM": models.linear_svm,
        "frozen + LR": lambda *data: models.frozen_regression(*data, run.checkpoint, run.settings.max_len, run.compute),
    }
    for model, predict in baselines.items():
        start = time.perf_counter()
        predictions = {split: predict(texts, y_train, splits[split]["text"][:]) for split in ("validation", "test")}
        yield from rows(name, model, 0, (time.perf_counter() - start) / 2, splits, predictions)


def some_goemotions(folder, target, n_train=2000, n_validation=2000):
    """Write a CSV of some training and validation rows and all test rows of GoEmotions."""
    parts = []
    for file, split, n in (("train", "train", n_train), ("dev", "validation", n_validation), ("test", "test", None)):
        part = pd.read_csv(Path(folder) / f"{file}.csv.gz", keep_default_na=False)
        parts.append((part.sample(n, random_state=0) if n else part).assign(split=split))
    pd.concat(parts).to_csv(target, index=False)
    return target


def main(goemotions=None):
    table, recipes = [], ladder()
    with tempfile.TemporaryDirectory() as folder:
        sets = {"movies": "movies", "comments": "comments"}
        if goemotions:
            sets["goemotions, 2,000 rows"] = some_goemotions(goemotions, Path(folder) / "goemotions.csv")
        for name, source in sets.items():
            run, splits = open_run(source)
            table += baseline_rows(name, run, splits)
            if name == "movies":
                for step in list(recipes)[:-2]:
                    table += trained_rows(name, step, recipes[step], run, splits, ["validation"])
            table += trained_rows(name, FIRST_TOKEN, recipes[FIRST_TOKEN], run, splits, ["validation", "test"])
            table += course_rows(name, run, splits)
            table += trainer_rows(name, run, splits)
            if name == "movies":
                for step in ("+ head at 10x the rate", FIRST_TOKEN):
                    recipe = replace(recipes[step], order="long to short")
                    table += trained_rows(name, step + LONG_TO_SHORT, recipe, run, splits, ["validation"])
            save_results("recipes", pd.DataFrame(table))


if __name__ == "__main__":
    main(*sys.argv[1:2])
