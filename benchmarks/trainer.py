"""Notebook 4's training beside the settings that many copy, and beside the loop: examples a second, and scores.

python benchmarks/trainer.py [GOEMOTIONS]    GOEMOTIONS: a folder with train.csv.gz, dev.csv.gz and test.csv.gz

Three trainings of one model on the same rows, in one process. SOURCE has the settings of the notebook of which notebook
4 speaks: every text padded to MAX_LEN, fp32, scikit-learn's "balanced" weights as pos_weight, all layers trained, AdamW
at one rate of 2e-5 with weight decay 0.02, falling to 0 without warm-up, batches of 64 in random order. COURSE is
notebook 4's, by the Trainer, and LOOP the same by notebook 3's loop. Each passes over the rows as often as the course
does, SOURCE too, which has ten passes where it comes from; its model is the course's, layer for the mean included. The
clock runs while weights are trained, without tokenizing, evaluation and saving. COURSE and LOOP take turns, are timed
three times, and the median counts. Scores: validation, after the last step. One seed. Results: results/trainer.csv.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from common import save_results
from recipes import some_goemotions
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import Trainer, TrainingArguments

from helpers import models, runtime, trainer, training
from helpers.data import label_matrix
from helpers.device import seed_everything
from helpers.labels import count_positives
from helpers.metrics import decision_scores, macro_average_precision
from helpers.quiet import quiet_loading
from helpers.tokenization import MultiLabelCollator

SOURCE, COURSE, LOOP = "the source's settings", "notebook 4, the Trainer", "notebook 4's recipe, the loop"
TIMES = 3


class SourceTrainer(Trainer):
    """The source's loss, with what fails today mended: a mean over cells, positives weighted."""

    def __init__(self, *args, pos_weight, **kwargs):
        super().__init__(*args, **kwargs)
        self.pos_weight = pos_weight.to(self.args.device)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        loss = binary_cross_entropy_with_logits(logits, inputs["labels"], pos_weight=self.pos_weight)
        return (loss, {"logits": logits}) if return_outputs else loss


def load(run, attention):
    """The run's model, with its layer for the mean where the encoder was made for that."""
    seed_everything(run.settings.seed)
    with quiet_loading():
        model = models.load_model(run.checkpoint, run.label_names, attn_implementation=attention)
    return models.add_mean_pooling(model) if run.pooling == "mean" else model


def padded(part, tokenizer, max_len):
    """A split tokenized as the source's data set comes: every text of one length."""
    options = {"truncation": True, "padding": "max_length", "max_length": max_len, "return_token_type_ids": False}
    part = part.map(lambda batch: tokenizer(batch["text"], **options), batched=True)
    return part.select_columns(["input_ids", "attention_mask", "labels"])


def by_the_source(run, tokenizer, folder):
    """(seconds of training, validation probabilities) with the source's settings."""
    settings, y_train = run.settings, label_matrix(run.splits["train"])
    balanced = len(y_train) / (2 * np.maximum(count_positives(y_train), 1))
    parts = {name: padded(part, tokenizer, settings.max_len) for name, part in run.splits.items()}
    built = SourceTrainer(
        load(run, None),
        TrainingArguments(
            str(folder),
            num_train_epochs=settings.epochs,
            learning_rate=2e-5,
            per_device_train_batch_size=64,
            per_device_eval_batch_size=64,
            weight_decay=0.02,
            save_strategy="no",
            report_to="none",
            use_cpu=run.compute.device.type == "cpu",
            dataloader_pin_memory=run.compute.device.type == "cuda",
            seed=settings.seed,
        ),
        train_dataset=parts["train"],
        data_collator=MultiLabelCollator(tokenizer),
        pos_weight=torch.tensor(balanced, dtype=torch.float32),
    )
    return trained(built, parts["validation"])


def by_the_trainer(run, tokenizer, folder):
    """(seconds of training, validation probabilities) of notebook 4's Trainer."""
    model = load(run, run.compute.attention)
    if run.settings.freeze:
        training.freeze_lower_layers(model)
    pos_weight = training.pos_weights(label_matrix(run.splits["train"]))
    off = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
    built = trainer.build_trainer(run, model, tokenizer, pos_weight, folder, **off)
    return trained(built, built.eval_dataset)


def trained(built, validation):
    """(seconds, validation probabilities) of a Trainer that is ready to train."""
    seconds = built.train().metrics["train_runtime"]
    return seconds, models.to_probabilities(built.predict(validation).predictions)


def by_the_loop(run, tokenizer, folder):
    """(seconds of training, validation probabilities) of notebook 3's loop with the same recipe."""
    settings, compute, splits = run.settings, run.compute, run.splits
    seed_everything(settings.seed)
    with quiet_loading():
        model = models.DistilBERTClass(run.checkpoint, len(run.label_names), attention=compute.attention)
    model.to(compute.device)
    if settings.freeze:
        training.freeze_lower_layers(model)
    if run.pooling == "mean":
        models.add_mean_pooling(model)
    loaders = {name: training.make_loader(splits[name], tokenizer, settings, name == "train") for name in splits}
    pos_weight = training.pos_weights(label_matrix(splits["train"])).to(compute.device)
    steps = len(loaders["train"]) * settings.epochs
    start = time.perf_counter()
    optimizer, scheduler = training.optimizer_and_schedule(model, settings.learning_rate, steps)
    for _ in range(settings.epochs):
        training.train_one_epoch(model, loaders["train"], optimizer, scheduler, pos_weight, compute)
    seconds = time.perf_counter() - start
    return seconds, training.validation(model, loaders["validation"], compute)[1]


def measure(name, run, times=TIMES):
    """Rows of the table: each training on one data set."""
    tokenizer = models.load_tokenizer(run.checkpoint)
    y_true, examples = label_matrix(run.splits["validation"]), len(run.splits["train"]) * run.settings.epochs
    seconds, answers = {SOURCE: [], COURSE: [], LOOP: []}, {}
    turns = [(COURSE, by_the_trainer), (LOOP, by_the_loop)] * (times + 1) + [(SOURCE, by_the_source)]
    for turn, (kind, train) in enumerate(turns):
        with tempfile.TemporaryDirectory() as folder:
            taken, answers[kind] = train(run, tokenizer, folder)
        if turn > 1:  # the first use of anything is slow
            seconds[kind].append(taken)
        print(f"{name}: {kind}: {examples / taken:.1f} examples a second", flush=True)
    speed = {kind: examples / np.median(timings) for kind, timings in seconds.items()}
    for kind, timings in seconds.items():
        yield {
            "dataset": name,
            "training": kind,
            "examples": examples,
            "timings": len(timings),
            "examples per second": speed[kind],
            "times the source's": speed[kind] / speed[SOURCE],
            "times the loop's": speed[kind] / speed[LOOP],
            "macro-AP": macro_average_precision(y_true, answers[kind]),
            "F1 macro": decision_scores(y_true, answers[kind])["F1 macro"],
        }


def main(goemotions=None):
    table = []
    with tempfile.TemporaryDirectory() as folder:
        sets = {"comments": "comments"}
        if goemotions:
            sets["goemotions, 2,000 rows"] = some_goemotions(goemotions, Path(folder) / "goemotions.csv")
        for name, source in sets.items():
            run = runtime.start_run("benchmark", "movies", dataset=str(source), valid_batch_size=64, output_dir="build")
            table += measure(name, run)
            save_results("trainer", pd.DataFrame(table))


if __name__ == "__main__":
    main(*sys.argv[1:2])
