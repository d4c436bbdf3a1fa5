# %% [markdown]
# # 4 · The Trainer with class weights
#
# The same task with the Hugging Face `Trainer`, which brings checkpoints and mixed precision, and asks for care in exchange: the loss is where most copies of this recipe go wrong. By default the data are comments from discussion pages: most carry no label, and some labels are rare.
#
# **You will be able to**
# - load any encoder as a multi-label classifier with `AutoModelForSequenceClassification`;
# - choose `pos_weight`, and explain why scikit-learn's "balanced" weights are about half of what it needs;
# - write a weighted loss that stays right under gradient accumulation;
# - let the Trainer keep the best epoch, by a score that looks at the ranking.
#
# A word that is new to you is in the [glossary](https://github.com/multilabel-course/multilabel-course/blob/main/docs/glossary.md).
#
# **Time:** a minute and a quarter to two and a half minutes on the built-in data, on a laptop with two CPU cores. With data of your own: up to four minutes for 1,500 one-line texts with 60 labels; for 2,500 texts as long as MAX_LEN up to one minute, and up to one more for each epoch, of which there are 3 to 20. On a GPU: not measured.

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
import time

import numpy as np
import pandas as pd
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import Trainer, TrainingArguments

from helpers import models, plots
from helpers.data import label_matrix
from helpers.labels import count_positives, known, label_shares
from helpers.metrics import (
    compare,
    decision_scores,
    differences,
    macro_average_precision,
    per_label_table,
)
from helpers.models import to_probabilities
from helpers.notebooks import expect
from helpers.runtime import start_run
from helpers.tokenization import MultiLabelCollator, share_cut, tokenize_splits
from helpers.trainer import save_results
from helpers.training import ShuffledLengthGroupedSampler, freeze_lower_layers, parameter_groups, pos_weights

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

# %% [markdown]
# The built-in comments were written for this course: mild words, absurd threats, and invented groups only. They have the six labels of the well-known toxic-comment task, in which `severe_toxic` implies `toxic`.

# %%
settings, compute, splits = run.settings, run.compute, run.splits
train, valid = splits["train"], splits["validation"]
y_train, y_valid = label_matrix(train), label_matrix(valid)

# %% [markdown]
# How many texts there are, and how often each label occurs:

# %% tags=["nbval-check-output"]
print(f"{len(train)} training and {len(valid)} validation texts")
print(f"without any label: {np.mean(~(y_train == 1).any(1)):.0%}")
positives = {"train": count_positives(y_train), "validation": count_positives(y_valid)}
plots.commonest(pd.DataFrame(positives, index=run.label_names), positives["train"])

# %% [markdown]
# Look at the validation column before trusting any score of a rare label: with eight positives, one text more or less would move its recall by an eighth. So a label with fewer than ten takes no part in any score by which something is chosen, here or in the other notebooks; `print(run)` names the first of them. The built-in comments give most of their rows to validation and test for that reason.

# %% [markdown]
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
# On the built-in comments that is little; if it is a good part of yours, notebook 2 has the price of a larger MAX_LEN, notebook 6 reads long texts in windows. A forward pass over a batch, with the attention mask, gives logits and a loss; the loss is the mean over cells from notebook 3:

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
# Its logits and loss:

# %%
with torch.inference_mode():
    output = model.eval()(**batch)
print("logits", tuple(output.logits.shape), "loss", round(output.loss.item(), 4))
assert torch.isclose(output.loss, binary_cross_entropy_with_logits(output.logits, batch["labels"]))

# %% [markdown]
# ## Weights for rare labels
# `BCEWithLogitsLoss` takes a `pos_weight` per label, by which the loss of positives is multiplied. For positives and negatives to weigh the same in total it has to be n_neg / n_pos. A popular notebook puts scikit-learn's "balanced" class weight there instead, n / (2 n_pos). Side by side:

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
# "Balanced" weighs *both* classes, so that the mean weight is 1; as `pos_weight`, with negatives at 1, it is about half of what balances a rare label. It is a slip: "balanced" scales both classes, `pos_weight` only one.
#
# Full balance is often too much of a good thing: one mislabelled positive then outweighs many right negatives. The square root, half-way on a log scale, is what we train with; a cap keeps a label with hardly any positives from taking over.

# %%
pos_weight = pos_weights(y_train, run.label_names)


# %% [markdown]
# ## A Trainer with that loss
# Two methods change. In `compute_loss`, two details decide whether it is right:
# - the labels are used here and not passed to the model, which would compute its own unweighted loss for nothing;
# - with gradient accumulation the Trainer passes `num_items_in_batch`, the number of known cells in *all* accumulated batches. A **sum divided by that number** makes two half batches equal to a whole one; a mean would make the gradient grow with the number of batches.
#
# A loss that is no number any more stops the training, as in notebook 3. (The Trainer on its own goes on, and leaves such losses out of its log.) What this loss does not have, label smoothing, is refused and not passed over.
#
# The other method says which texts form a batch. The Trainer's own `train_sampling_strategy="group_by_length"` hands them out from long to short, several times an epoch, and orders the rows of `predict()` in the same way, so that probabilities end up with other texts. Here it is the shuffled sampler of notebook 3, for training only. With rate and schedule alike, five steps of this Trainer are five steps of notebook 3's loop, to the fifth digit of the loss; a test of the course compares them.


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
# On small data the embeddings and the lower two thirds of the layers are frozen, the head reads the mean of all tokens' states where the encoder was pre-trained for that, and the optimizer gives the head ten times the encoder's rate, as in notebook 3. Everything together:

# %%
if settings.freeze:
    freeze_lower_layers(model)
if run.pooling == "mean":
    models.add_mean_pooling(model)
checkpoints = tempfile.TemporaryDirectory()
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

# %% [markdown]
# ## Labels that nobody set
# Often some cells are empty: an annotator skipped a question, a label was added when half of the texts were done, or, as in the test file of the toxic-comment task, rows that were never scored hold -1. Zeros in their place would be claims that nobody made, and the model would learn them. Such a cell is **unknown**, and libraries mark it by **-100**. The label matrix holds it where the parameter `UNKNOWN = True` asks for it (in code: `helpers.data.read_splits(..., unknown=True)`): empty cells and -1 are read as unknown then. In `compute_loss` above, `mask` is 0 in these cells.
#
# In every other row of the batch, let the first label be unknown:

# %%
labels = batch["labels"].clone()
labels[::2, 0] = -100
partly = {**batch, "labels": labels}
with torch.inference_mode():
    loss, own = trainer.compute_loss(model, partly), model(**partly).loss
print(f"our loss {loss.item():.4f}, the model's own {own.item():.4f}")
assert torch.isclose(loss, weighted[known(labels)].mean())

# %% [markdown]
# Our loss is the mean over the cells that are left, weighted as before. The model's own takes -100 for a target like any other, and pushes the logit down more than a hundred times as hard as a no does. The number of cells that the Trainer passes as `num_items_in_batch` leaves them out already, so that half batches still add up to a whole one, however the unknown cells lie in them:

# %%
_, count = trainer.get_batch_samples(iter([partly]), 1, compute.device)
print(f"{labels.numel()} cells, {known(labels).sum().item()} known")
assert torch.all(count == known(labels).sum())

# %% [markdown]
# Everything else does the same. Weights, baselines, thresholds and each label's scores look at the texts of which that label is known; micro F1 and Hamming loss count known cells; subset accuracy asks whether all known cells of a text are right.

# %% [markdown]
# ## Training

# %%
start = time.perf_counter()
result = trainer.train()

# %% [markdown]
# Read the table by rows: the training loss falls in any case; the validation loss and macro-AP say whether anything general was learned. The Trainer loads the epoch with the best macro-AP at the end, here this one:

# %%
log = pd.DataFrame(trainer.state.log_history)
by_epoch = log.dropna(subset="eval_macro_ap").set_index("epoch")[["eval_loss", "eval_macro_ap"]]
best = by_epoch["eval_macro_ap"].fillna(-1).idxmax()
print(f"best epoch: {best:.0f} of {settings.epochs}, macro-AP {by_epoch.loc[best, 'eval_macro_ap']:.3f}")

# %% [markdown]
# `save_results` stores what the next notebooks need: the validation probabilities, the scores, and the model folder with its tokenizer and the thresholds that notebook 5 explains. Before it saves, it makes sure that row *i* of the prediction is row *i* of the data.

# %%
seconds = {"fine-tuned": time.perf_counter() - start}
predictions = {"fine-tuned": save_results(run, trainer, tokenizer, seconds["fine-tuned"])}
checkpoints.cleanup()

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
# ## What weights do to probabilities
# A weighted loss pays the model for saying yes, which pushes its probabilities upwards; other forces may hide it. Whether probabilities agree with what then happens is their **calibration**. Its simplest test compares the mean probability of each label with its true share:

# %%
y_prob = predictions["fine-tuned"]
shares = pd.DataFrame(
    {"true share": label_shares(y_valid), "mean probability": y_prob.mean(0)}, index=run.label_names
)
plots.commonest(shares, count_positives(y_train)).map("{:.1%}".format)

# %% [markdown]
# Where the second number is the larger, 0.5 no longer means "one in two". A model that has begun to memorise adds a tendency of its own, towards 0 and 1. Neither harms the ranking; both move the place where one should cut:

# %%
plots.commonest(per_label_table(y_valid, y_prob, run.label_names), count_positives(y_train)).round(2)

# %% [markdown]
# Look for labels with a good AP and a poor F1: they are ranked well and cut in the wrong place. The next notebook chooses the place, where there are positives enough to choose by.

# %% [markdown]
# ## In short
# - `problem_type` and the label names belong in the config; they decide about loss, sigmoid and readability.
# - `pos_weight` balances at n_neg / n_pos; its square root is a milder choice, and "balanced" is another quantity.
# - In `compute_loss`, sum over cells and divide by `num_items_in_batch`.
# - A label that nobody set is -100, not 0: it takes part in no loss and no score.
# - Choose the epoch by a score of the ranking, and look at baselines in the same table.
#
# **Next:** [5 · Metrics and thresholds](05_metrics_and_thresholds.ipynb).
