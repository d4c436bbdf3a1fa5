# %% [markdown]
# # 4 · The Trainer with class weights
#
# The same task with the Hugging Face `Trainer`, which brings checkpoints, mixed precision and several devices, and asks for care in exchange: the loss is where most copies of this recipe go wrong. By default the data are comments from discussion pages: most carry no label, and some labels are rare. So this notebook also answers what a weight for rare labels does, to the score and to the probabilities.
#
# **You will be able to**
# - say for each line of notebook 3's loop what the Trainer has in its place, and which lines need code of your own;
# - choose `pos_weight`, and explain why scikit-learn's "balanced" weights are about half of what it needs;
# - write a weighted loss that stays right under gradient accumulation, and test it;
# - read an epoch table, and say when a model has begun to memorise;
# - say which probability a weight makes of a label's share, and take the weight out again;
# - say why an evaluation can run out of memory where training did not.
#
# A word that is new to you is in the [glossary](https://github.com/multilabel-course/multilabel-course/blob/main/docs/glossary.md).
#
# **Time:** six minutes on the built-in data, on two CPU cores that only have fp32, and a good deal less where they compute in bf16 (`print(run)` below says which). With data of your own: up to four minutes for 1,500 one-line texts with 60 labels; for 2,500 texts as long as MAX_LEN up to one minute, and up to one more for each epoch, of which there are 3 to 20. On a GPU: not measured.

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
import copy
import tempfile
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler

from helpers import drawings, exercises, models, plots
from helpers.data import label_matrix
from helpers.labels import count_positives, known, label_shares
from helpers.metrics import compare, decision_scores, differences, macro_average_precision, per_label_table
from helpers.models import to_probabilities
from helpers.notebooks import expect, show_error
from helpers.runtime import start_run
from helpers.tokenization import MultiLabelCollator, share_cut, tokenize_splits
from helpers.trainer import save_results
from helpers.training import ShuffledLengthGroupedSampler, freeze_lower_layers
from helpers.training import in_groups, parameter_groups, pos_weights

# %% [markdown]
# `start_run` checks the parameters, reads the data, picks device and precision, and seeds everything. What it settled on, and where each value came from:

# %%
plots.set_style()
run = start_run(
    "04_trainer_class_weights",
    default_dataset="comments",
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
)
print(run)

# %%
settings, compute, splits = run.settings, run.compute, run.splits
train, valid = splits["train"], splits["validation"]
y_train, y_valid = label_matrix(train), label_matrix(valid)

# %% [markdown]
# ## From the loop to the Trainer
# The Trainer is notebook 3's loop, written by others for all tasks. Each line of ours is an argument or a method of it:
#
# | in the loop | in the Trainer |
# |---|---|
# | `make_loader(train, ...)` | `train_dataset`, `data_collator`, `per_device_train_batch_size` |
# | texts of similar length together, shuffled | **none**; `_get_train_sampler`, overridden |
# | `.to(device)`, `autocast()`, `scaler` | `use_cpu`, `bf16`, `fp16` |
# | `loss_fn(logits, labels, pos_weight)`, unknown cells left out | **none**; `compute_loss`, overridden |
# | each batch by its share of a group's known cells | `gradient_accumulation_steps`, and in `compute_loss` the argument `num_items_in_batch` |
# | stop at a loss that is not finite | **none**; in `compute_loss` |
# | `clip_grad_norm_(..., 1.0)` | `max_grad_norm`, which is 1 unless you say otherwise |
# | `optimizer` with two rates | `optimizers=(optimizer, None)`; its rates count then, not `learning_rate` |
# | `scheduler`: warm-up, then decay to zero | `warmup_steps=0.1`; linear decay is the default |
# | `for epoch in range(epochs)` | `num_train_epochs` |
# | `validation(...)`, macro-AP | `eval_dataset`, `eval_strategy="epoch"`, `compute_metrics` |
# | keep the best epoch | `save_strategy`, `load_best_model_at_end`, `metric_for_best_model` |
# | `patience=2` | `callbacks=[EarlyStoppingCallback(2)]` |
# | go on after an interruption | `trainer.train(resume_from_checkpoint=True)` |
#
# Three lines have no counterpart that does what we need, and the one on shares has a trap. All fit into two methods of a subclass, below.
#
# ## Rare labels
# The built-in comments were written for this course: mild words, absurd threats, and invented groups only. They have the six labels of the well-known toxic-comment task, in which `severe_toxic` implies `toxic`. How many texts there are, and how often each label occurs:

# %% tags=["nbval-check-output"]
print(f"{len(train)} training and {len(valid)} validation texts")
print(f"without any label: {np.mean(~(y_train == 1).any(1)):.0%}")
positives = {"train": count_positives(y_train), "validation": count_positives(y_valid)}
plots.commonest(pd.DataFrame(positives, index=run.label_names), positives["train"])

