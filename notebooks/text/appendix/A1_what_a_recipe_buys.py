# %% [markdown]
# # A1 · What a recipe buys
#
# For a second reading. Notebook 3 trains one model with a recipe of eight steps; here is what each of them was measured to bring in score and in seconds. You need it if you want to change the recipe, if you have to defend it, or if training takes too long. Whoever only wants a model does not.
#
# **What is measured where**
# - *Recipes over five seeds*: `benchmarks/recipes.py`, on the built-in film plots; the last recipe also on the built-in comments and on GoEmotions.
# - *The speed ladder*: live in this notebook on your data, without scores; and `benchmarks/training.py`, with scores, one seed a row, on the film plots and on GoEmotions.
# - *The learning curve*: `benchmarks/learning_curve.py`, on the built-in film plots.
#
# **You will be able to**
# - judge a step of a recipe by its mean over seeds and by an interval of its gain, and say what such an interval does not cover;
# - say what a weight does to each label's part of the loss;
# - read the mean of all tokens through a layer that the library loads;
# - find out where the seconds of a training go.
#
# **Time:** half a minute to three quarters on the built-in data, on a laptop with two CPU cores: the live speed ladder. The tables are read from files.

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
import random
import time
from contextlib import nullcontext
from math import ceil

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from scipy import stats
from torch.nn.functional import pad
from torch.utils.data import DataLoader

from helpers import models, plots
from helpers.data import label_matrix
from helpers.labels import count_positives, label_shares
from helpers.device import seed_everything
from helpers.notebooks import benchmark_results
from helpers.quiet import quiet_loading
from helpers.runtime import start_run
from helpers.tokenization import MultiLabelCollator
from helpers.training import freeze_lower_layers, loss_fn, make_loader, parameter_groups, pos_weights

# %% [markdown]
# The run has the parameters of notebook 3, and so its folder; nothing is written to it here.

