# %% [markdown]
# # 3 · A custom model and its training
#
# The heart of the course: a model class, a loss, and a training loop written out in plain PyTorch, each line explained. On the way we see what any model has to beat, what an often copied recipe achieves, which of the steps beyond it pay, and where the seconds go.
#
# **You will be able to**
# - put a classification head on any encoder, and show that it equals the library's model;
# - compute binary cross-entropy by hand, check it against the library's, and say why softmax is wrong here;
# - test a model and its loss before spending time on training;
# - write a training loop with warm-up, two learning rates, weights for rare labels and gradient accumulation;
# - judge each step of a recipe by its mean over seeds, and make training many times faster while watching the score.
#
# **Time:** one to one and a half minutes on the built-in data, on a laptop with two CPU cores. With data of your own: up to four minutes for 1,500 one-line texts with 60 labels; for 2,500 texts as long as MAX_LEN up to three minutes, and up to one more for each epoch, of which there are 3 to 20. On a GPU: not measured.

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
    source = os.environ.get("MULTILABEL_COURSE", ".." if os.path.exists("../helpers/runtime.py") else ADDRESS)
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
from dataclasses import replace
from itertools import islice
from math import ceil

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from accelerate import Accelerator, DataLoaderConfiguration
from scipy import stats
from sklearn.metrics import average_precision_score
from torch.nn.functional import binary_cross_entropy_with_logits, pad
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import AutoConfig, AutoModel, get_linear_schedule_with_warmup, pipeline

from helpers import drawings, models, plots
from helpers.data import label_matrix
from helpers.labels import count_positives, known, label_shares
from helpers.device import seed_everything
from helpers.metrics import compare, decision_scores, interval, macro_average_precision, resampled_macro_ap
from helpers.models import to_probabilities
from helpers.notebooks import benchmark_results, expect, show_error
from helpers.quiet import quiet_loading
from helpers.runtime import start_run
from helpers.thresholds import tune_thresholds
from helpers.tokenization import MultiLabelCollator, share_cut
from helpers.training import fit, freeze_lower_layers, make_loader, parameter_groups, pos_weights

# %% [markdown]
# `start_run` checks the parameters, reads the data, picks device and precision, and seeds everything. What it settled on, and where each value came from:

# %%
plots.set_style()
run = start_run(
    "03_custom_model_training",
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
# The data, once as texts and labels and once as batches:

# %%
settings, compute, splits = run.settings, run.compute, run.splits
train, valid = splits["train"], splits["validation"]
y_train, y_valid = label_matrix(train), label_matrix(valid)
tokenizer = models.load_tokenizer(run.checkpoint)
train_loader = make_loader(train, tokenizer, settings, train=True)
valid_loader = make_loader(valid, tokenizer, settings, train=False)
print(len(train), "training texts,", len(valid), "validation texts,", len(run.label_names), "labels")

# %% [markdown]
# `make_loader` is the `Dataset`, collator and `DataLoader` of notebook 2. Training batches hold texts of similar length and come in random order. `start_run` has put the validation rows into the order of their lengths, for the same reason: less padding. That order stays. What MAX_LEN throws away of these texts, the models below never see:

# %% tags=["nbval-check-output"]
texts_cut, tokens_cut = share_cut(train["text"][:], tokenizer, settings.max_len)
print(
    f"cut at {settings.max_len} tokens: {texts_cut:.1%} of the training texts, {tokens_cut:.1%} of all tokens"
)

# %% [markdown]
# On the built-in film plots that is next to nothing. If it is a good part of yours, raise MAX_LEN, or see notebook 2 for the price and for windows.

# %% [markdown]
# ## What has to be beaten
# Before any training, five answers that cost little. *All zeros* predicts nothing; the *label prior* gives every text each label's share in train; *TF-IDF* counts words and pairs of words, and fits a logistic regression per label; the *linear SVM* also counts pieces of two to five characters, and fits a support vector machine per label, whose scores are turned into probabilities by cross-validation; the *frozen encoder* fits logistic regressions to the mean of the states that the pre-trained model gives a text's tokens.
#
# The built-in encoder is all-MiniLM-L6-v2 (six layers, 384 numbers per token), which was trained to make just that mean a good vector of a sentence. A plain DistilBERT may do worse when frozen, so measure again with another checkpoint.

# %%
texts, new_texts = train["text"][:], valid["text"][:]
baselines = {
    "all zeros": lambda: models.all_zeros(texts, y_train, new_texts),
    "label prior": lambda: models.label_prior(texts, y_train, new_texts),
    "TF-IDF + LR": lambda: models.tfidf_regression(texts, y_train, new_texts),
    "linear SVM": lambda: models.linear_svm(texts, y_train, new_texts),
    "frozen + LR": lambda: models.frozen_regression(
        texts, y_train, new_texts, run.checkpoint, settings.max_len, compute
    ),
}

# %% [markdown]
# Each is asked for probabilities on the validation texts, and timed:

# %%
predictions, seconds = {}, {}
for name, predict in baselines.items():
    start = time.perf_counter()
    predictions[name] = predict()
    seconds[name] = time.perf_counter() - start


# %% [markdown]
# Scores and cost side by side. For F1 one rule holds throughout this notebook, for every model: each label with ten positives or more is cut where its F1 on these validation texts is highest. That flatters all of them alike, and lets us compare; notebook 5 shows how to measure F1 fairly.


# %%
def scores_and_cost():
    table = compare(y_valid, predictions)[["macro-AP", "low", "high"]]
    table["tuned F1 macro"] = [
        decision_scores(y_valid, y_prob, tune_thresholds(y_valid, y_prob))["F1 macro"]
        for y_prob in predictions.values()
    ]
    return table.assign(seconds=pd.Series(seconds))


# %% [markdown]
# The score by which models are compared starts from **average precision**. Six texts, ranked by what a model gives them for one label; do they have it? Yes, no, yes, no, no, yes. At each yes, take the precision so far: 1/1, 2/3, 3/6. Their mean is 0.72. On paper first, then:

# %% tags=["nbval-check-output"]
has_label = np.array([1, 0, 1, 0, 0, 1])
precision = has_label.cumsum() / np.arange(1, 7)
by_hand = precision[has_label == 1].mean()
assert np.isclose(by_hand, average_precision_score(has_label, [0.9, 0.7, 0.6, 0.4, 0.3, 0.1]))
print("precision so far:", *precision.round(2), f"| at each yes, the mean: {by_hand:.2f}")

# %% [markdown]
# Only the order counts, not the probabilities themselves. With all three texts on top it would be 1; each *no* above a *yes* costs something, most near the top.

# %% [markdown]
# **Macro-AP** is the mean over labels of average precision: how well the texts with a label are ranked above those without. It needs no cut, and a model that knows nothing gets each label's share. *Low* and *high* are a 95% interval from resampling the validation texts (notebook 5 says how far to trust it). The baselines:

# %%
scores_and_cost().round(3)


# %% [markdown]
# All zeros and the prior score the same: neither ranks anything, and the best cut for them, where there are positives enough to choose one, is to say yes to everything. The other three need seconds. Of the two that count words, the SVM ranks better on the built-in film plots; with the frozen encoder it is what has to be beaten from now on.

# %% [markdown]
# ## The model
# An encoder turns each token into a vector. We take the first token's, pass it through a linear layer with ReLU and dropout, and end in one logit per label. The sizes come from the checkpoint's config, so any encoder fits. `attention` only picks how attention is computed: on a CPU it trains faster when written out in plain tensor operations ("eager") than in the library's default form.

# %% [markdown]
# The way of two texts, with the shape of every step. Look at what each arrow does to the axes: the encoder adds one, picking a single token's state drops that of the length, the head leaves a number per label. Grey is padding.

# %%
two_texts = ["Two funny heists at once", "A quiet heist"]
encoded = tokenizer(two_texts, padding=True, return_tensors="pt", return_token_type_ids=False)
pieces = [tokenizer.convert_ids_to_tokens(ids) for ids in encoded["input_ids"]]
width = AutoConfig.from_pretrained(run.checkpoint).hidden_size
ax = drawings.text_to_probabilities(two_texts, pieces, **encoded, width=width, label_names=run.label_names)

# %% [markdown]
# The same as a class:


# %%
class DistilBERTClass(torch.nn.Module):
    def __init__(self, checkpoint, n_labels, dropout=0.2, attention=None):
        super().__init__()
        self.encoder = AutoModel.from_pretrained(
            checkpoint, dtype=torch.float32, attn_implementation=attention, output_attentions=False
        )
        width = self.encoder.config.hidden_size
        self.pre_classifier = torch.nn.Linear(width, width)
        self.dropout = torch.nn.Dropout(dropout)
        self.classifier = torch.nn.Linear(width, n_labels)

    def forward(self, input_ids, attention_mask):
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        first_token = hidden[:, 0]
        pooled = self.dropout(torch.relu(self.pre_classifier(first_token)))
        return self.classifier(pooled)


# %% [markdown]
# `__init__` makes the parts, `forward` connects them, and each of its lines changes a shape: `(batch, length)` ids become `(batch, length, width)` states, one vector of `width` numbers per text, and `n_labels` logits. There is no sigmoid at the end: the loss takes logits, for a reason that we shall see.
#
# Loading is wrapped so that each new model starts from the same random head:


# %%
def new_model(attention=compute.attention):
    seed_everything(settings.seed)
    with quiet_loading():
        model = DistilBERTClass(run.checkpoint, len(run.label_names), attention=attention)
    return model.to(compute.device)


# %% [markdown]
# ### What the encoder does
# Its **embeddings** look up a vector for each piece and add one for each position. Then come the layers, all built alike, each with weights of its own. A layer has two parts. **Attention** lets the tokens read each other: a token compares its *query* with the *keys* of all, softmax turns the results into shares that add up to 1, and the token takes in the mean of their *values*, weighted by these shares. Several *heads* do so side by side, each with its own queries, keys and values. **Feed-forward** passes every token, by itself, through two linear layers. What either part computes is added to what came in and brought to one scale, so that a state changes step by step. The **mask** acts before the softmax: padding gets so low a result that its share is 0, and no token of the text takes anything from it. In the end the first token's state has read all the others, several times over; so it can stand for the text.

# %%
encoder = new_model("eager").eval().encoder
if encoder.config.model_type == "distilbert":
    with torch.inference_mode():
        layers = encoder(**encoded.to(compute.device), output_attentions=True).attentions
    shares, mask = layers[0][1].mean(dim=0).cpu(), encoded["attention_mask"][1].cpu()
    drawings.encoder(pieces[1], mask, shares, n_layers=len(layers))

# %% [markdown]
# Right: the shares in the first layer for the shorter text, the mean of its heads. Each row adds up to 100%, but for rounding. In the built-in encoder much goes to `[CLS]`, and *##ist* looks at *he*, the piece before it. The columns of padding give nothing.

# %% [markdown]
# ### The same as the library's
# For a DistilBERT encoder, transformers has this very architecture as `DistilBertForSequenceClassification`. With our weights copied into it, it has to give the same logits; then our class is not just similar, and what we train can be saved as the library's.


# %%
def as_library_model(model):
    other = models.load_model(run.checkpoint, run.label_names, attn_implementation=compute.attention)
    if model.encoder.config.n_layers > other.config.n_layers:  # with the layer for mean pooling, below
        models.add_mean_pooling(other)
    other.distilbert.load_state_dict(model.encoder.state_dict())
    other.pre_classifier.load_state_dict(model.pre_classifier.state_dict())
    other.classifier.load_state_dict(model.classifier.state_dict())
    return other.to(compute.device)


# %% [markdown]
# One batch through both, in 32-bit precision and without dropout (`eval()`):

# %%
model = new_model().eval()
batch = {name: tensor.to(compute.device) for name, tensor in next(iter(valid_loader)).items()}
inputs = batch["input_ids"], batch["attention_mask"]
distilbert = model.encoder.config.model_type == "distilbert"
if distilbert:
    with torch.inference_mode():
        gap = (model(*inputs) - as_library_model(model).eval()(*inputs).logits).abs().max().item()
    print(f"largest difference of a logit: {gap:.0e}")
    assert gap < 1e-6


# %% [markdown]
# No difference, or one in the last digit. (*Newly initialised* speaks of the library's head, before our weights are copied into it. With another encoder, say BERT or RoBERTa, the library's head is built a little differently; our class works with all of them, and the check is left out.)

# %% [markdown]
# ## The loss
# Each cell of the label matrix is a yes-or-no question. If the model gives it the probability $p = \sigma(z)$, the loss of the cell is $-\log p$ for a yes and $-\log(1-p)$ for a no; the loss of the batch is the mean over all cells. This is binary cross-entropy. By hand:


# %%
def loss_by_hand(logits, targets):
    p = torch.sigmoid(logits)
    cells = -(targets * p.log() + (1 - targets) * (1 - p).log())
    return cells[known(targets)].mean()


# %% [markdown]
# Four cells on paper: two texts, two labels. The model says 0.9 and 0.2 for the first, where the answers are yes and no, and 0.6 and 0.1 for the second, where they are no and yes. So the cells cost $-\log 0.9 = 0.105$, $-\log 0.8 = 0.223$, $-\log 0.4 = 0.916$ and $-\log 0.1 = 2.303$:

# %% tags=["nbval-check-output"]
p = torch.tensor([[0.9, 0.2], [0.6, 0.1]])
four_cells = loss_by_hand(p.logit(), torch.tensor([[1.0, 0.0], [0.0, 1.0]])).item()
print(f"on paper {(0.105 + 0.223 + 0.916 + 2.303) / 4:.3f}, by the function {four_cells:.3f}")
assert abs(four_cells - (0.105 + 0.223 + 0.916 + 2.303) / 4) < 0.001

# %% [markdown]
# The last cell, a yes to which the model gave 0.1, costs more than the other three together: to be sure and wrong is what this loss punishes.

# %% [markdown]
# And by the library. A cell of which nobody knows the answer, where there are any, is left out in both ways; notebook 4 is about them.


# %%
def loss_fn(logits, targets, pos_weight=None):
    mask = known(targets).float()
    mean = binary_cross_entropy_with_logits(logits, targets * mask, mask, pos_weight=pos_weight)
    return mean / mask.mean().clamp(min=1e-9)


# %% [markdown]
# Equal values are not enough, since training follows the gradient. Both are compared, on the batch from above:

# %%
logits = model(*inputs).detach().requires_grad_()
losses = [loss(logits, batch["labels"]) for loss in (loss_by_hand, loss_fn)]
gradients = [torch.autograd.grad(loss, logits)[0] for loss in losses]
print(f"by hand {losses[0].item():.6f}, library {losses[1].item():.6f}")
print(f"largest difference of a gradient: {(gradients[0] - gradients[1]).abs().max().item():.0e}")
assert torch.allclose(*losses, atol=1e-6)
assert torch.allclose(*gradients, atol=1e-8)

# %% [markdown]
# So why not write it by hand? Because the naive form breaks where the model is sure. For a large logit $1 - p$ loses its digits, and from about 17 on $p$ is exactly 1 in 32-bit floating point, so that $\log(1 - p)$ is minus infinity:

# %% tags=["nbval-check-output"]
far, no = [2.0, 16.0, 20.0, 200.0], torch.zeros(1)
values = {
    name: [loss(torch.tensor([z]), no).item() for z in far]
    for name, loss in (("by hand", loss_by_hand), ("library", loss_fn))
}
pd.DataFrame(values, pd.Index(far, name="logit, where the answer is no")).round(3)

# %% [markdown]
# An infinite loss has a gradient that is not a number, and one step with it destroys every weight. The library's form is $\max(z, 0) - zy + \log(1 + e^{-|z|})$, the same by algebra; no exponential in it can overflow.

# %% [markdown]
# ### Why not softmax
# Softmax makes the probabilities of a row add up to 1: it answers "which one of these". Where several are true they have to share that 1, and where none is, it has to go somewhere all the same. A model that is sure of the answer, read in both ways:

# %% tags=["nbval-check-output"]
sure = torch.tensor([[9.0, -9.0, -9.0], [9.0, 9.0, -9.0], [-9.0, -9.0, -9.0]])
columns = pd.MultiIndex.from_product([["sigmoid", "softmax"], ["a", "b", "c"]])
rows = ["one label: a", "two labels: a and b", "no label"]
table = torch.cat([sure.sigmoid(), sure.softmax(dim=1)], dim=1)
pd.DataFrame(table.double().numpy(), rows, columns).round(2)

# %% [markdown]
# With one label the two agree. With two, softmax can't put both above one half; with none, it can't put all near 0: one of three always gets a third or more, however the logits are chosen. A sigmoid per label can say anything.

# %% [markdown]
# ### What each label contributes
# The loss is a mean over labels, but labels do not weigh the same in it. A model that has learned nothing but how frequent each label is pays its entropy, $-q \log q - (1-q) \log (1-q)$ for a share of $q$: much for a common label, next to nothing for a rare one. The usual remedy multiplies the loss of a positive by a weight $w$; here $w = \sqrt{n_{neg} / n_{pos}}$.

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
# ## Sanity first
# Three tests that take seconds, before a training that takes longer. What they find would otherwise show up only as a score that is lower than it could be.
#
# **Shapes.** One logit for each label of each text, and targets of the same shape and type:

# %%
print("ids", tuple(inputs[0].shape), "-> logits", tuple(logits.shape), logits.dtype)
targets = batch["labels"].cpu()
print("targets", tuple(targets.shape), targets.dtype)
assert logits.shape == targets.shape == (len(inputs[0]), len(run.label_names))

# %% [markdown]
# **The loss before training** can be computed in advance. A new head gives logits near 0, so $p$ is near one half and every cell costs $\log 2$, whatever its target. A positive costs $w$ times that, which adds $(w - 1) \log 2$ for each:

# %%
first_loss = loss_fn(logits, batch["labels"], pos_weight.to(compute.device)).item()
expected = np.log(2) * (1 + ((targets == 1) * (pos_weight - 1))[known(targets)].mean().item())
print(f"plain    expected {np.log(2):.3f}, found {losses[1].item():.3f}")
print(f"weighted expected {expected:.3f}, found {first_loss:.3f}")
assert abs(losses[1].item() - np.log(2)) < 0.1
assert abs(first_loss - expected) < 0.1 * expected


# %% [markdown]
# Something far from it would mean logits that are not centred, a loss that is a sum and not a mean, or targets that are not 0 and 1.
#
# **One batch, learned by heart.** A model with millions of weights must be able to learn eight texts to near zero loss. If it can't, the loss, the labels or the optimizer are wired wrongly. And with the encoder frozen, only the head may change:


# %%
def learn_by_heart(model, batch, steps, learning_rate=1e-3):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], learning_rate)
    losses = []
    for _ in range(steps):
        loss = loss_fn(model(batch["input_ids"], batch["attention_mask"]), batch["labels"])
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return losses