# %% [markdown]
# Look at the validation column before trusting any score of a rare label: with eight positives, one text more or less would move its recall by an eighth. So a label with fewer than ten takes no part in any score by which something is chosen, here or in the other notebooks; `print(run)` names the first of them. The built-in comments give most of their rows to validation and test for that reason.
#
# ## The model
# `problem_type` matters: it makes the model's own loss binary cross-entropy and tells `pipeline` to use a sigmoid. The label names go into the config, and travel with the model from here on. Our `load_model` sets both and says which weights are new. (Of a checkpoint that was fine-tuned before, the head is kept for the same labels in the same order, and replaced for any others.)

# %%
tokenizer = models.load_tokenizer(run.checkpoint)
model = models.load_model(run.checkpoint, run.label_names, attn_implementation=compute.attention)
model = model.to(compute.device)
print(type(model).__name__, model.config.problem_type)
print(*list(model.config.id2label.items())[:10], "..." if len(run.label_names) > 10 else "")

# %% [markdown]
# The classification head is new, all else pre-trained. Of the texts it reads no more than MAX_LEN tokens:

# %% tags=["nbval-check-output"]
texts_cut, tokens_cut = share_cut(train["text"][:], tokenizer, settings.max_len)
print(
    f"cut at {settings.max_len} tokens: {texts_cut:.1%} of the training texts, {tokens_cut:.1%} of all tokens"
)

# %% [markdown]
# On the built-in comments that is little; if it is a good part of yours, notebook 2 has the price of a larger MAX_LEN, notebook 6 reads long texts in windows. A batch of eight texts, to try things on:

# %%
tokenized = tokenize_splits(splits, tokenizer, settings.max_len).select_columns(
    ["input_ids", "attention_mask", "labels"]
)
collator = MultiLabelCollator(tokenizer)
batch = {
    name: tensor.to(compute.device)
    for name, tensor in collator([tokenized["train"][i] for i in range(min(8, len(train)))]).items()
}

# %% [markdown]
# A forward pass, with the attention mask, gives logits and a loss; the loss is the mean over cells from notebook 3. Shape and size can be said beforehand: a logit for each text and label, and $\log 2 = 0.69$ or so, since the head knows nothing.

# %%
with torch.inference_mode():
    output = model.eval()(**batch)
print("logits", tuple(output.logits.shape), "loss", round(output.loss.item(), 4))
assert torch.isclose(output.loss, binary_cross_entropy_with_logits(output.logits, batch["labels"]))

# %% [markdown]
# ## Three calls that fail today
# This part of the course grew out of a notebook on toxic comments that is often copied; we call it **the copied notebook** from here on. It was written for an older version of transformers. Three of its calls, as they stand there; what does the library say to each?

# %% tags=["raises-exception"]
checkpoints = tempfile.TemporaryDirectory()
with show_error():
    TrainingArguments(checkpoints.name, evaluation_strategy="epoch")
with show_error():
    Trainer(model, tokenizer=tokenizer)

# %% [markdown]
# The first is called `eval_strategy` now. The second is `processing_class=`, which only saves the tokenizer beside the checkpoints; what batches are made with is `data_collator`. The third error comes later, with the first batch:


# %% tags=["raises-exception"]
class CopiedTrainer(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False):
        return model(**inputs).loss


arguments = TrainingArguments(checkpoints.name, use_cpu=compute.device.type == "cpu", report_to="none")
with show_error():
    CopiedTrainer(model, arguments, data_collator=collator).training_step(model, batch)

# %% [markdown]
# To add the argument `num_items_in_batch=None` makes the error go away. What has to be done with it is another question, and the one that matters.

# %% [markdown]
# ## Weights for rare labels
# `BCEWithLogitsLoss` takes a `pos_weight` per label, by which the loss of positives is multiplied. For positives and negatives to weigh the same in total it has to be n_neg / n_pos. The copied notebook puts scikit-learn's "balanced" class weight there instead, n / (2 n_pos). Which is the larger, and by how much, for a rare label? Side by side:

# %% tags=["nbval-check-output"]
n_pos, n_neg = count_positives(y_train), (y_train == 0).sum(0)
usable = (n_pos > 0) & (n_neg > 0)  # "balanced" weights exist only where both answers occur
balanced = [
    compute_class_weight("balanced", classes=np.array([0, 1]), y=column[known(column)])[1] if ok else np.nan
    for column, ok in zip(y_train.T.astype(int), usable, strict=True)
]
weights = pd.DataFrame(
    {
        "n_pos": n_pos,
        "balanced, n / (2 n_pos)": balanced,
        "n_neg / n_pos": pos_weights(y_train, power=1, cap=np.inf).double().numpy(),
        "sqrt(n_neg / n_pos)": pos_weights(y_train, cap=np.inf).double().numpy(),
    },
    index=run.label_names,
)
plots.rarest(weights, n_pos).round(1)