# %%
plots.set_style()
run = start_run(
    "A1_what_a_recipe_buys",
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
# The data, and a new model as in notebook 3:

# %%
settings, compute = run.settings, run.compute
train = run.splits["train"]
y_train = label_matrix(train)
tokenizer = models.load_tokenizer(run.checkpoint)
train_loader = make_loader(train, tokenizer, settings, train=True)
data, collate = train_loader.dataset, MultiLabelCollator(tokenizer)

# %% [markdown]
# Each new model starts from the same random head:


# %%
def new_model(attention=compute.attention):
    seed_everything(settings.seed)
    with quiet_loading():
        model = models.DistilBERTClass(run.checkpoint, len(run.label_names), attention=attention)
    return model.to(compute.device)


# %% [markdown]
# ## A recipe that is often copied
# This course grew out of an article of 2020, *Finetune DistilBERT for multi-label text classification task* by Dhaval Taunk, which trains like this: every text padded to 256 tokens, Adam with one rate of 1e-5 for everything, constant, one epoch in batches of 8, no weights, no seed. Its loop calls `zero_grad()` twice and prints the loss of a single batch now and then; its validation reads a column that its data set never returns, and crashes. Mended, it runs. What it achieves, and what each change to it brings, can't be seen in one run: seeds differ. So each recipe was trained with five seeds on the built-in film plots. The article's rate, batch size and single epoch are kept there, while batches and precision are this course's for all recipes.
#
# Measured for the course on the built-in film plots, not on your data:

# %%
recipes = benchmark_results("recipes")
print(recipes["date"].iloc[0], "|", recipes["machine"].iloc[0])
on_movies = recipes[(recipes["dataset"] == "movies") & (recipes["split"] == "validation")]

# %% [markdown]
# One column a recipe, one row a seed; here the article's:

# %% tags=["nbval-check-output"]
trained_on_movies = on_movies[on_movies["seed"] > 0]  # the baselines have no seed
by_recipe = trained_on_movies.pivot_table(index="seed", columns="model", values="macro-AP", sort=False)
ladder = by_recipe.loc[:, :"+ mean pooling"]
first = ladder["article's recipe"]
print(f"{len(first)} seeds: {first.mean():.3f} ± {first.std():.3f}, {first.min():.3f} to {first.max():.3f}")

# %% [markdown]
# The same recipe with three passes, from the speed ladder below, where it ran in its own loop, with one seed. Side by side:

# %% tags=["nbval-check-output"]
training = benchmark_results("training").set_index("rung").rename_axis(None)
three = training[training["dataset"] == "movies"].loc["article's loop"]
n_texts = int(three["examples"]) // 3
steps = [passes * ceil(n_texts / 8) for passes in (1, 3)]
article = {"passes": [1, 3], "steps": steps, "seeds": [len(first), 1]}
print(n_texts, "training texts")
pd.DataFrame(article | {"macro-AP": [first.mean(), three["macro-AP"]]}).round(3)

# %% [markdown]
# With one pass the article's recipe ranks the built-in film plots better than the label prior does (0.207) and far worse than a logistic regression on the frozen encoder (0.854); with three it has come two thirds of the way from the one to the other. So the first figure says at least as much about the number of steps as about the recipe. The article itself trains on some 160,000 comments, where one pass in batches of 8 is 20,000 steps, not 112; what its recipe scores there was not measured here. On small data a rate of 1e-5 barely moves the head, which starts from random numbers, and it would be wrong to conclude that fine-tuning does not work there.
#
# ## One step at a time
# The steps of the course's recipe, in the order in which they were added, each on top of those before:
#
# 1. **More training**: three epochs at thirty times the rate, in batches of 16.
# 2. **Warm-up and decay**: the rate rises over the first tenth of the steps, then falls to zero.
# 3. **Two rates**: the encoder is pre-trained and needs a nudge, the head is new and gets ten times that.
# 4. **Weight decay** on matrices only: biases and the scales of the norms are left out, as is customary.
# 5. **Clipping**: a gradient whose norm exceeds 1 is shortened to 1, so that one odd batch can't undo the others.
# 6. **Weighted positives**: the loss of a yes counts $\sqrt{n_{neg} / n_{pos}}$ times.
# 7. **Frozen lower layers**: the embeddings and the lower two thirds of the layers stay as they are, without dropout, which also saves time.
# 8. **Mean pooling**: the head reads the mean of all tokens' states instead of the first one's.
#
# Measured for the course on the built-in film plots, not on your data:


# %% tags=["nbval-check-output"]
def gain_of_each_step(ladder):
    gain = ladder.diff(axis=1)  # seed by seed
    half_width = stats.t.ppf(0.975, len(ladder) - 1) * gain.std() / np.sqrt(len(ladder))
    table = pd.DataFrame({"macro-AP": ladder.mean(), "sd": ladder.std(), "worst": ladder.min()})
    table["gain"] = gain.mean()
    table["low"], table["high"] = gain.mean() - half_width, gain.mean() + half_width
    return table


gains = gain_of_each_step(ladder)
gains.rename_axis(None).round(3).astype(object).where(gains.notna(), "")

# %% [markdown]
# *Macro-AP* is the mean over five seeds, with its standard deviation and the worst of the five. *Gain* is the mean difference to the row above, seed by seed, with its 95% interval from *low* to *high* (Student's t, five seeds). Each interval speaks of seeds only, not of other texts, and of its own step only: if eight such intervals were independent, one or more would miss its true gain in a third of all tables like this one. So one that clears zero by 0.001 settles nothing.
#
# Seed by seed, with two baselines, again on the built-in film plots and not on your data. The right panel is the upper end of the left one, where the argument is:

# %%
long = ladder.melt(var_name="recipe", value_name="macro-AP")
fig, axes = plt.subplots(1, 2, figsize=(9, 4.2), sharey=True, width_ratios=[1, 1.4], layout="constrained")
for ax in axes:
    sns.pointplot(long, y="recipe", x="macro-AP", errorbar="sd", linestyle="none", color=plots.BLUE, ax=ax)
    sns.stripplot(long, y="recipe", x="macro-AP", color=plots.GREY, ax=ax, jitter=0.15, zorder=5)
    for name, style in (("linear SVM", ":"), ("frozen + LR", "--")):
        score = on_movies.set_index("model").loc[name, "macro-AP"]
        ax.axvline(score, color=plots.ORANGE, linestyle=style, label=name)
axes[0].legend(loc="lower left")
axes[0].set(title="all of it", ylabel="")
axes[1].set(title="the upper end", xlim=(0.83, 0.92))
_ = fig.suptitle("Recipes over five seeds, built-in film plots, validation")

# %% [markdown]
# Grey: a seed each; blue: their mean and standard deviation.
#
# Read with the spread, table and plot say for the built-in film plots:
# - **More training** does most: from 0.35 to 0.80. Which of the three changes did it, rate, epochs or batch size, this row cannot tell; the three passes above say that epochs alone do a good part.
# - **Warm-up and decay** came together and were not measured apart. They lower the mean by 0.06, with an interval that just reaches 0. Why, the row does not tell; the rates add up to half as much.
# - **The head at ten times the rate**: every seed gains 0.1 or more, and the mean is higher than before both steps, the first one above the frozen encoder. Steps depend on each other; a step judged alone, or in another order, can look useless.
# - **Weight decay and clipping** change nothing that five seeds could show. They cost nothing and are customary; that they are needed here is not shown.
# - **Weighted positives** can't be told to help here, where no label is rare; the five seeds lie closer together with them. They are meant for rare labels, which notebook 4 has.
# - **Frozen lower layers** leave the score where it was, for less work a step.
# - **Mean pooling** gains 0.018, and every seed gains. This encoder was pre-trained that way, so it is no wonder; on a checkpoint that was not, measure again. There the course reads the first token.
#
# The other way round, the last recipe without one of its steps at a time, has not been measured. So what each step brings beside all the others, this notebook can't say.
#
# ### The order of batches
# One detail hides in all of them. Batches hold texts of similar length, and the sampler that transformers has for this hands them out from long texts to short ones, several times an epoch. The course's sampler shuffles them. Two of the recipes with both orders, measured for the course on the built-in film plots:

# %% tags=["nbval-check-output"]
for name in ("+ head at 10x the rate", "+ frozen lower layers"):
    orders = by_recipe[[name + ", batches from long to short", name]]
    orders.columns = ["long to short", "shuffled"]
    gain = gain_of_each_step(orders).loc["shuffled"]
    print(f"{name}, five seeds\n{orders.T.round(3).to_string(header=False, index_names=False)}")
    print(f"gain of shuffling: {gain['gain']:.3f}, from {gain['low']:.3f} to {gain['high']:.3f}\n")

# %% [markdown]
# In a recipe that is still fragile, two seeds of five collapse with batches from long to short, and yet the interval of the gain holds 0: five seeds say little where they spread so much. In the recipe with seven steps the two orders lie 0.007 apart, and each seed is better with shuffled batches. Shuffling costs nothing, so the course shuffles.
#
# ### Averaged weights
# What was tried and left out, compared with the course's recipe: five epochs instead of three, with a moving average of the weights (decay 0.98) in the place of the last ones. It gains 0.006 on the built-in film plots and 0.010 on 2,000 rows of GoEmotions, means of three seeds on validation, for 1.7 times the steps; each of the three seeds gains on both. On the films five epochs alone gain nearly as much and the average after three epochs gains nothing; on GoEmotions five epochs alone lose 0.005 and the average makes up for it (`benchmarks/averaging.py`). Where time matters less than here, take both together.

# %% [markdown]
# ## What weights do to the loss
# Step 6 in detail. The loss is a mean over labels, but labels do not weigh the same in it. A model that has learned nothing but how frequent each label is pays its entropy, $-q \log q - (1-q) \log (1-q)$ for a share of $q$: much for a common label, next to nothing for a rare one. The usual remedy multiplies the loss of a positive by a weight $w$; here $w = \sqrt{n_{neg} / n_{pos}}$.

# %% tags=["nbval-check-output"]
pos_weight = pos_weights(y_train, run.label_names)
q, w = label_shares(y_train).astype(float), pos_weight.numpy().astype(float)


def loss_of_a_constant(q, w):
    p = w * q / (w * q + 1 - q)  # the best constant probability
    return -(w * q * np.log(p) + (1 - q) * np.log(1 - p))


# %% [markdown]
# Each label's part of that loss, without and with the weights, for the rarest and the commonest:

# %% tags=["nbval-check-output"]
plain, weighted = loss_of_a_constant(q, 1.0), loss_of_a_constant(q, w)
n_pos = count_positives(y_train)
parts = pd.DataFrame({"n_pos": n_pos, "pos_weight": w}, index=run.label_names)
parts["part of the loss"] = plain / plain.sum()
parts["part, weighted"] = weighted / weighted.sum()
parts = parts.sort_values("n_pos")
parts.iloc[sorted({*range(len(parts))[:3], *range(len(parts))[-2:]})].round(3)

# %% [markdown]
# On the built-in film plots the labels are nearly as frequent as each other, so the weights hardly shift the balance between them; but every yes now counts about twice. A label in one of a hundred texts beside one in four:

# %% tags=["nbval-check-output"]
for share in (0.25, 0.01):
    weight = np.sqrt((1 - share) / share)
    without, with_weight = loss_of_a_constant(share, 1), loss_of_a_constant(share, weight)
    print(f"share {share:.2f}: loss {without:.3f}, with a weight of {weight:.1f} {with_weight:.3f}")

# %% [markdown]
# Without weights the rare label has a tenth of the common one's say, since that is all the loss that can be saved there; with them, not quite half. The full ratio $n_{neg}/n_{pos}$ makes yes and no weigh the same within each label and gives the rare label more say than the common one, which is often too much: notebook 4 compares the weights. They have a price: without weights the best constant answer is the label's share $q$, with them it is $wq / (wq + 1 - q)$, which is higher, so that the probabilities come out too high. Notebook 5 deals with that.

# %% [markdown]
# ## The mean of all tokens
# Step 8 needs no other class. One more layer on top of the encoder does it, whose weights are set and not learned: queries and keys are 0, so that attention is equal over the tokens of the mask; values pass unchanged; the output is scaled up, so that the state it is added to no longer matters; the rest is 0. After it every token's state, the first one's too, is the mean of all, brought to one scale by the layer's norm. Beside the mean by hand:

# %%
model = new_model().eval()
distilbert = model.encoder.config.model_type == "distilbert"
batch = collate([data[i] for i in range(min(8, len(data)))])
inputs = batch["input_ids"].to(compute.device), batch["attention_mask"].to(compute.device)

# %% [markdown]
# The mean by hand, and the layer:

# %%
if distilbert:
    with torch.inference_mode():
        hidden, mask = model.encoder(*inputs).last_hidden_state, inputs[1].unsqueeze(-1)
        mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
        pooled = models.add_mean_pooling(model).encoder(*inputs).last_hidden_state[:, 0]

# %% [markdown]
# By how much do the two differ, but for the norm?

# %%
if distilbert:
    by_hand = torch.nn.functional.layer_norm(mean, mean.shape[1:])
    cosine = torch.nn.functional.cosine_similarity(by_hand, pooled)
    print(f"{model.encoder.config.n_layers} layers; smallest cosine of the two: {cosine.min().item():.5f}")
    assert cosine.min() > 0.9999

# %% [markdown]
# A cosine of 1 is the same direction. The library saves and loads such a model as it does any DistilBERT with one layer more.

# %% [markdown]
# ## On other data
# A recipe that was chosen on one data set may fit only that. The same recipe and the baselines on two more, the built-in comments and 2,000 training rows of GoEmotions (one-line forum comments, 28 labels), with five seeds, on validation and on test, by which nothing was chosen. Beside it the same on the first token, the same by the Trainer of notebook 4, and its **blend** with the linear SVM: the mean of the two models' logits, each brought to mean 0 and deviation 1.
#
# Measured for the course on these three sets, not on your data:

# %% tags=["nbval-check-output"]
names = {
    "linear SVM": "linear SVM",
    "frozen + LR": "frozen + LR",
    "+ frozen lower layers": "first token",
    "+ mean pooling": "our recipe",
    "+ mean pooling, by the Trainer": "by the Trainer",
    "blend with linear SVM": "blend",
}


def mean_and_spread(scores):
    return f"{scores.mean():.3f}" + (f" ± {scores.std():.3f}" if len(scores) > 1 else "")


shown = (
    recipes[recipes["model"].isin(names)]
    .replace({"model": names})
    .pivot_table(
        index=["dataset", "split"], columns="model", values="macro-AP", aggfunc=mean_and_spread, sort=False
    )
)
shown[names.values()].rename_axis(columns=None)

# %% [markdown]
# How far are the recipe and the blend ahead of the linear SVM, seed by seed?

# %%
by_seed = recipes.pivot_table(
    index=["dataset", "split", "seed"], columns="model", values="macro-AP", sort=False
)
svm = by_seed["linear SVM"].xs(0, level="seed")  # it has no seed

# %% [markdown]
# The mean of that lead on the three sets, and the half-width of its 95% interval (Student's t):

# %% tags=["nbval-check-output"]
lead = by_seed[["+ mean pooling", "blend with linear SVM"]].sub(svm, axis=0).drop(index=0, level="seed")
lead = lead.rename(columns=names).groupby(["dataset", "split"], sort=False)
half_width = stats.t.ppf(0.975, 4) * lead.std() / np.sqrt(5)
lead.mean().map("{:+.3f}".format) + " ± " + half_width.map("{:.3f}".format)

# %% [markdown]
# The recipe leads the linear SVM, which takes two or three seconds, on all three sets and on both splits, by more than its seeds differ. (That interval speaks of seeds; how far other texts would move the lead, notebooks 4 and 5 ask.) The lead is 0.16 and more on the built-in comments, which were written so that words alone don't tell, and 0.06 and more on GoEmotions, which people wrote. On the built-in film plots it falls from 0.06 on validation to 0.015 on test: the best epoch, and there the recipe too, were picked on validation, which flatters. What it is on your data, notebook 3 says.
#
# On the built-in film plots the first token is 0.02 behind the mean; on the other two sets its mean is lower by 0.003 to 0.013, which is no more than seeds differ by, so there it can't be told. The Trainer and the loop lie within 0.003 of each other. The blend's lead over the SVM is above the recipe's, with intervals that don't overlap, on both splits of the film plots; on the comments so on test only, on GoEmotions on validation only. So whether it helps outside the film plots can't be told from these figures; try it on validation.

# %% [markdown]
# ## Where the seconds go
# The article's loop, and what makes it faster, one change at a time. Each rung trains on batches from all over the data: one to warm up, then at most 20 for a second and a half, of which the slow rungs manage only a few. The first does what the article does: all weights trained on texts padded to 256, in batches of 8. (Here all texts are tokenized beforehand.)


# %%
def examples_per_second(loader, half=False, attention=None, fused=False, freeze=False):
    model = new_model(attention).train()
    if freeze:
        freeze_lower_layers(model)
    optimizer = torch.optim.AdamW(parameter_groups(model, settings.learning_rate), fused=fused)
    batches = random.Random(0).sample(list(loader.batch_sampler), min(21, len(loader)))
    seen, start = 0, time.perf_counter()
    for number, rows in enumerate(batches):
        if number == 1:
            seen, start = 0, time.perf_counter()
        batch = loader.collate_fn([data[i] for i in rows])
        batch = {name: tensor.to(compute.device) for name, tensor in batch.items()}
        with compute.autocast() if half else nullcontext():
            logits = model(batch["input_ids"], batch["attention_mask"])
        compute.scaler.scale(loss_fn(logits.float(), batch["labels"])).backward()
        compute.scaler.step(optimizer)
        compute.scaler.update()
        optimizer.zero_grad()
        if number:
            seen += len(logits)
            if time.perf_counter() - start > 1.5:
                break
    if compute.device.type == "cuda":
        torch.cuda.synchronize()
    return seen / (time.perf_counter() - start)


# %% [markdown]
# The rungs differ in their batches or in one setting. Batches of one length first:


# %%
def padded_to(length):
    def collate_and_pad(items):
        batch = collate(items)
        missing = (0, length - batch["input_ids"].shape[1])
        return {name: t if name == "labels" else pad(t, missing) for name, t in batch.items()}

    return DataLoader(data, 8, shuffle=True, collate_fn=collate_and_pad)


# %% [markdown]
# Then batches as long as their longest text, and texts of similar length together:

# %%
longest = max(len(ids) for ids in data.encodings["input_ids"])
dynamic = DataLoader(data, 8, shuffle=True, collate_fn=collate)
similar = DataLoader(data, 8, sampler=train_loader.sampler, collate_fn=collate)
print(f"the longest text has {longest} tokens; precision {compute.precision}")

# %% [markdown]
# Each rung has what the one before had, and one thing more. They are called as in the committed tables below; a GPU keeps the library's attention:

# %%
rungs = [
    ("article's loop", padded_to(256), {}),
    ("course's recipe, padded to 256", padded_to(256), {"freeze": True}),
    ("padded to the longest text", padded_to(longest), {}),
    ("padded to the longest in the batch", dynamic, {}),
    ("batches of similar length", similar, {}),
    ("half precision", similar, {"half": True}),
    ("attention written out", similar, {"attention": compute.attention}),
    ("fused AdamW", similar, {"fused": True}),
    (f"batches of {settings.train_batch_size}", train_loader, {}),
]
speed, options = {}, {}
for name, loader, more in rungs:
    if compute.attention or "attention" not in more:
        options |= more
        speed[name] = examples_per_second(loader, **options)

# %% [markdown]
# As a picture:

# %%
speed = pd.Series(speed)
fig, ax = plt.subplots(figsize=(7.5, 3.8), layout="constrained")
bars = ax.barh(speed.index, speed, color=[plots.GREY, *[plots.BLUE] * (len(speed) - 1)])
ax.bar_label(bars, [f"{value:.0f}  ({value / speed.iloc[0]:.1f}x)" for value in speed], padding=3)
ax.invert_yaxis()
ax.grid(False, axis="y")
ax.set(title="Training speed, live", xlabel="examples a second (x: times the first)")
_ = ax.set_xlim(0, 1.35 * speed.max())

# %% [markdown]
# From the top: the course's recipe freezes the lower layers, which saves the backward pass through four of six layers, and the optimizer's work on most of the weights. Where texts are short, most of the 256 positions are padding, and a batch is as long as its longest text, so texts of like length belong together. Half precision takes half the bytes per number, and hardware that has it multiplies such numbers faster; elsewhere that bar repeats the one before. The fused optimizer updates all weights in one pass instead of many small ones. These are short measurements: differences of a tenth mean nothing, and something else running on the machine can turn two neighbours about.
#
# A speed-up is one only if the score stays. `benchmarks/training.py` trained every rung to the end on the same texts, three passes; the first with the article's recipe, the others with the course's on the first token, so that their scores can be compared. Examples a second there include tokenizing. Two kinds of rows are not in the live chart: *frozen layers computed once* (what does not learn gives each text the same states in every pass, so they are computed once, before the first pass, and looked up from then on), and what was tried and not kept, each compared with the row that it names.
#
# Measured for the course on the built-in film plots, not on your data:

# %%
compared_with = {
    "tried: all layers trained": "batches of 16, but all layers trained",
    "tried: batches of 32": "frozen layers computed once, but batches of 32",
    "tried: torch.compile, compiling included": "batches of 16, with torch.compile",
}

# %% [markdown]
# Their day and machine, and what is shown:

# %%
columns = ["examples per second", "times the article's", "macro-AP", "tuned F1 macro"]
digits = {"examples per second": 1, "times the article's": 1, "macro-AP": 3, "tuned F1 macro": 3}
print(training["date"].iloc[0], "|", training["machine"].iloc[0])
training = training.rename(index=compared_with)

# %% [markdown]
# Texts, tokens and steps in three passes of batches of 16, for the two sets:

# %% tags=["nbval-check-output"]
of = {name: training[training["dataset"] == name] for name in training["dataset"].unique()}
for name, rows in of.items():
    n_texts, tokens = int(rows["examples"].iloc[0]) // 3, rows["mean tokens"].iloc[0]
    print(f"{name}: {n_texts} texts, {tokens:.0f} tokens a text, {3 * ceil(n_texts / 16)} steps")
of["movies"][columns].round(digits)

# %% [markdown]
# And on one-line comments of GoEmotions, with 28 labels, not on your data either:

# %% tags=["nbval-check-output"]
of["goemotions"][columns].round(digits)

# %% [markdown]
# The course's loop in batches of 16 sees the same examples 13 times as fast on the built-in film plots and 35 times on one-line comments, which were padded most; with the frozen layers computed once, 18 and 47 times. (The table is of the day it names, before some plots were rewritten to other lengths.) Its scores are far above the article's: 0.89 after 0.65 on the built-in film plots, 0.35 after 0.08 on GoEmotions. But not every step is free. Scores are one seed's. (On GoEmotions the short rungs are medians of three timings; all others are single ones.)
#
# - **Batches of similar length** score less than mixed ones on both sets: 0.895 after 0.907 on the film plots, 0.338 after 0.345 on GoEmotions. The five seeds of this recipe on the film plots (*+ frozen lower layers*, above) have a standard deviation of 0.005, so 0.012 may well be a loss; two single runs don't settle it. Mixed and similar batches with several seeds each were not measured. The course takes the speed.
# - **Half precision** and the other attention change the score by 0.001 at most; the fused optimizer by 0.010 on GoEmotions and by nothing on the film plots.
# - **Batches of 16** make half as many steps in three passes as batches of 8: 0.006 less on the film plots, 0.005 more on GoEmotions. **Batches of 32** make a quarter as many, and lose 0.025 on the built-in film plots and 0.06 on GoEmotions for little speed: larger batches want more passes.
# - All steps for speed together, from the course's recipe padded to 256 to batches of 16, cost 0.016 on the film plots and 0.003 on GoEmotions.
# - **Frozen layers computed once** leave the score on the film plots and move it by 0.008 on GoEmotions. The course's `fit` does without them: the states of every token have to be kept in memory, 1.5 kB each for this encoder, and the code has to reach into the encoder. `benchmarks/training.py` shows how, in thirty lines.
# - **Training all layers** takes twice as long and scores no better, on GoEmotions worse.
# - **torch.compile** first compiles, which takes longer than it saves in the 168 steps on the film plots or the 300 on GoEmotions.

# %% [markdown]
# ## How many rows does it take
# The learning curve from `benchmarks/learning_curve.py`: built-in film plots, three draws of training rows for each size, the same number of steps for every fine-tuned model. Measured for the course, not on your data:

# %%
curve = benchmark_results("learning_curve")
fig, ax = plt.subplots(figsize=(7.5, 3.6), layout="constrained")
sns.lineplot(curve, x="rows", y="macro-AP", hue="model", style="model", markers=True, errorbar="sd", ax=ax)
sizes = sorted(curve["rows"].unique())
ax.set(
    xscale="log", title="Score against training rows, built-in film plots", xlabel="training rows (log scale)"
)
ax.set_xticks(sizes, sizes)
ax.minorticks_off()
_ = ax.legend(title="")

# %% [markdown]
# The same in numbers, means over the draws, on the built-in film plots:

# %% tags=["nbval-check-output"]
curve.pivot_table(index="rows", columns="model", values="macro-AP", sort=False).round(3)

# %% [markdown]
# With 50 rows of the built-in film plots the frozen encoder with a logistic regression is level with fine-tuning, and it takes seconds; from 200 rows of these plots on, fine-tuning is ahead, by 0.04 and more. The linear SVM, which knows no language but these rows, starts lowest, gains most at every step, and is level with the frozen encoder at the end. So with some 50 rows: try the frozen encoder first, above all if it was trained to represent sentences as this one was, and spend the time on labelling more rows. On other data the lines may cross elsewhere. What the curve promises for the next doubling tells whether that is worth it. (The bands are one standard deviation over three draws.)
#
# Few rows need more passes to make the same number of steps. When `EPOCHS` is not given, `start_run` sees to that: three passes, or as many as make some 150 steps and show the label of median rarity some 150 times, 20 at most.

# %% [markdown]
# ## In short
# - One run can't judge a recipe: five seeds, the gain seed by seed, and an interval that is not read to its last digit.
# - More training and a faster head did most on the film plots; weighted positives narrowed the spread, and some customary steps can't be told from nothing.
# - A figure for a recipe needs its number of steps beside it: 0.35 after 112 steps and 0.65 after 336 are the same recipe.
# - Padding to what the batch needs, batches of similar length, half precision and frozen layers make training many times faster; each may cost some of the score, so measure both.
# - What has not been measured here is said where it is missing.
#
# **Back:** [3 · A custom model and its training](../03_custom_model_training.ipynb). **Also for a second reading:** [A2 · Other forms of data](A2_other_forms_of_data.ipynb), [A3 · Many processes](A3_many_processes.ipynb).
