"""The speed ladder: examples a second from the article's loop to the course's, and what each step does to the score.

python benchmarks/training.py [DATASET ...]      default: movies

Each rung trains one model on the same 1,600 training texts, or all where there are fewer, three times through, in one
process; the clock runs from texts to trained weights, tokenizing included. The first is the article's loop with the
article's recipe; the others have the course's recipe (rate, schedule, head, weights, clipping, lower layers frozen), so
that their scores can be compared, and each adds one thing to the one before. Rungs marked "tried" are compared with the
last one and not kept. Scores: validation, at most 2,000 rows; cuts tuned there, for all alike. One seed; how much
seeds differ is in results/recipes.csv. A rung that takes less than half a minute is timed three times, and the median
counts. Results: results/training.csv.
"""

import sys
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from common import save_results
from torch.utils.data import DataLoader
from transformers import get_linear_schedule_with_warmup

from helpers import models, runtime, training
from helpers.data import label_matrix
from helpers.device import Compute, seed_everything
from helpers.metrics import decision_scores, macro_average_precision
from helpers.quiet import quiet_loading
from helpers.thresholds import tune_thresholds
from helpers.tokenization import MultiLabelCollator, MultiLabelDataset

ARTICLE_LENGTH, EXAMPLES, PASSES = 256, 1600, 3
SHORT = 30  # seconds; what takes less is timed three times


@dataclass
class Rung:
    """How batches are made and computed."""

    padding: str = (
        "article"  # "article": its own loop; "256"; "longest text": of the training texts; "longest in batch"
    )
    grouped: bool = False
    half: bool = False  # bf16 or fp16, where the device computes in it
    attention: str | None = None
    fused: bool = False
    batch_size: int = 8
    frozen: bool = False  # the embeddings and the lower layers
    once: bool = False  # what is frozen is computed once, not in every pass
    compiled: bool = False


class ArticleDataset(torch.utils.data.Dataset):
    """As in the article: each text is tokenized when it is asked for, and padded to 256."""

    def __init__(self, texts, labels, tokenizer):
        self.texts, self.labels, self.tokenizer = texts, labels, tokenizer

    def __len__(self):
        return len(self.texts)

    def __getitem__(self, index):
        inputs = self.tokenizer(self.texts[index], padding="max_length", truncation=True, max_length=ARTICLE_LENGTH)
        item = {name: torch.tensor(inputs[name]) for name in ("input_ids", "attention_mask")}
        return {**item, "labels": torch.tensor(self.labels[index])}


class PaddedTo(MultiLabelCollator):
    """Pads every batch to one length."""

    def __init__(self, tokenizer, length):
        super().__init__(tokenizer)
        self.length = length

    def __call__(self, items):
        pad = [[0] * (self.length - len(item["input_ids"])) for item in items]
        pairs = list(zip(items, pad, strict=True))
        return {
            "input_ids": torch.tensor([item["input_ids"] + more for item, more in pairs]),
            "attention_mask": torch.tensor([item["attention_mask"] + more for item, more in pairs]),
            "labels": torch.stack([item["labels"] for item in items]),
        }


