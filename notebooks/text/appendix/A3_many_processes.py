# %% [markdown]
# # A3 · Many processes
#
# For a second reading: for those who have several GPUs, or several machines, and want the loop of notebook 3 or the Trainer of notebook 4 to use them all. On one GPU, or none, nothing here makes training faster. What is shown runs on the CPU, the loop in one process and the Trainer in two; that two processes train the model of one is checked by the course's tests. **Speed on several GPUs was not measured.**
#
# **You will be able to**
# - run a training loop of your own in several processes with Accelerate, by four lines;
# - train notebook 4's model by a command, in any number of processes, and go on after a cut;
# - say what happens to the batch size, the gradients and the files that are written;
# - reckon whether a model fits on one card.
#
# **Time:** about a minute on the built-in data, on a laptop with two CPU cores.

# %% [markdown]
# ## Set-up
# The first cell makes sure that the course is installed.

# %% tags=["setup"]
# Does nothing where the course is installed; elsewhere, as in Colab, installs this version of it.
import importlib, os, subprocess, sys

VERSION = "0.2.0"
ADDRESS = f"https://github.com/multilabel-course/multilabel-course/archive/refs/tags/v{VERSION}.zip"
try:
    assert importlib.import_module("helpers").__version__ == VERSION
except (ImportError, AttributeError, AssertionError):
    clone = [up for up in ("..", "../..") if os.path.exists(f"{up}/helpers/runtime.py")]
    source = os.environ.get("MULTILABEL_COURSE", [*clone, ADDRESS][0])
    command = [sys.executable, "-m", "pip", "install", "--quiet", source]
    if (pip := subprocess.run(command, capture_output=True, text=True)).returncode:
        raise RuntimeError(f"pip could not install the course from {source}:\n{pip.stderr[-2000:]}") from None
    sys.modules.pop("helpers", None)
    importlib.invalidate_caches()
helpers = importlib.import_module("helpers")
assert getattr(helpers, "__version__", None) == VERSION, f"another helpers is in the way: {helpers.__file__}"

# %% [markdown]
# The parameters. Change them here, or let papermill do it from outside. They are the same in every notebook; `None` means the profile's value; `start_run` prints it.

# %% tags=["parameters"]
PROFILE = "tiny"  # "tiny": built-in data and model, CPU. "full": data and checkpoint from the hub, for a GPU
DATASET = None  # None (the profile's), "movies", "comments", a file (.csv, .jsonl, .xlsx, ...), or a hub name
LABEL_NAMES = None  # None (all that are found), or a list of labels; ["-a"] takes all but a
UNKNOWN = None  # True: -1 and nothing in the place of a label mean that nobody looked
CHECKPOINT = None  # None (the profile's), a folder, or a hub name
MAX_LEN = None  # tokens after which a text is cut
TRAIN_BATCH_SIZE = None
VALID_BATCH_SIZE = None
EPOCHS = None
LEARNING_RATE = None
SEED = None
OUTPUT_DIR = None  # None: the folder build/ of the course

# %% [markdown]
# What this notebook imports:

# %%
import tempfile
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator, DataLoaderConfiguration

from helpers import models, quiet
from helpers.data import label_matrix, label_names, read_splits
from helpers.runtime import start_run
from helpers.training import freeze_lower_layers, make_loader, optimizer_and_schedule, train_one_epoch

# %% [markdown]
# The run has the parameters of notebook 3, and so its folder; nothing is written to it here.

# %%
run = start_run(
    "A3_many_processes",
    default_dataset="movies",
    profile=PROFILE,
    dataset=DATASET,
    label_names=LABEL_NAMES,
    unknown=UNKNOWN,
    checkpoint=CHECKPOINT,
    max_len=MAX_LEN,
    train_batch_size=TRAIN_BATCH_SIZE,
    valid_batch_size=VALID_BATCH_SIZE,
    epochs=EPOCHS,
    learning_rate=LEARNING_RATE,
    seed=SEED,
    output_dir=OUTPUT_DIR,
    recipe="loop",
)
print(run)

# %% [markdown]
# Data, model, optimizer and schedule, as in one process. Only the upper layers and the head learn:

# %% tags=["nbval-check-output"]
settings, compute, train = run.settings, run.compute, run.splits["train"]
tokenizer = models.load_tokenizer(run.checkpoint)
train_loader = make_loader(train, tokenizer, settings, train=True)
print(len(train), "training texts in", len(train_loader), "batches")

# %% [markdown]
# Five steps are enough to see that it works:

# %%
with quiet.quiet_loading():
    model = models.DistilBERTClass(run.checkpoint, len(run.label_names), attention=compute.attention)
model.to(compute.device)
freeze_lower_layers(model)
optimizer, scheduler = optimizer_and_schedule(model, settings.learning_rate, steps=5)

# %% [markdown]
# ## Four lines
# Accelerate runs the same loop in several processes, one a GPU: each takes a share of the batches, and the gradients are averaged between backward pass and step. The script is started once a process, by `torchrun --nproc_per_node 4 train.py`. The lines that change, here with a single process and on five batches:

# %%
sharing = DataLoaderConfiguration(split_batches=True)

accelerator = Accelerator(cpu=compute.device.type == "cpu", dataloader_config=sharing)  # 1
learner, batches = accelerator.prepare(model, train_loader)  # 2
loss = train_one_epoch(learner, islice(batches, 5), optimizer, scheduler, None, compute)  # 3
loss = accelerator.reduce(torch.tensor(loss, device=compute.device), reduction="mean")  # 4
print(f"{accelerator.num_processes} process, loss {loss:.3f}")

# %% [markdown]
# `prepare` wraps the model, so that its backward pass exchanges gradients, and the loader, so that it hands out shares; `reduce` averages what is only printed. In `fit` that is one argument:
#
# ```python
# history = fit(model, train_loader, valid_loader, run, pos_weight, accelerator=accelerator)
# ```
#
# ## What to know before
# - With `split_batches` each process takes its share of a batch, so that the batch size stays that of all processes together, and rate and schedule need no change; the course's tests check that two processes have the loss curve of one. Without it each process takes whole batches, and the batch size is multiplied unseen.
# - Only the first process writes files; all read them.
# - On CPUs, `accelerate launch --cpu` silently starts a single process; use `torchrun`.

# %% [markdown]
# ## The Trainer, as a command
# The Trainer of notebook 4 has Accelerate inside. `python -m helpers train` is that notebook's training without the notebook: same parameters, same folder, same model. `torchrun` starts it in several processes, one a GPU:
#
# ```
# python -m helpers train --dataset my_texts.csv --epochs 4
# torchrun --nproc_per_node 8 -m helpers train --dataset my_texts.csv --epochs 4
# ```
#
# On several machines the same line is given on each, with `torchrun`'s `--nnodes` and `--rdzv-endpoint`, and `--output-dir` is a folder that all of them see. (This was not tried on more than one machine.)
#
# Here it runs in one process and in two, on the CPU, on 60 of the film plots, whatever DATASET is. The model has no dropout this time: each process would draw its own, and the two results would differ by chance.

# %%
films = read_splits("movies")
names, part = label_names(films), films["train"].select(range(60))
commonest = np.argsort(-label_matrix(part).sum(0))[:3]
rows = pd.DataFrame({"text": part["text"][:], "split": ["train"] * 37 + ["validation"] * 13 + ["test"] * 10})
for k in commonest:
    rows[names[k]] = label_matrix(part)[:, k].astype(int)

# %% [markdown]
# The three splits:

# %% tags=["nbval-check-output"]
rows["split"].value_counts()

# %% [markdown]
# 37 rows are four batches of eight, and one of five, which two processes cannot halve. File and model go to a temporary folder:

# %%
place = tempfile.TemporaryDirectory()
rows.to_csv(Path(place.name, "films.csv"), index=False)

# %% [markdown]
# The model, saved without dropout and with a head for these labels, so that both trainings start from the same numbers:

# %%
dropout = dict.fromkeys(["dropout", "attention_dropout", "seq_classif_dropout"], 0.0)
still = models.load_model(run.checkpoint, [names[k] for k in commonest], **dropout)
tokenizer.save_pretrained(f"{place.name}/still")
still.save_pretrained(f"{place.name}/still")

# %% [markdown]
# The command, with and without `torchrun`. The variables keep both on the CPU and in 32 bits, so that only the sharing differs:


# %%
def train(launcher, output):
    options = "--dataset films.csv --checkpoint still --epochs 2 --batch-size 8 --max-len 64 --output-dir"
    variables = {"CUDA_VISIBLE_DEVICES": "", "MULTILABEL_COURSE_PRECISION": "fp32", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *launcher, "helpers", "train", *options.split(), output],
        cwd=place.name,
        env={**os.environ, **variables, "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


# %% [markdown]
# In two processes on Linux. Elsewhere this cell keeps to one, as PyTorch's builds for Windows have no `torchrun` that works, and a Mac's GPU was not tried:

# %%
linux = sys.platform == "linux"
torchrun = ["torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"] if linux else []
told = train(torchrun, "two")
print(told[told.index("processes  ") :])

# %% [markdown]
# Each line is there once, as the first process alone prints. The scores mean nothing on 13 texts. In one process, and then the validation probabilities of both:

# %%
train([], "one")
one, two = (
    pd.read_parquet(next(Path(place.name, folder).glob("*/predictions.parquet"))) for folder in ("one", "two")
)
assert (one["id"] == two["id"]).all()

# %% [markdown]
# As many rows, in the same order. Their probabilities:

# %%
difference = (one["y_prob"] - two["y_prob"]).abs().max()
print(f"{len(one)} and {len(two)} probabilities, largest difference {difference:.0e}")
assert difference < 1e-3
place.cleanup()

# %% [markdown]
# What is left is rounding: sums in another order. So that it is no more than that,
# - each process takes half of every batch; the rows that fill up the last one count for nothing, and of a prediction there is one a row, in the order of the rows;
# - the loss is a sum divided by the number of known cells in *all* processes (notebook 4), so that halves with unequal numbers of known cells weigh as they should.
#
# A batch size that the processes cannot share out equally is refused.
#
# **After a cut** the same command goes on: after each epoch, model, optimizer, schedule and random numbers are kept in `checkpoints/` in the run's folder, the last and the best, until the model is saved. It begins with the last checkpoint that is whole, and in one process ends with the weights of an unbroken training, bit for bit. A flag is not needed for it, as the folder's name covers all that shapes the model: with another parameter it is another folder. What is cut off in its first epoch begins anew.
#
# ## On 1, 8 and 64 GPUs
# What follows is arithmetic, nothing was measured. Of 100,000 texts, with the batch size of all processes together at 256, or with a batch of 32 on each card:

# %% tags=["nbval-check-output"]
cards = pd.Index([1, 8, 64], name="cards")
kinds = {"256 together": 256 + 0 * cards, "32 on each card": 32 * cards}
table = {}
for kind, size in kinds.items():
    table |= {(kind, "batch"): size, (kind, "on a card"): size // cards}
    table[kind, "steps an epoch"] = -(-100_000 // size)
pd.DataFrame(table, index=cards)

# %% [markdown]
# On the left nothing changes but the time: the steps are the same, so rate and epochs stay. With 64 cards each has four texts a step, and is likely to wait for the exchange of gradients more than it computes. On the right each card has enough to do, and there are few steps left: three epochs on 64 cards are less than 150.
#
# So a larger batch is a question before it is a setting: are so few steps enough to learn from? Which learning rate suits them? That of the small batch was chosen for noisier gradients. Rules that scale the rate with the batch are starting points; the answer is a validation score over several rates.
#
# ## What fits on a card
# Above, each card holds the whole model, which is right for all models of this course. Training with Adam in 32 bits takes 16 bytes a parameter that learns: 4 for itself, 4 for its gradient, 8 for Adam's two averages. A frozen one takes 4.

# %%
sizes = {"the model above": sum(p.numel() for p in model.parameters()), "66 million": 66e6}
sizes |= {"340 million": 340e6, "1.5 billion": 1.5e9, "5 billion": 5e9, "7 billion": 7e9}
memory = pd.DataFrame({"GB": {name: 16 * n / 1e9 for name, n in sizes.items()}})
memory.assign(**{f"fits in {card} GB": memory["GB"] <= card for card in (24, 80)}).round(1)

# %% [markdown]
# Activations come on top, and grow with batch size and MAX_LEN, so that a model of just that size does not fit. Only where the table says no is it time for FSDP (fully sharded data parallel), which cuts parameters, gradients and averages into shares, one a card, and fetches the others' when they are needed: more memory for more exchange. The encoders that are usual for classification, of 66 and 340 million parameters, are far from it. The course has no code for FSDP.
#
# ## In short
# - One process a GPU, a share of each batch for each, gradients averaged: the loop stays as it is but for four lines, and the Trainer by one command.
# - The batch size is that of all processes together; then more of them change the time, not the result.
# - A larger batch means fewer steps: choose its learning rate anew.
# - FSDP is for models that do not fit on one card, at 16 bytes a parameter and the activations.
#
# **Back:** [3 · A custom model and its training](../03_custom_model_training.ipynb), [4 · The Trainer with class weights](../04_trainer_class_weights.ipynb). **Also for a second reading:** [A1 · What a recipe buys](A1_what_a_recipe_buys.ipynb), [A2 · Other forms of data](A2_other_forms_of_data.ipynb).