# %% [markdown]
# "Balanced" weighs *both* classes, so that the mean weight is 1; as `pos_weight`, with negatives at 1, it is about half of what balances a rare label. It is a slip. (For a label on no text there is no such weight at all, and the copied code stops with an IndexError.)
#
# With full balance one mislabelled positive outweighs many right negatives. The square root, half-way on a log scale, is what we train with; a cap keeps a label with hardly any positives from taking over. What a weight does to the answers stands below; whether the square root ranks better than no weights or than full balance was not measured over seeds on the comments.

# %%
pos_weight = pos_weights(y_train, run.label_names)

# %% [markdown]
# ## A loss that can be added up
# Where memory is short, several small batches make one step: **gradient accumulation**. The gradients are added, so the losses must be such that they may be added. Four texts with two labels, one cell of them unknown, as one batch and as two:

# %%
cell_losses = np.array([[0.1, 0.3], [0.5, 0.2], [0.9, np.nan], [0.4, 1.1]])
ax = drawings.accumulation(cell_losses, n_first=2)

# %% [markdown]
# A mean for each half, and the sum of the two is about twice what the whole batch gives; with four parts it would be four times. To divide by the number of parts mends the size and not the weights: a cell of the smaller part counts more. What is exact is a **sum over cells, divided by the number of known cells in all parts together**. That number is `num_items_in_batch`.
#
# ## A Trainer with that loss
# Two methods change. In `compute_loss`:
# - the labels are used here and not passed to the model, which would compute its own unweighted loss for nothing;
# - `mask` is 0 in cells that nobody answered, and 1 elsewhere; the loss is the sum from above;
# - several processes average their gradients where one process adds, so the sum counts as many times as there are processes; for evaluation it returns the logits and nothing else;
# - a loss that is no number any more stops the training, as in notebook 3. (The Trainer on its own goes on, and leaves such losses out of its log.) What this loss does not have, label smoothing, is refused and not passed over.
#
# The other method says which texts form a batch; it comes after the class.


# %%
class WeightedTrainer(Trainer):
    def __init__(self, *args, pos_weight=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.pos_weight = None if pos_weight is None else pos_weight.to(self.args.device)
        self.args.average_tokens_across_devices = True  # num_items_in_batch counts the cells of all processes
        if self.args.label_smoothing_factor:
            raise ValueError("label_smoothing_factor has no part in this loss; leave it at 0")

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels, mask = inputs["labels"], known(inputs["labels"]).float()
        outputs = model(**{name: value for name, value in inputs.items() if name != "labels"})
        total = binary_cross_entropy_with_logits(
            outputs.logits.float(), labels * mask, mask, pos_weight=self.pos_weight, reduction="sum"
        )
        if num_items_in_batch is None:
            loss = total / mask.sum().clamp(min=1)
        else:
            cells = torch.as_tensor(num_items_in_batch).max()  # for two GPUs in one process it comes twice
            loss = total * self.accelerator.num_processes / cells.clamp(min=1)  # processes average gradients
        if not torch.isfinite(loss):
            steps = self.state.global_step
            raise FloatingPointError(f"the loss after {steps} steps is {loss.item()}: lower LEARNING_RATE")
        return (loss, {"logits": outputs.logits}) if return_outputs else loss

    def _get_train_sampler(self, train_dataset=None):
        lengths = [len(ids) for ids in self.train_dataset["input_ids"]]
        generator = torch.Generator().manual_seed(self.args.seed)
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return ShuffledLengthGroupedSampler(size, lengths=lengths, generator=generator)


# %% [markdown]
# Does it add up? One step over the eight texts, as one batch, as two and as four, by the library's Trainer and by ours, here without weights. What counts is the length of the gradient, here the head's. Before you look: what should the three be, beside each other?


# %%
def gradient_norm(kind, steps):
    still = copy.deepcopy(model).eval()
    still.train = lambda mode=True: still  # the Trainer calls it, and would switch dropout on
    still.base_model.requires_grad_(False)  # the head's gradient tells enough, and takes less time
    one = kind(still, replace(arguments, gradient_accumulation_steps=steps), data_collator=collator)
    parts = [{name: tensor[i::steps] for name, tensor in batch.items()} for i in range(steps)]
    parts, num_items_in_batch = one.get_batch_samples(iter(parts), steps, compute.device)
    for part in parts:
        one.training_step(still, part, num_items_in_batch)
    return torch.cat([p.grad.flatten() for p in still.parameters() if p.grad is not None]).norm().item()


# %% [markdown]
# Divided by the first row of each column:

# %%
kinds = {"Trainer": Trainer, "WeightedTrainer": WeightedTrainer}
norms = {name: [gradient_norm(kind, steps) for steps in (1, 2, 4)] for name, kind in kinds.items()}
norms = pd.DataFrame(norms, index=pd.Index([1, 2, 4], name="parts"))
assert np.allclose(norms["WeightedTrainer"], norms.loc[1, "WeightedTrainer"], rtol=0.01)
(norms / norms.loc[1]).round(2)

# %% [markdown]
# The library's Trainer hands `num_items_in_batch` to the model and trusts it to divide by it. Language models do; the library's multi-label loss does not, and takes a mean for each part. So the gradient grows with the number of parts. With clipping at 1 that can pass unnoticed for long: every step is cut to the same length, whatever the loss was. Ours is the same each time, but for rounding.
#
# ## The order of batches
# Batches of similar length waste little on padding. The Trainer's own way to them is `train_sampling_strategy="group_by_length"`; it hands them out from long to short, several times an epoch. (It also puts the rows of `predict()` in that order, so that probabilities end up with other texts.) `_get_train_sampler` puts the shuffled sampler of notebook 3 in its place, for training only. The longest text of each batch, through an epoch:

# %%
lengths = [len(ids) for ids in tokenized["train"]["input_ids"]]
longest = {}
for name, kind in (("the library's", LengthGroupedSampler), ("ours", ShuffledLengthGroupedSampler)):
    generator = torch.Generator().manual_seed(settings.seed)
    rows = kind(settings.train_batch_size, lengths=lengths, generator=generator)
    batches = in_groups(rows, settings.train_batch_size)
    longest[name] = [max(lengths[i] for i in batch_rows) for batch_rows in batches]
axes = drawings.batch_order(longest)

# %% [markdown]
# Left, neighbours in the row are alike: a stretch of long texts, then ever shorter ones. Right, the same kind of batches in random order. What it costs depends on the recipe: on the built-in film plots, in a recipe that was still fragile, two seeds of five collapsed with the order on the left; in one with more steps the two were 0.007 apart ([A1](appendix/A1_what_a_recipe_buys.ipynb)).
#
# ## What to watch while training
# The metric gets logits, turns them into probabilities and looks at the ranking. A score of 0/1 decisions at 0.5 would mostly report how far the threshold is off.


# %%
def compute_metrics(prediction):
    y_true, y_prob = prediction.label_ids, to_probabilities(prediction.predictions)
    return {"macro_ap": macro_average_precision(y_true, y_prob)}


# %% [markdown]
# ## The arguments
# Evaluate and save once an epoch, keep the best by macro-AP, tell no service about it (`report_to="none"`). The rate warms up over a tenth of the steps and decays to zero, as in notebook 3.


# %%
def training_arguments(settings, compute, folder):
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.train_batch_size,
        per_device_eval_batch_size=settings.valid_batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=0.1,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="macro_ap",
        bf16=compute.precision == "bf16",
        fp16=compute.precision == "fp16",
        use_cpu=compute.device.type == "cpu",
        dataloader_pin_memory=compute.device.type == "cuda",
        logging_strategy="epoch",
        report_to="none",
        seed=settings.seed,
    )