# %% [markdown]
# The eight shortest training texts, without dropout, which is there to make learning by heart harder; `eval()` switches it off, and gradients flow as before:

# %%
data, collate = train_loader.dataset, MultiLabelCollator(tokenizer)
shortest = sorted(range(len(data)), key=lambda i: len(data[i]["input_ids"]))[:8]
eight = {name: tensor.to(compute.device) for name, tensor in collate([data[i] for i in shortest]).items()}
steps = min(max(20, len(run.label_names)), 100)  # many labels take longer
curves = {"all weights": learn_by_heart(new_model().eval(), eight, steps)}
model = new_model().eval()
model.encoder.requires_grad_(False)
before = [p.clone() for p in model.encoder.parameters()]
curves["head only"] = learn_by_heart(model, eight, steps)
assert all(torch.equal(a, b) for a, b in zip(before, model.encoder.parameters(), strict=True))
by_heart = min(curves["all weights"]) < 0.1 * curves["all weights"][0]
expect(by_heart, "eight texts are learned by heart", settings)

# %% [markdown]
# `expect` stops the notebook if something is not so on the built-in data; on yours it prints a note. The loss, from the first step to the last:

# %%
ax = pd.DataFrame(curves).plot(figsize=(7.5, 3), ylim=(0, None), xticks=range(0, steps + 1, steps // 4))
_ = ax.set(title="Eight texts learned by heart", xlabel="step", ylabel="loss")

# %% [markdown]
# With all its weights the model should have the eight texts by heart within these steps, 20, or as many as there are labels; at this rate the loss may jump on the way. The head alone learns more slowly at first: it can only read what the frozen encoder happens to put into the first token's state. The encoder's weights did not change by a bit, so freezing works, too.

# %% [markdown]
# ## A recipe that is often copied
# This course grew out of an article of 2020, *Finetune DistilBERT for multi-label text classification task* by Dhaval Taunk, which trains like this: every text padded to 256 tokens, Adam with one rate of 1e-5 for everything, constant, one epoch in batches of 8, no weights, no seed. Its loop calls `zero_grad()` twice and prints the loss of a single batch now and then; its validation reads a column that its data set never returns, and crashes. Mended, it runs. What it achieves, and what each change to it brings, can't be seen in one run: seeds differ. So each recipe was trained with five seeds on the built-in film plots; `benchmarks/recipes.py` did that, once, for the course. The article's rate, batch size and single epoch are kept there, while batches and precision are this course's for all recipes, so the seconds are not those of its own loop; that one is timed further down.
#
# Measured for the course on the built-in film plots, not on your data:

# %%
recipes = benchmark_results("recipes")
print(recipes["date"].iloc[0], "|", recipes["machine"].iloc[0])
on_movies = recipes[(recipes["dataset"] == "movies") & (recipes["split"] == "validation")]
trained_on_movies = on_movies[on_movies["seed"] > 0]  # the baselines have no seed
by_recipe = trained_on_movies.pivot_table(index="seed", columns="model", values="macro-AP", sort=False)
ladder = by_recipe.loc[:, :"+ mean pooling"]
first = ladder["article's recipe"]
print(
    f"macro-AP of {len(first)} seeds: {first.mean():.3f} ± {first.std():.3f}, {first.min():.3f} to {first.max():.3f}"
)


# %% [markdown]
# The article's recipe (mean and standard deviation over seeds) ranks the built-in film plots better than the label prior does and far worse than a logistic regression on the frozen encoder, where only the regression is trained. It would be wrong to conclude that fine-tuning does not work on small data: one epoch at this rate barely moves the head, which starts from random numbers.
#
# ## One step at a time
# The steps that lift it, in the order in which they were added, each on top of those before:
#
# 1. **More training**: three epochs at thirty times the rate, in batches of 16.
# 2. **Warm-up and decay**: the rate rises over the first tenth of the steps, so that the large first gradients of a random head do not spoil the encoder, then falls to zero.
# 3. **Two rates**: the encoder is pre-trained and needs a nudge, the head is new and gets ten times that.
# 4. **Weight decay** on matrices only: biases and the scales of the norms are left out, as is customary.
# 5. **Clipping**: a gradient whose norm exceeds 1 is shortened to 1, so that one odd batch can't undo the others.
# 6. **Weighted positives**, as above.
# 7. **Frozen lower layers**: the embeddings and the lower two thirds of the layers stay as they are, without dropout, which also saves time.
# 8. **Mean pooling**: the head reads the mean of all tokens' states instead of the first one's.
#
# Measured for the course on the built-in film plots, not on your data:


# %%
def gain_of_each_step(ladder):
    gain = ladder.diff(axis=1)  # seed by seed
    half_width = stats.t.ppf(0.975, len(ladder) - 1) * gain.std() / np.sqrt(len(ladder))
    table = pd.DataFrame({"macro-AP": ladder.mean(), "sd": ladder.std(), "worst": ladder.min()})
    table["gain"], table["low"], table["high"] = (
        gain.mean(),
        gain.mean() - half_width,
        gain.mean() + half_width,
    )
    table["verdict"] = np.select([table["low"] > 0, table["high"] < 0], ["helps", "harms"], "not clear")
    return table


gains = gain_of_each_step(ladder)
gains["seconds"] = on_movies.groupby("model")["seconds"].median().round().astype(int)
gains.loc["article's recipe", "verdict"] = ""
gains.rename_axis(None).round(3).astype(object).where(gains.notna(), "")

# %% [markdown]
# *Macro-AP* is the mean over five seeds, with its standard deviation and the worst of the five. *Gain* is the mean difference to the row above, seed by seed, with its 95% interval (Student's t, five seeds); a step *helps* if that lies above zero. *Seconds* are for training alone, the median of five, on the machine named above; what else it was doing moves them by a quarter. Seed by seed, with two baselines, again on the built-in film plots and not on your data:

# %%
long = ladder.melt(var_name="recipe", value_name="macro-AP")
fig, ax = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
sns.pointplot(long, y="recipe", x="macro-AP", errorbar="sd", linestyle="none", color=plots.BLUE, ax=ax)
sns.stripplot(long, y="recipe", x="macro-AP", color=plots.GREY, ax=ax, jitter=0.15, zorder=5)
for name, style in (("linear SVM", ":"), ("frozen + LR", "--")):
    score = on_movies.set_index("model").loc[name, "macro-AP"]
    ax.axvline(score, color=plots.ORANGE, linestyle=style, label=name)
ax.legend(loc="lower left")
_ = ax.set(title="Recipes over five seeds, built-in film plots, validation", ylabel="")

# %% [markdown]
# Grey: a seed each; blue: their mean and standard deviation.
#
# Read with the spread, table and plot say for the built-in film plots:
# - **More training** does most: from 0.35 to 0.80. Which of the three changes did it, rate, epochs or batch size, this row cannot tell.
# - **Warm-up and decay** alone lower the mean by 0.06, though its interval just reaches 0: the rates add up to half as much, and the new head has not learned enough when they end.
# - **The head at ten times the rate** is the answer to that: every seed gains 0.1 or more, and the mean is higher than before both steps, the first one above the frozen encoder. Steps depend on each other; a step judged alone, or in another order, can look useless.
# - **Weight decay and clipping** change nothing that five seeds could show. They cost nothing and are customary; that they are needed here is not shown.
# - **Weighted positives** can't be told to help here, where no label is rare; the seeds lie closer together with them. They are meant for rare labels, which notebook 4 has.
# - **Frozen lower layers** leave the score where it was, in half of the seconds.
# - **Mean pooling** gains 0.02, and every seed gains. This encoder was pre-trained that way, so it is no wonder; on a checkpoint that was not, measure again. There the course reads the first token.
#
# One detail hides in all of them. Batches hold texts of similar length, and the sampler that transformers has for this hands them out from long texts to short ones, several times an epoch. The course's sampler shuffles them. Two of the recipes with both orders, measured for the course on the built-in film plots:

# %%
for name in ("+ head at 10x the rate", "+ frozen lower layers"):
    orders = by_recipe[[name + ", batches from long to short", name]]
    orders.columns = ["long to short", "shuffled"]
    gain = gain_of_each_step(orders).loc["shuffled"]
    print(f"{name}, five seeds\n{orders.T.round(3).to_string(header=False, index_names=False)}")
    print(f"gain of shuffling: {gain['gain']:.3f}, from {gain['low']:.3f} to {gain['high']:.3f}\n")

# %% [markdown]
# In a recipe that is still fragile, two seeds of five collapse with batches from long to short. In the whole recipe the two orders lie 0.007 apart, and each seed is better with shuffled batches. Shuffling costs nothing, so the course shuffles.
#
# What was tried and left out: five epochs instead of three, with a moving average of the weights (decay 0.98) in the place of the last ones. On three seeds it gains 0.006 on the built-in film plots and 0.010 on 2,000 rows of GoEmotions, validation both, for 1.7 times the steps; after three epochs the average alone gains nothing on the films (`benchmarks/averaging.py`). Where time matters less than here, take it.

# %% [markdown]
# ### The mean of all tokens
# Step 8 needs no other class. One more layer on top of the encoder does it, whose weights are set and not learned: queries and keys are 0, so that attention is equal over the tokens of the mask; values pass unchanged; the output is scaled up, so that the state it is added to no longer matters; the rest is 0. After it every token's state, the first one's too, is the mean of all, brought to one scale by the layer's norm. Beside the mean by hand:

# %%
if distilbert:
    model = new_model().eval()
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
#
# ## The loop
# Now one training of our own, live, with all the steps. First what is trained, and at which rate:

# %%
trained = new_model()
if settings.freeze:
    print(freeze_lower_layers(trained), "layers and the embeddings are frozen")
if run.pooling == "mean":
    models.add_mean_pooling(trained)
for group in parameter_groups(trained, settings.learning_rate):
    size = sum(p.numel() for p in group["params"])
    print(f"rate {group['lr']:.0e}, weight decay {group['weight_decay']}: {size:>10,} parameters")


# %% [markdown]
# Four groups: encoder and head, matrices and the rest. The optimizer takes them, and the schedule moves all their rates alike:


# %%
def optimizer_and_schedule(model, learning_rate, steps):
    optimizer = torch.optim.AdamW(parameter_groups(model, learning_rate), fused=True)
    return optimizer, get_linear_schedule_with_warmup(optimizer, ceil(0.1 * steps), steps)


optimizer, scheduler = optimizer_and_schedule(trained, settings.learning_rate, steps=100)
rates = []
for _ in range(101):
    rates.append(scheduler.get_last_lr())
    optimizer.step()  # without gradients it changes nothing
    scheduler.step()

# %% [markdown]
# Each group's rate, in a training of a hundred steps:

# %%
curves = pd.DataFrame(rates).iloc[:, [0, -1]].set_axis(["encoder", "head"], axis=1)
ax = curves.plot(title="Warm-up and decay, two rates", xlabel="step", figsize=(7.5, 2.6))
_ = ax.set_ylabel("learning rate")


# %% [markdown]
# One epoch over the training batches is this function; `in_groups` is for **gradient accumulation**: where a batch of 32 does not fit into memory, four of 8 make one step.


# %%
def in_groups(items, size):
    items = iter(items)
    while group := list(islice(items, size)):
        yield group


def train_one_epoch(model, loader, optimizer, scheduler, pos_weight, compute, accumulate=1, max_norm=1.0):
    model.train()
    total = seen = 0
    bar = tqdm(loader, desc="training", unit="batch", leave=False)
    for group in in_groups(enumerate(bar, start=1), accumulate):
        sizes = [known(batch["labels"]).sum().item() / batch["labels"].shape[1] for _, batch in group]
        for size, (number, batch) in zip(sizes, group, strict=True):
            batch = {name: tensor.to(compute.device) for name, tensor in batch.items()}
            with compute.autocast():
                logits = model(batch["input_ids"], batch["attention_mask"])
            loss = loss_fn(logits.float(), batch["labels"], pos_weight)
            if not torch.isfinite(loss):
                raise FloatingPointError(f"the loss of batch {number} is {loss.item()}: lower LEARNING_RATE")
            compute.scaler.scale(loss * size / (sum(sizes) or 1)).backward()
            total, seen = total + loss.item() * size, seen + size
        compute.scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        compute.scaler.step(optimizer)
        compute.scaler.update()
        scheduler.step()
        optimizer.zero_grad()
        bar.set_postfix(loss=f"{total / (seen or 1):.3f}")
    return total / (seen or 1)


# %% [markdown]
# What is not obvious in it:
# - A group's batches are run one by one; each counts by its share of the group's rows (to be exact, of its known cells), so that the summed gradient is that of the whole, also when the last batch is short. With `accumulate=1` a group is a batch.
# - `compute.autocast()` computes the forward pass in half precision where the hardware does that natively: bf16 on newer GPUs and on CPUs with the instructions for it, fp16 on older GPUs, else plain fp32. The loss is always taken in fp32. `compute.scaler` does nothing except for fp16, whose small gradients would vanish: it multiplies the loss, and divides the gradients before they are clipped.
# - A loss that is not finite stops the training at once and names the batch: after one step with it every weight would be lost.
# - Clip, step, let the rate follow its schedule, forget the gradients: in this order, once a group.
# - The bar shows the running mean over all examples so far. The loss of a single batch says little: it depends on which texts are in it.
#
# To judge a model, a pass over the validation texts. No shuffling: row *i* of the result belongs to text *i*. `to_probabilities` is the sigmoid, as an array.


# %%
def validation(model, loader, compute):
    model.eval()
    y_true, y_prob = [], []
    with torch.inference_mode():
        for batch in loader:
            inputs = (batch["input_ids"].to(compute.device), batch["attention_mask"].to(compute.device))
            with compute.autocast():
                logits = model(*inputs)
            y_true.append(batch["labels"].numpy())
            y_prob.append(to_probabilities(logits))
    return np.concatenate(y_true), np.concatenate(y_prob)


# %% [markdown]
# `fit`, in `helpers/training.py`, makes optimizer and schedule as above and calls these two functions once an epoch. (It has copies of its own, which a test keeps equal to these; change the copies if you want `fit` to change.) It keeps the weights of the best epoch by validation macro-AP, and, given `patience=2`, stops when two epochs in a row brought nothing. After each epoch it writes to the run's folder all that the next one depends on (weights, the optimizer's averages, the states of the random generators) as safetensors, under another name that is changed when the file is whole. If training is cut off at any moment, run the notebook again: `fit` goes on after the last whole epoch and ends with the very same weights.

# %%
start = time.perf_counter()
history = fit(trained, train_loader, valid_loader, run, pos_weight)
_, predictions["fine-tuned"] = validation(trained, valid_loader, compute)
seconds["fine-tuned"] = time.perf_counter() - start

# %% [markdown]
# Both over the epochs:

# %%
axes = pd.DataFrame(history).plot(
    x="epoch",
    y=["training loss", "validation macro-AP"],
    subplots=True,
    layout=(1, 2),
    marker="o",
    figsize=(7.5, 2.8),
    xticks=range(1, settings.epochs + 1, 1 + settings.epochs // 13),
    legend=False,
    title=["Training loss", "Validation macro-AP"],
)
axes[0, 0].figure.set_layout_engine("constrained")

# %% [markdown]
# The loss should fall and macro-AP rise, ever more slowly, since the rate falls to zero by the last step. When macro-AP stops rising while the loss still falls, the model has begun to memorise, and the later epochs are not kept.
#
# What happens to the score when the rows get out of order, as they do with a shuffled validation loader whose targets are taken from the table?

# %%
rng = np.random.default_rng(settings.seed)
in_order = macro_average_precision(y_valid, predictions["fine-tuned"])
out_of_order = [
    macro_average_precision(rng.permutation(y_valid), predictions["fine-tuned"]) for _ in range(20)
]
print(f"rows in order {in_order:.3f}, targets out of order {np.mean(out_of_order):.3f} (20 times, mean)")

# %% [markdown]
# No error, only the score of a model that knows nothing. (It lies a little above the label prior's: among few texts, a random order ranks some label well by chance.)
#
# ## Side by side

# %%
table = scores_and_cost()
ax = plots.model_scores(table)

# %% [markdown]
# The new row, with the seconds that training and validation took:

# %%
table.loc[["fine-tuned"]].round(3)


# %% [markdown]
# The fine-tuned model has a small advantage here: its best epoch was picked on these very texts. Overlapping bars settle nothing: the models are scored on the same texts, and easy texts lift them all. What counts is the *difference* on the same resampled texts:


# %%
def differences(y_true, predictions, model):
    draws = {name: resampled_macro_ap(y_true, y_prob) for name, y_prob in predictions.items()}
    points = {name: macro_average_precision(y_true, y_prob) for name, y_prob in predictions.items()}
    rows = {}
    for name in predictions:
        if name != model:
            point = points[model] - points[name]
            low, high = interval(draws[model] - draws[name])
            where = "ahead" if low > 0 else "behind" if high < 0 else "can't be told apart"
            rows[name] = [point, low, high, where]
    return pd.DataFrame.from_dict(
        rows, orient="index", columns=["difference", "low", "high", "on these texts"]
    )


# %% [markdown]
# `resampled_macro_ap` draws the same texts for every model, and `interval` takes the percentiles between which 95% of the differences lie. The fine-tuned model against each other:

# %%
differences(y_valid, predictions, "fine-tuned").round(3)

# %% [markdown]
# That interval covers the choice of texts, but only one seed. The other half of the doubt is the spread over seeds in the plot above: where it is wide, a single run proves nothing, however good. This run, and the five of its recipe on the built-in film plots:

# %%
same = ladder["+ mean pooling"]
print(f"this run {in_order:.3f}; five seeds on the built-in film plots {same.min():.3f} to {same.max():.3f}")

# %% [markdown]
# ### On other data
# A recipe that was chosen on one data set may fit only that. The same recipe and the baselines on two more, the built-in comments and 2,000 training rows of GoEmotions (one-line forum comments, 28 labels), with five seeds, on validation and on test, by which nothing was chosen. Beside it the same on the first token, the same by the Trainer of notebook 4, and its **blend** with the linear SVM: the mean of the two models' logits, each brought to mean 0 and deviation 1.
#
# Measured for the course on these three sets, not on your data:

# %%
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

# %%
lead = by_seed[["+ mean pooling", "blend with linear SVM"]].sub(svm, axis=0).drop(index=0, level="seed")
lead = lead.rename(columns=names).groupby(["dataset", "split"], sort=False)
half_width = stats.t.ppf(0.975, 4) * lead.std() / np.sqrt(5)
lead.mean().map("{:+.3f}".format) + " ± " + half_width.map("{:.3f}".format)

# %% [markdown]
# The recipe leads the linear SVM, which takes two or three seconds, on all three sets and on both splits, by more than its seeds differ. (That interval speaks of seeds; how far other texts would move the lead, notebooks 4 and 5 ask.) The lead is 0.16 and more on the built-in comments, which were written so that words alone don't tell, and 0.06 and more on GoEmotions, which people wrote. On the built-in film plots it falls from 0.06 on validation to 0.015 on test: the best epoch, and there the recipe too, were picked on validation, which flatters. What it is on your data, the table before this section says.
#
# On the built-in film plots the first token is 0.02 behind the mean; on the other two sets its mean is lower by 0.003 to 0.013, which is no more than seeds differ by, so there it can't be told. The Trainer and the loop lie within 0.003 of each other. The blend's lead over the SVM is above the recipe's, with intervals that don't overlap, on both splits of the film plots; on the comments so on test only, on GoEmotions on validation only. So whether it helps outside the film plots can't be told from these figures; try it on validation.
#
# The scores and predictions of this run are stored with it:

# %%
ahead = table.loc["fine-tuned", "macro-AP"] > table.loc["label prior", "macro-AP"] + 0.1
expect(ahead, "the fine-tuned model ranks far better than the label prior", settings)
for name, y_prob in predictions.items():
    run.folder.record(
        name,
        "validation",
        {"macro-AP": macro_average_precision(y_valid, y_prob), **decision_scores(y_valid, y_prob)},
        seconds[name],
    )
run.folder.save_predictions("validation", valid["id"][:], y_valid, predictions["fine-tuned"])


# %% [markdown]
# ## Where the seconds go
# The article's loop, and what makes it faster, one change at a time. Each rung trains on batches from all over the data: one to warm up, then at most 20 for a second and a half, of which the slow rungs manage only a few. The first does what the article does: all texts padded to 256.


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

# %% [markdown]
# Each rung has what the one before had, and one thing more:

# %%
rungs = [
    ("all padded to 256", padded_to(256), {}),
    ("+ frozen lower layers", padded_to(256), {"freeze": True}),
    (f"padded to the longest text, {longest}", padded_to(longest), {}),
    ("padded to the longest in the batch", dynamic, {}),
    ("+ batches of similar length", similar, {}),
    (f"+ {compute.precision}", similar, {"half": True}),
    (f"+ attention: {compute.attention or 'default'}", similar, {"attention": compute.attention}),
    ("+ fused AdamW", similar, {"fused": True}),
    (f"+ batches of {settings.train_batch_size}", train_loader, {}),
]
speed, options = {}, {}
for name, loader, more in rungs:
    options |= more
    speed[name] = examples_per_second(loader, **options)
speed = pd.Series(speed)
fig, ax = plt.subplots(figsize=(7.5, 3.8), layout="constrained")
bars = ax.barh(speed.index, speed, color=[plots.GREY, *[plots.BLUE] * (len(speed) - 1)])
ax.bar_label(bars, [f"{value:.0f}  ({value / speed.iloc[0]:.1f}x)" for value in speed], padding=3)
ax.invert_yaxis()
ax.grid(False, axis="y")
ax.set(title="Training speed, live", xlabel="examples a second (x: times the first)")
_ = ax.set_xlim(0, 1.35 * speed.max())

# %% [markdown]
# From the top: freezing saves the backward pass through four of six layers, and the optimizer's work on most of the weights. Where texts are short, most of the 256 positions are padding, and a batch is as long as its longest text, so texts of like length belong together. Half precision takes half the bytes per number, and hardware that has it multiplies such numbers faster; elsewhere that bar repeats the one before. The fused optimizer updates all weights in one pass instead of many small ones. These are short measurements: differences of a tenth mean nothing, and something else running on the machine can turn two neighbours about.
#
# A speed-up is one only if the score stays. `benchmarks/training.py` trained every rung to the end on the same texts, three passes; the first with the article's recipe, the others with the course's, so that their scores can be compared. Examples a second there include tokenizing. The last step kept, *frozen layers computed once*, is not in the live chart: what does not learn gives each text the same states in every pass, so they are computed once, before the first pass, and looked up from then on.
#
# Measured for the course on the built-in film plots, not on your data:

# %%
training = benchmark_results("training")
print(training["date"].iloc[0], "|", training["machine"].iloc[0])
training = training.set_index("rung").rename_axis(None)
columns = ["examples per second", "times the article's", "macro-AP", "tuned F1 macro"]
digits = {"examples per second": 1, "times the article's": 1, "macro-AP": 3, "tuned F1 macro": 3}
of = {name: training[training["dataset"] == name] for name in training["dataset"].unique()}
print({name: f"{rows['mean tokens'].iloc[0]:.0f} tokens a text" for name, rows in of.items()})
of["movies"][columns].round(digits)

# %% [markdown]
# And on one-line comments of GoEmotions, with 28 labels, not on your data either:

# %%
of["goemotions"][columns].round(digits)

# %% [markdown]
# The course's loop in batches of 16 sees the same examples 13 times as fast on the built-in film plots and 35 times on one-line comments, which were padded most; with the frozen layers computed once, 18 and 47 times. (All rungs read the first token; the table is of the day it names, before some plots were rewritten to other lengths.) Its scores are far above the article's: 0.89 after 0.65 on the built-in film plots, 0.35 after 0.08 on GoEmotions. But not every step is free. (Scores are one seed's. On GoEmotions the short rungs are medians of three timings; all others are single ones, so small differences between neighbours mean nothing.)
#
# - **Batches of similar length** score 0.01 lower than mixed ones on both sets, less than seeds often differ by. **Half precision**, the other attention and the fused optimizer change the score by 0.01 at most.
# - **Batches of 16** make half as many steps in three passes as batches of 8, and score as well. Batches of 32 make a quarter as many, and lose 0.02 on the built-in film plots and 0.06 on GoEmotions for little speed: larger batches want more passes.
# - **Frozen layers computed once** change the score by no more than rounding does. The course's `fit` does without them: the states of every token have to be kept in memory, 1.5 kB each for this encoder, and the code has to reach into the encoder. `benchmarks/training.py` shows how, in thirty lines.
# - **Training all layers** takes twice to three times as long and scores no better, on GoEmotions worse.
# - **torch.compile** first compiles, which takes longer than it saves in 300 steps.

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

# %%
curve.pivot_table(index="rows", columns="model", values="macro-AP", sort=False).round(3)

# %% [markdown]
# With 50 rows of the built-in film plots the frozen encoder with a logistic regression is level with fine-tuning, and it takes seconds; from 200 rows of these plots on, fine-tuning is ahead, by 0.04 and more. The linear SVM, which knows no language but these rows, starts lowest, gains most at every step, and is level with the frozen encoder at the end. So with some 50 rows: try the frozen encoder first, above all if it was trained to represent sentences as this one was, and spend the time on labelling more rows. On other data the lines may cross elsewhere. What the curve promises for the next doubling tells whether that is worth it. (The bands are one standard deviation over three draws.)
#
# Few rows need more passes to make the same number of steps. When `EPOCHS` is not given, `start_run` sees to that: three passes, or as many as make some 150 steps and show the label of median rarity some 150 times, 20 at most.

# %% [markdown]
# ## Four lines to many GPUs
# Accelerate runs the same loop in several processes, one a GPU: each takes a share of the batches, and the gradients are averaged between backward pass and step. The script is started once a process, by `torchrun --nproc_per_node 4 train.py`. The lines that change, here with a single process and on five batches:

# %%
model = new_model()
freeze_lower_layers(model)
optimizer, scheduler = optimizer_and_schedule(model, settings.learning_rate, steps=5)
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
# With `split_batches` each process takes its share of a batch, so that the batch size stays that of all processes together, and rate and schedule need no change; the course's tests check that two processes have the loss curve of one. Only the first process writes files. On CPUs, `accelerate launch --cpu` silently starts a single process; use `torchrun`.

# %% [markdown]
# ## What is refused
# Some mistakes can only end badly. They are reported before any time is spent, in one sentence that says what to change:

# %%
with show_error():
    start_run("03", "movies", train_batch_size=0)
with show_error():
    start_run("03", "movies", learning_rate=-1e-4)

# %% [markdown]
# The settings are frozen: `dataclasses.replace` makes changed ones, and checks them again. So a text longer than the model can read fails here, and not somewhere in the first epoch, when the first such text comes along:

# %%
with show_error():
    replace(settings, max_len=100_000)

# %% [markdown]
# The same goes for a head of another width than the labels, an empty training split and a folder that cannot be written:

# %%
three_labels = torch.nn.Sequential(model, torch.nn.Linear(len(run.label_names), 3))
three_labels.config = model.encoder.config
with show_error():
    fit(three_labels, train_loader, valid_loader, run)
with show_error():
    make_loader(train.select([]), tokenizer, run, train=True)

# %% [markdown]
# ## Saved so that others can load it
# A class of one's own can be loaded only where its code is. Saved as the library's model it is a plain folder that `AutoModelForSequenceClassification` and `pipeline` load:

# %%
if distilbert:
    run.folder.save_model(as_library_model(trained), tokenizer)
    print("saved:", *sorted(path.name for path in run.folder.model.iterdir()))

# %% [markdown]
# (The first line is again about the empty head, before the trained weights are copied in.) Loaded as anyone would load it, and asked about the first validation text:

# %%
if distilbert:
    folder = str(run.folder.model)
    classify = pipeline("text-classification", model=folder, top_k=None, device=compute.device)
    found = {row["label"]: row["score"] for row in classify([new_texts[0]], truncation=True)[0]}
    with torch.inference_mode():
        own = to_probabilities(trained.eval()(*inputs))[0]
    difference = np.abs([found[name] for name in run.label_names] - own).max()
    print(f"largest difference of a probability: {difference:.0e}")
    expect(difference < 1e-4, "the saved model gives the probabilities of the trained one", settings)

# %% [markdown]
# Both are computed in fp32 here; the loop's own validation runs in the precision chosen for the device, which can move a probability by a hundredth. `AutoModel.from_pretrained` on the same folder gives the encoder without the head.

# %% [markdown]
# ## Exercises
# Three to think through. Put your answer in the place of `None`, run the cell and the one below it: it says whether the answer is right, or what is off. An unanswered exercise stops nothing. The solutions are folded; try first.

# %% [markdown]
# ### Exercise 1 · The first loss
# Four labels are on these shares of the texts. What is the loss before training, of a model that gives logits of 0, and of one whose new head has each label's log-odds, $\log (q / (1 - q))$, as its bias and nothing else? Three digits. (Then try it with the shares of your own labels.)

# %% tags=["solution"]
from helpers import exercises

four_shares = [0.5, 0.25, 0.1, 0.02]
# Your answer, two losses:
# A logit of 0 is p = 1/2, which costs -log 1/2 = log 2, for a yes as for a no.
# The sigmoid of the log-odds is q: a share q of a label's cells costs -log q, the others
# -log (1 - q). That is the label's entropy.
q = np.array(four_shares)
losses = (np.log(2), np.mean(-q * np.log(q) - (1 - q) * np.log(1 - q)))

# %% tags=["nbval-check-output"]
exercises.first_losses(losses, four_shares)

# %% [markdown]
# ### Exercise 2 · Four broken losses
# Each of these has one fault. Which of the three checks, in the order `shapes`, `first loss`, `by heart`, is the first to find it, or is it `nothing`? About one cell in four is a yes. Work it out before you try.

# %% tags=["solution"]
bce = torch.nn.functional.binary_cross_entropy_with_logits
broken = {
    "A": lambda logits, targets: bce(logits, targets, reduction="sum"),
    "B": lambda logits, targets: bce(logits.sigmoid(), targets),
    "C": lambda logits, targets: bce(logits, targets[torch.randperm(len(targets))]),
    "D": lambda logits, targets: bce(logits, 1 - targets),
}
# Your answer, a word for each, as in {"A": "shapes", "B": ...}:
# A is log 2 times the number of cells. B takes the sigmoid twice: a logit of 0 goes in as
# 0.5, and a no costs 0.97. C gives rows the labels of others, anew in each step: log 2 at
# first, and nothing to learn. D learns the opposite, and learns it well; only a score
# against the true labels tells.
found = {"A": "first loss", "B": "first loss", "C": "by heart", "D": "nothing"}

# %% tags=["nbval-check-output"]
exercises.which_check(found, broken)

# %% [markdown]
# ### Exercise 3 · Defend a step
# Change one step of the recipe (no weights for positives, one rate for encoder and head, no frozen layers, another batch size, a step of your own) and nothing else. Train without and with it, with the same three seeds, and note the validation macro-AP of all six. (That is six trainings; begin with a step that you doubt.) Does it help, harm, or is it not clear? Judge by the 95% interval of the mean gain, seed by seed (Student's t, two degrees of freedom). The check takes your scores and your verdict, and trains nothing.

# %% tags=["solution"]
# Your answer, ([three scores without the step], [three with it], "helps", "harms" or "not clear"):
# The mean of all tokens in the place of the first one, on the built-in film plots; seeds 1
# to 3 of benchmarks/results/recipes.csv. The gains are 0.029, 0.014 and 0.013: mean 0.019,
# sd 0.009, and 4.30 * 0.009 / sqrt(3) = 0.022 is more than the mean. Three seeds can't tell.
# (The file has five, and five can.)
defence = ([0.883, 0.893, 0.893], [0.912, 0.907, 0.906], "not clear")

# %% tags=["nbval-check-output"]
exercises.defended(defence)

# %% [markdown]
# ## In short
# - Baselines first: they take seconds and tell what a score is worth.
# - Binary cross-entropy with logits, a mean over cells; never softmax where several labels, or none, can be true.
# - Shapes, first loss, eight texts by heart: three checks before any long training.
# - Judge a step of a recipe by several seeds: more training and a faster head did most here, weighted positives narrowed the spread, and some customary steps can't be told from nothing.
# - Padding to what the batch needs, batches of similar length, half precision and frozen layers make training many times faster; check that the score stays.
# - A training worth its time can be cut off at any moment and goes on.
#
# **Next:** [4 · The Trainer with class weights](04_trainer_class_weights.ipynb).
