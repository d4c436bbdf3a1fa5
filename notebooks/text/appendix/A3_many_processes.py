# %% [markdown]
# # A3 · Many processes
#
# For a second reading: for those who have several GPUs, or several machines, and want the loop of notebook 3 to use them all. On one GPU, or none, nothing here makes training faster. What is shown was run in a single process on CPU; that two processes have the loss curve of one is checked by the course's tests, and speed on several GPUs was not measured.
#
# **You will be able to**
# - run a training loop of your own in several processes with Accelerate, by four lines;
# - say what happens to the batch size, the gradients and the files that are written.
#
# **Time:** a quarter of a minute on the built-in data, on a laptop with two CPU cores.

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
from itertools import islice

import torch
from accelerate import Accelerator, DataLoaderConfiguration

from helpers import models, quiet
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
#
# ## In short
# - One process a GPU, a share of each batch for each, gradients averaged: the loop stays as it is but for four lines.
#
# **Back:** [3 · A custom model and its training](../03_custom_model_training.ipynb). **Also for a second reading:** [A1 · What a recipe buys](A1_what_a_recipe_buys.ipynb), [A2 · Other forms of data](A2_other_forms_of_data.ipynb).