# %% [markdown]
# Evaluation needs no gradients and fits larger batches: `per_device_eval_batch_size`.
#
# On small data the embeddings and the lower two thirds of the layers are frozen, and the optimizer gives the head ten times the encoder's rate, as in notebook 3. The head reads the mean of all tokens' states where the encoder was pre-trained for that: one more layer, with nothing to learn in it, makes that mean and is saved like any other ([A1](appendix/A1_what_a_recipe_buys.ipynb) takes it apart). Everything together:

# %%
if settings.freeze:
    freeze_lower_layers(model)
if run.pooling == "mean":
    models.add_mean_pooling(model)
trainer = WeightedTrainer(
    model=model,
    args=training_arguments(settings, compute, checkpoints.name),
    train_dataset=tokenized["train"],
    eval_dataset=tokenized["validation"],
    data_collator=collator,
    compute_metrics=compute_metrics,
    optimizers=(torch.optim.AdamW(parameter_groups(model, settings.learning_rate), fused=True), None),
    pos_weight=pos_weight,
)

# %% [markdown]
# Is the loss what we think? For one batch, by hand: every positive cell times its label's weight, then the mean.

# %%
model.eval()
with torch.inference_mode():
    loss = trainer.compute_loss(model, batch)
    cells = binary_cross_entropy_with_logits(
        model(**{name: batch[name] for name in ("input_ids", "attention_mask")}).logits,
        batch["labels"],
        reduction="none",
    )
weighted = cells * torch.where(batch["labels"] == 1, trainer.pos_weight, 1.0)
by_hand = weighted[known(batch["labels"])].mean()
print(f"weighted loss {loss.item():.4f}, by hand {by_hand.item():.4f}")
print(f"unweighted {cells[known(batch['labels'])].mean().item():.4f}")
assert torch.isclose(loss, by_hand)

# %% [markdown]
# The two agree. Before training, each missed positive costs its label's weight, so that with rare labels the weighted loss is the larger one: losses with different weights cannot be compared.
#
# With rate and schedule alike, five steps of this Trainer are five steps of notebook 3's loop, to the fifth digit of the loss; a test of the course compares them.