def article_loop(model, part, tokenizer, device):
    """The article's loop, with what crashes in it mended: Adam at 1e-5, constant, batches of 8."""
    loader = DataLoader(ArticleDataset(part["text"][:], label_matrix(part), tokenizer), batch_size=8, shuffle=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
    model.train()
    for batch in (batch for _ in range(PASSES) for batch in loader):
        batch = {name: tensor.to(device) for name, tensor in batch.items()}
        logits = model(batch["input_ids"], batch["attention_mask"])
        loss = torch.nn.BCEWithLogitsLoss()(logits, batch["labels"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def make_loader(rung, part, tokenizer, settings):
    """The rung's batches."""
    if rung.grouped:
        return training.make_loader(part, tokenizer, settings, train=True)
    data = MultiLabelDataset(part["text"], label_matrix(part), tokenizer, settings.max_len)
    longest = max(len(ids) for ids in data.encodings["input_ids"])
    length = ARTICLE_LENGTH if rung.padding == "256" else longest
    collate = MultiLabelCollator(tokenizer) if rung.padding == "longest in batch" else PaddedTo(tokenizer, length)
    generator = torch.Generator().manual_seed(settings.seed)
    return DataLoader(data, settings.train_batch_size, shuffle=True, collate_fn=collate, generator=generator)


class StatesOfTokens(torch.nn.Module):
    """In the place of an encoder's embeddings: one state for each token of the training texts, zeros for padding."""

    def __init__(self, states):
        super().__init__()
        padding = states[0].new_zeros(1, states[0].shape[1])
        self.register_buffer("states", torch.cat([padding, *states]), persistent=False)

    def forward(self, input_ids, *others):
        return self.states[input_ids]


@contextmanager
def frozen_layers_computed_once(model, loader, frozen, compute):
    """Within the block a DistilBERT is its trained layers, and reads what the `frozen` ones made of the loader's texts.

    Each token of the texts gets a number of its own in input_ids; its state, of float32, lies in memory: 3 kB a token
    where the model is 768 wide.
    """
    stack, data = model.encoder.transformer, loader.dataset
    embeddings, layers, ids = model.encoder.embeddings, stack.layer, data.encodings["input_ids"]
    states = [None] * len(ids)
    stack.layer = layers[:frozen]
    model.eval()
    for rows in training.in_groups(sorted(range(len(ids)), key=lambda row: len(ids[row])), 64):
        batch = {name: t.to(compute.device) for name, t in loader.collate_fn([data[row] for row in rows]).items()}
        with torch.no_grad(), compute.autocast():
            hidden = model.encoder(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        for row, state in zip(rows, hidden.last_hidden_state, strict=True):
            states[row] = state[: len(ids[row])].clone()
    ends = np.cumsum([len(row) for row in ids])
    data.encodings["input_ids"] = [list(range(1 + end - len(row), 1 + end)) for row, end in zip(ids, ends, strict=True)]
    stack.layer, model.encoder.embeddings = layers[frozen:], StatesOfTokens(states)
    yield
    data.encodings["input_ids"] = ids
    stack.layer, model.encoder.embeddings = layers, embeddings


def climb(rung, run, train, valid_loader):
    """Train three times through. Returns the seconds, macro-AP and F1 macro at tuned cuts."""
    compute = run.compute if rung.half else Compute(run.compute.device)
    settings = replace(run.settings, train_batch_size=rung.batch_size)
    tokenizer = models.load_tokenizer(run.checkpoint)
    seed_everything(settings.seed)
    with quiet_loading():
        model = models.DistilBERTClass(run.checkpoint, len(run.label_names), attention=rung.attention)
    model.to(compute.device)
    frozen = training.freeze_lower_layers(model) if rung.frozen else 0
    start = time.perf_counter()
    if rung.padding == "article":
        article_loop(model, train, tokenizer, compute.device)
    else:
        loader = make_loader(rung, train, tokenizer, settings)
        optimizer = torch.optim.AdamW(training.parameter_groups(model, settings.learning_rate), fused=rung.fused)
        steps = PASSES * len(loader)
        scheduler = get_linear_schedule_with_warmup(optimizer, ceil(0.1 * steps), steps)
        pos_weight = training.pos_weights(label_matrix(train)).to(compute.device)
        learner = torch.compile(model, dynamic=True) if rung.compiled else model
        with frozen_layers_computed_once(model, loader, frozen, compute) if rung.once else nullcontext():
            for _ in range(PASSES):
                training.train_one_epoch(learner, loader, optimizer, scheduler, pos_weight, compute)
    if compute.device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    y_true, y_prob = training.validation(model, valid_loader, run.compute)
    f1 = decision_scores(y_true, y_prob, tune_thresholds(y_true, y_prob))["F1 macro"]
    return seconds, macro_average_precision(y_true, y_prob), f1


STEPS = {
    "article's loop": {},
    "course's recipe, padded to 256": {"padding": "256", "frozen": True},
    "padded to the longest text": {"padding": "longest text"},
    "padded to the longest in the batch": {"padding": "longest in batch"},
    "batches of similar length": {"grouped": True},
    "half precision": {"half": True},
    "attention written out": {"attention": "eager"},
    "fused AdamW": {"fused": True},
    "batches of 16": {"batch_size": 16},
    "frozen layers computed once": {"once": True},
}
TRIED = {
    "tried: all layers trained": {"frozen": False, "once": False},
    "tried: batches of 32": {"batch_size": 32},
    "tried: torch.compile, compiling included": {"compiled": True, "once": False},
}


def ladder(device):
    """The rungs by name. On a GPU the library's attention is kept."""
    rung, rungs = Rung(), {}
    for name, step in STEPS.items():
        if not (name == "attention written out" and device.type != "cpu"):
            rungs[name] = rung = replace(rung, **step)
    return rungs | {name: replace(rung, **change) for name, change in TRIED.items()}


def measure(name, dataset):
    """Rows of the table: every rung on one data set."""
    run = runtime.start_run("benchmark", "movies", dataset=dataset, valid_batch_size=64, output_dir="build")
    splits = run.splits
    order = np.random.default_rng(0).permutation(len(splits["train"]))
    train = splits["train"].select(order[:EXAMPLES])
    valid = splits["validation"]
    valid = valid.select(np.sort(np.random.default_rng(0).permutation(len(valid))[:2000]))
    tokenizer = models.load_tokenizer(run.checkpoint)
    valid_loader = training.make_loader(valid, tokenizer, run.settings, train=False)
    tokens = np.mean([len(ids) for ids in tokenizer(train["text"][:])["input_ids"]])
    rungs, rows = ladder(run.compute.device), []
    climb(rungs["batches of 16"], run, train.select(range(64)), valid_loader)  # the first use of anything is slow
    for rung_name, rung in rungs.items():
        seconds, macro_ap, f1 = climb(rung, run, train, valid_loader)
        timings = [seconds]
        if seconds < SHORT:
            timings += [climb(rung, run, train, valid_loader)[0] for _ in range(2)]
        speed = PASSES * len(train) / np.median(timings)
        print(f"{name}: {rung_name}: {speed:.1f} a second, macro-AP {macro_ap:.3f}", flush=True)
        rows.append(
            {
                "dataset": name,
                "mean tokens": tokens,
                "examples": PASSES * len(train),
                "rung": rung_name,
                "timings": len(timings),
                "examples per second": speed,
                "times the article's": speed / rows[0]["examples per second"] if rows else 1.0,
                "macro-AP": macro_ap,
                "tuned F1 macro": f1,
            }
        )
    return rows


def main(datasets):
    torch.compiler.config.force_disable_caches = True  # so that compiling is timed each time
    table = []
    for dataset in datasets:
        table += measure(Path(dataset).resolve().parent.name if Path(dataset).is_file() else dataset, dataset)
        save_results("training", pd.DataFrame(table))


if __name__ == "__main__":
    main(sys.argv[1:] or ["movies"])