# %% [markdown]
# ### Labels that nobody set
# Often some cells are empty: an annotator skipped a question, or, as in the test file of the toxic-comment task, rows that were never scored hold -1. Zeros in their place would be claims that nobody made, and the model would learn them. Such a cell is **unknown**, and libraries mark it by **-100**; the parameter `UNKNOWN = True` has empty cells and -1 read so. Let the first label be unknown in every other row of the batch:

# %%
labels = batch["labels"].clone()
labels[::2, 0] = -100
partly = {**batch, "labels": labels}
with torch.inference_mode():
    loss, own = trainer.compute_loss(model, partly), model(**partly).loss
print(f"our loss {loss.item():.4f}, the model's own {own.item():.4f}")
assert torch.isclose(loss, weighted[known(labels)].mean())

# %% [markdown]
# Our loss is the mean over the cells that are left, weighted as before. The model's own takes -100 for a target like any other, and pushes the logit down more than a hundred times as hard as a no does. The number of cells that the Trainer passes leaves them out already:

# %%
_, count = trainer.get_batch_samples(iter([partly]), 1, compute.device)
print(f"{labels.numel()} cells, {known(labels).sum().item()} known")
assert torch.all(count == known(labels).sum())

# %% [markdown]
# Everything else does the same: weights, baselines, thresholds and scores look at known cells only.

# %% [markdown]
# ## Training

# %%
start = time.perf_counter()
result = trainer.train()

# %% [markdown]
# Read the table by rows: the training loss falls in any case; the validation loss and macro-AP say whether anything general was learned. The same as two pictures:

# %%
log = pd.DataFrame(trainer.state.log_history).groupby("epoch").first()
names = {"loss": "training loss", "eval_loss": "validation loss", "eval_macro_ap": "macro-AP"}
look = {"layout": (1, 2), "marker": "o", "figsize": (7.5, 2.8), "title": ["Loss", "Validation macro-AP"]}
panels = [["training loss", "validation loss"], ["macro-AP"]]
ticks = range(1, settings.epochs + 1, 1 + settings.epochs // 13)
axes = log[list(names)].rename(columns=names).plot(subplots=panels, xticks=ticks, **look)
axes[0, 0].figure.set_layout_engine("constrained")

# %% [markdown]
# The Trainer loads the epoch with the best macro-AP at the end, here this one:

# %%
best = log["eval_macro_ap"].fillna(-1).idxmax()
print(f"best epoch: {best:.0f} of {settings.epochs}, macro-AP {log.loc[best, 'eval_macro_ap']:.3f}")

# %% [markdown]
# On the built-in comments the validation loss turns upwards in the last epoch, while macro-AP still gains: probabilities get worse, and the order better. Is that a contradiction? The loss asks for good probabilities, macro-AP for the right order only, and a model that is surer than it should be may still order well.
#
# `save_results` stores what the next notebooks need: the validation probabilities, the scores, and the model folder with its tokenizer and the thresholds that notebook 5 explains. Before it saves, it makes sure that row *i* of the prediction is row *i* of the data. (Nothing is uploaded. After `hf auth login`, `model.push_to_hub("your-name/model")` on the loaded folder would do that.)

# %%
seconds = {"fine-tuned": time.perf_counter() - start}
predictions = {"fine-tuned": save_results(run, trainer, tokenizer, seconds["fine-tuned"])}
checkpoints.cleanup()

# %% [markdown]
# ## Too many epochs
# From the epoch on in which validation loss turns upwards, a model is surer of its answers than it is right: it has begun to learn the training texts by heart, which is called **overfitting**. Which epoch is best depends on what you need: probabilities that keep their word, a good order, or decisions at 0.5. The course keeps the epoch by macro-AP, and mends probabilities and cuts afterwards.
#
# The copied notebook trains for ten epochs. What became of it? Its table, as printed: bert-base, some 128,000 training comments, "balanced" weights, the best epoch chosen by F1 at 0.5. (Its F1 is a mean over seven columns, a seventh being "no label". It is other data and another model, so these are context and nothing to compare with.)

# %%
copied = pd.DataFrame(index=pd.RangeIndex(1, 11, name="epoch"))
copied["validation loss"] = [0.174, 0.160, 0.171, 0.188, 0.250, 0.241, 0.295, 0.321, 0.321, 0.341]
copied["F1 macro at 0.5"] = [0.565, 0.599, 0.632, 0.641, 0.681, 0.674, 0.692, 0.703, 0.698, 0.703]
axes = copied.plot(
    subplots=True, layout=(1, 2), figsize=(7.5, 2.6), marker="o", legend=False, title=list(copied)
)
axes[0, 0].figure.set_layout_engine("constrained")

# %% [markdown]
# The validation loss is lowest after two epochs, at 0.160, and has more than doubled after ten. The F1 rises from 0.565 to 0.703 nearly all the while, and the eighth epoch is kept. Is that model the better one? The table cannot say. Its probabilities are worse by the very loss that it was trained with. Its decisions at 0.5 are better; but with weights of 50 and 158 on rare labels the probabilities begin far too high (a precision of 0.16 for `threat` in the first two epochs, at a recall of 0.93 and more), and a model that becomes surer may also move them down to where 0.5 cuts well. Another cut in the second epoch might have given as much. Whether the order of texts improved, only a score of the ranking would tell, and there is none: what is called ROC AUC in it is computed from 0/1 decisions (notebook 5).

# %% [markdown]
# ## What a weight does to one label
# Take a model that may say only one probability $p$ for all texts. Of a label with share $q$ and weight $w$ its loss is
#
# $$-wq \log p - (1-q)\log(1-p).$$
#
# At the minimum the derivative is zero, $wq/p = (1-q)/(1-p)$, and so
#
# $$p = \frac{wq}{wq + 1 - q}, \qquad\text{or}\qquad \frac{p}{1-p} = w\,\frac{q}{1-q}.$$
#
# The weight multiplies the odds. Nothing in it needs $q$ to be the share in all texts: of texts that look alike to the model, the same holds with their share. Which $p$ comes of full balance, $w = (1-q)/q$? Say it before you look.


# %%
def best_constant(q, w):
    return w * q / (w * q + 1 - q)


q = np.geomspace(0.002, 0.5, 50)
curves = pd.DataFrame({"w = 1": q, "square root": best_constant(q, np.sqrt((1 - q) / q))}, q)
curves["full: n_neg / n_pos"] = best_constant(q, (1 - q) / q)
curves['"balanced": n / (2 n_pos)'] = best_constant(q, 1 / (2 * q))
shares = label_shares(y_train)

# %% [markdown]
# The four as curves; the points are the labels of this run, with the weights they are trained with:

# %%
ax = curves.plot(logx=True, figsize=(7.5, 3.4), color=list(plots.PALETTE[:4]), ylim=(0, 0.75))
ax.plot(shares, best_constant(shares, pos_weight.numpy()), "o", color=plots.PALETTE[1])
ticks = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5]
ax.set_xticks(ticks, [f"{share:.1%}" for share in ticks])
ax.minorticks_off()
ax.legend(ncol=2, loc="upper left")
_ = ax.set(title="The best constant answer", xlabel="share of the label", ylabel="probability")

# %% [markdown]
# Without weights it is the share. Full balance answers one half to every label, however rare: a model that knows nothing says "perhaps" to a threat in one of a hundred texts. "Balanced" ends at one third for rare labels, and so is nearer to full balance than to none. The square root is between: a label on 5% of the texts gets 19%.
#
# Which weight is best for the score is another question, and one training can't answer it. Over five seeds of the built-in film plots, where no label is rare, a gain of the square root can't be told from none ([A1](appendix/A1_what_a_recipe_buys.ipynb)).
#
# ## Weights undone
# Since the weight multiplies the odds, dividing by it gives them back. With $p$ for what the weighted model says:
#
# $$\frac{p_\text{undone}}{1 - p_\text{undone}} = \frac{1}{w}\,\frac{p}{1-p}, \qquad p_\text{undone} = \frac{p}{p + w(1-p)}.$$
#
# It is exact for the answer that is best under the weighted loss. A trained model is only near it, so look. Whether probabilities agree with what then happens is their **calibration**; its simplest test compares a label's mean probability with its share. On the validation texts of this run:

# %%
y_prob, w = predictions["fine-tuned"], pos_weight.numpy()
undone = y_prob / (y_prob + w * (1 - y_prob))
means = {"share": label_shares(y_valid), "mean probability": y_prob.mean(0), "undone": undone.mean(0)}
means = pd.DataFrame(means, index=run.label_names)
plots.commonest(means, count_positives(y_train)).map("{:.1%}".format)

# %% [markdown]
# On the built-in comments most means as trained lie near the shares already, although the weights there are 1.9 to 4.5; undone, most come out too low. So the formula does not describe this model as a whole. A weight lifts the answer where the model is in doubt. Where it is sure, near 0 or 1, odds that are four times as high make little difference; and a model that has begun to memorise may be sure more often than it should be, here of a no. The two pull in opposite directions.
#
# Two scores of a probability, both the lower the better: the **Brier score**, the mean square of the distance to the answer, 0 or 1, and the **log loss**, which is the unweighted loss of notebook 3. Before and after:


# %%
def of_probabilities(y_true, y_prob):
    given = np.where(y_true == 1, y_prob, 1 - y_prob)[known(y_true)]  # to the right answer
    return {"Brier": np.mean((1 - given) ** 2), "log loss": -np.log(given.clip(1e-15)).mean()}


prior = np.broadcast_to(label_shares(y_train), y_valid.shape)
answers = {"label prior": prior, "as trained": y_prob, "undone": undone}
pd.DataFrame({name: of_probabilities(y_valid, p) for name, p in answers.items()}).T.round(4)

# %% [markdown]
# On the built-in comments both are far better than the label prior, and undoing helps little: the Brier score hardly moves, and the log loss gets worse. It takes out the whole weight, of which the means above show little; and a yes that the model took for unlikely becomes less likely still, which the log loss punishes most. So measure before you correct.
#
# A weight is the same for all texts of a label, so their order stays, and with it AP. What changes is what 0.5 means: where the formula holds, it is again "one in two" after undoing. A cut at 0.5 there is a cut at $w / (w + 1)$ before. That is the cut for as few wrong cells as possible; for the best F1 on a rare label the place is another, and lower:

# %%
plots.commonest(per_label_table(y_valid, y_prob, run.label_names), count_positives(y_train)).round(2)

# %% [markdown]
# Look for labels with a good AP and a poor F1: they are ranked well and cut in the wrong place. The next notebook chooses the place, where there are positives enough to choose by.

# %% [markdown]
# ## Was it worth it?
# Baselines of notebook 3, on these data. (The frozen encoder is left out to save time: on the built-in comments it stays behind the linear SVM, see the table of three sets in [A1](appendix/A1_what_a_recipe_buys.ipynb).)

# %%
texts, new_texts = train["text"][:], valid["text"][:]
baselines = {
    "all zeros": lambda: models.all_zeros(texts, y_train, new_texts),
    "label prior": lambda: models.label_prior(texts, y_train, new_texts),
    "linear SVM": lambda: models.linear_svm(texts, y_train, new_texts),
}
for name, predict in baselines.items():
    start = time.perf_counter()
    predictions[name] = predict()
    seconds[name] = time.perf_counter() - start
    run.folder.record(
        name,
        "validation",
        {
            "macro-AP": macro_average_precision(y_valid, predictions[name]),
            **decision_scores(y_valid, predictions[name]),
        },
        seconds[name],
    )

# %% [markdown]
# And one more that costs nothing: the **blend** of the fine-tuned model and the linear SVM, the mean of their logits, each brought to mean 0 and deviation 1. Two models that err on different texts may correct each other:

# %%
predictions["blend"] = models.blend([predictions["fine-tuned"], predictions["linear SVM"]])
seconds["blend"] = seconds["fine-tuned"] + seconds["linear SVM"]

# %% [markdown]
# Side by side:

# %%
table = compare(y_valid, {name: predictions[name] for name in [*baselines, "fine-tuned", "blend"]}).assign(
    seconds=pd.Series(seconds)
)
ax = plots.model_scores(table)

# %% [markdown]
# As numbers, with subset accuracy and macro F1 at 0.5 (both are the subject of notebook 5):

# %%
table[["macro-AP", "low", "high", "subset accuracy", "F1 macro", "seconds"]].round(3)

# %% [markdown]
# *All zeros* has a subset accuracy that looks respectable, where most texts carry no label at all; its macro-AP shows what it is. Whether the fine-tuned model is really ahead of the serious baseline, the linear SVM, the same resampled texts tell:

# %%
ahead = table.loc["fine-tuned", "macro-AP"] > table.loc["label prior", "macro-AP"] + 0.1
expect(ahead, "the fine-tuned model ranks far better than the label prior", settings)
differences(y_valid, predictions, "fine-tuned").round(3)

# %% [markdown]
# The fine-tuned model's epoch was chosen on these validation texts, on the built-in data its recipe as well; the baselines had no such choice. The test split of notebook 5 will tell how much that was worth.
#
# The intervals cover the choice of texts; all of it speaks of one training, and another seed moves the fine-tuned model, too ([A1](appendix/A1_what_a_recipe_buys.ipynb) has five, of both trainings). Where two can't be told apart, the cheaper model is a good choice until there are more data. On the built-in comments the words are in harmful and harmless texts alike, by design, so the lead of the model that reads their order says nothing about real data. Whether the blend helps there can't be told, also over five seeds (A1); on the built-in film plots, where its two parts are closer, it gains on both splits.

# %% [markdown]
# ## Out of memory in evaluation
# The copied notebook trains for an hour and forty minutes, calls `trainer.evaluate()`, and ends in an error: *CUDA out of memory. Tried to allocate 10.08 GiB*, on a GPU of 22. Training fitted, and evaluation needs less. What was it that needed ten gigabytes? Another of its errors gives it away: its `model` had become a bare `BertModel`, without a head. Such a model returns the states of all tokens, and the Trainer keeps every tensor that a model returns, of all batches, to hand it to `compute_metrics`. Its batches have 64 texts of 128 tokens, and a state of bert-base has 768 numbers of 4 bytes. How many batches fill 10.08 GiB?

# %% tags=["nbval-check-output"]
per_batch = 64 * 128 * 768 * 4
print(f"a batch: {per_batch / 2**20:.0f} MiB; 10.08 GiB are {10.08 * 2**30 / per_batch:.1f} of them")
print(f"430 batches: {430 * per_batch / 2**30:.2f} GiB")

# %% [markdown]
# 430 batches, to the last digit. They had been kept on the GPU, and to join the new states to the old ones takes both at once: 10 there already, 10 more asked for. What do the logits of the same texts take, in bytes? And what do the two kinds of model return, for eight texts?

# %%
eight, pad = tokenized["validation"].select(range(min(8, len(valid)))), DataCollatorWithPadding(tokenizer)
for kept_of in (model.base_model, model):
    kept = Trainer(kept_of, arguments, data_collator=pad).predict(eight).predictions
    kept = kept[0] if isinstance(kept, tuple) else kept
    print(f"{type(kept_of).__name__}: {kept.shape}, {kept.nbytes:,} bytes")

# %% [markdown]
# With a head it is a number for each text and label, and memory is no question. (And with a bare encoder no loss or score is computed: its `forward` takes no labels, so the Trainer drops that column.) Our `compute_loss` hands the logits alone to evaluation, whatever else the model returns. In a Trainer without it, `Trainer(preprocess_logits_for_metrics=...)` is called on each batch's outputs before they are kept, and what it returns is kept in their place; `eval_accumulation_steps` moves what is kept from the GPU to the computer's memory every so many batches.

# %% [markdown]
# ## Exercises
# Three to work out on paper. Put your answer in the place of `None`, run the cell and the one below it: it says whether the answer is right, or what is off. An unanswered exercise stops nothing. The solutions are folded; try first.

# %% [markdown]
# ### Exercise 1 · A weight, and what it makes of ignorance
# A label is on 30 of 1,500 texts. Which `pos_weight` balances it, which weight does scikit-learn's "balanced" give its positives, and which probability does a model that knows nothing say to every text, trained with the latter? Three digits.

# %% tags=["solution"]
n_positives, n_texts = 30, 1500
# Your answer, three numbers:
# 1,470 negatives to 30 positives. "Balanced" is n / (2 n_pos). Then w q is 25 * 0.02 = 0.5, and
# the best constant answer 0.5 / (0.5 + 0.98): about a third, for a label on one text of fifty.
share = n_positives / n_texts
answer = (1470 / 30, 1500 / (2 * 30), 25 * share / (25 * share + 1 - share))

# %% tags=["nbval-check-output"]
exercises.weight_of_a_label(answer, n_positives, n_texts)

# %% [markdown]
# ### Exercise 2 · Three losses for two parts
# Four cells make one step, in two parts of three and one, with these losses. What do the two parts add up to with each of three ways to write the loss (`n` is the number of cells in all parts)? Which of them gives the whole batch's mean?

# %% tags=["solution"]
parts = [[0.2, 0.4, 0.6], [2.0]]
ways = {
    "A": lambda cells, n, n_parts: cells.mean(),
    "B": lambda cells, n, n_parts: cells.sum() / n,
    "C": lambda cells, n, n_parts: cells.mean() / n_parts,
}
# Your answer, a number for each, as in {"A": 1.5, "B": ...}:
# A adds two means, 0.4 + 2.0. C halves that: the size is right, but the one cell of the second
# part counts as much as three of the first. B is (1.2 + 2.0) / 4, the mean of the whole.
totals = {"A": 0.4 + 2.0, "B": 1.2 / 4 + 2.0 / 4, "C": 0.4 / 2 + 2.0 / 2}

# %% tags=["nbval-check-output"]
exercises.two_parts(totals, parts, ways)

# %% [markdown]
# ### Exercise 3 · Without the weight
# A label was trained with a `pos_weight` of 4. The model says 0.75 of a text. Which probability is that without the weight? And at which of the model's probabilities is a yes exactly as likely as a no?

# %% tags=["solution"]
weight = 4
said = 0.75
# Your answer, two numbers:
# The odds are 3 to 1; a quarter of that is 0.75 to 1, or 0.75 / 1.75. Even odds, 1 to 1, have
# become 4 to 1 by the weight: w / (w + 1).
without = (said / (said + weight * (1 - said)), weight / (weight + 1))

# %% tags=["nbval-check-output"]
exercises.without_the_weight(without, weight, said)

# %% [markdown]
# ## In short
# - The Trainer is notebook 3's loop; the weighted loss, the unknown cells, the order of batches and the stop at a broken loss are yours to add.
# - `problem_type` and the label names belong in the config; they decide about loss, sigmoid and readability.
# - `pos_weight` balances at n_neg / n_pos; its square root is a milder choice, and "balanced" is another quantity.
# - In `compute_loss`, sum over cells and divide by `num_items_in_batch`; test it by the length of a gradient.
# - A label that nobody set is -100, not 0: it takes part in no loss and no score.
# - Validation loss, macro-AP and F1 at 0.5 have their best epochs in different places; know which one you choose by.
# - A weight multiplies the odds; p / (p + w (1 - p)) takes it out again, exactly for a model that is as sure as it should be, so measure.
# - The Trainer keeps every tensor that a model returns: see that it is logits only.
#
# **Next:** [5 · Metrics and thresholds](05_metrics_and_thresholds.ipynb).
