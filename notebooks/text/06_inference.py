# %% [markdown]
# # 6 · Inference
#
# The model leaves the notebook: saved, loaded somewhere else, and asked about texts it has never seen. What has to travel along is more than the weights: the tokenizer with the length at which texts are cut, the names of the labels in their order, and the thresholds.
#
# **You will be able to**
# - predict labels for new texts by hand, and with `pipeline`;
# - save a model folder that is complete, and show that it gives the same answers after reloading;
# - avoid the two classic slips: labels in the wrong order, and softmax in the place of sigmoid;
# - read texts longer than MAX_LEN in sliding windows, and say what pooling by max and by mean does.
#
# A word that is new to you is in the [glossary](https://github.com/multilabel-course/multilabel-course/blob/main/docs/glossary.md).
#
# **Time:** half a minute, three quarters where the CPU only has fp32, and the time of notebook 4, if that has not run yet. On a GPU: not measured.

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
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import pipeline

from helpers import models, plots
from helpers.data import label_matrix
from helpers.labels import count_positives
from helpers.inference import Predictor
from helpers.metrics import MIN_POSITIVES, decide, differences, labels_that_count, macro_average_precision
from helpers.notebooks import expect, show_error
from helpers.runtime import start_run
from helpers.trainer import fine_tune

# %% [markdown]
# `start_run` checks the parameters, reads the data, picks device and precision, and seeds everything. What it settled on, and where each value came from:

# %%
plots.set_style()
run = start_run(
    "06_inference",
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
# The model of notebook 4, or a new one trained as there if it is missing:

# %%
folder = fine_tune(run)
print(sorted(path.name for path in folder.iterdir()))

# %% [markdown]
# This is the folder that notebook 4 saved (or the same call has just made it): the weights as safetensors, the config, the tokenizer. The tokenizer carries the length at which texts were cut in training (MAX_LEN, as `model_max_length`). The config also holds the label names and the thresholds. In the file the thresholds stand in alphabetical order, so they are looked up by name:

# %%
config = json.loads((folder / "config.json").read_text())
print(config["problem_type"])
thresholds = pd.Series({name: config["thresholds"][name] for name in config["id2label"].values()})
y_train = label_matrix(run.splits["train"])
plots.commonest(thresholds.to_frame("threshold"), count_positives(y_train)).round(3)

# %% [markdown]
# ## New texts
# With the built-in comments these sentences are new, each with the labels that the definitions in `data/README.md` give it:

# %%
NEW_TEXTS = [
    "Thanks for fixing the map, the river is finally on the right side of the town.",
    "Section 3 is rubbish: no source, wrong dates, and the table contradicts the text. Please rewrite it.",
    "You pompous turnip, go back to your pond and let people who can read do the editing.",
    "He called me a pompous turnip last week. Could an administrator have a look?",
    "Kill the stuck process, then burn a new disc.",
]
TRUE_LABELS = [[], [], ["toxic", "insult"], [], []]

# %% [markdown]
# With other data, validation texts stand in: of each of the five commonest label sets there one text, those with labels first. (They are printed here and in the tables below as they stand in the file. If yours are private or offensive, think of where the notebook and its outputs will go.)

# %%
texts, truth = NEW_TEXTS, TRUE_LABELS
if run.settings.dataset != "comments":
    valid = run.splits["validation"]
    sets = [tuple(ids) for ids in valid["label_ids"]]
    last = {ids: row for row, ids in enumerate(sets)}
    common = sorted(last, key=lambda ids: (not ids, -sets.count(ids)))[:5]
    texts = [valid["text"][last[ids]] for ids in common]
    truth = [[run.label_names[k] for k in ids] for ids in common]

# %% [markdown]
# ## By hand
# Tokenize, ask for logits, apply the sigmoid, compare with each label's threshold. Dropout has to be off, or the answer changes with every call: `from_pretrained` sees to it, and after training it is `eval()` that does.

# %%
tokenizer, model = models.load_tokenizer(folder), models.load_model(folder).eval()
names = [model.config.id2label[i] for i in range(model.config.num_labels)]
thresholds = np.array([model.config.thresholds[name] for name in names])

# %% [markdown]
# The texts as one batch, and its probabilities:

# %%
inputs = tokenizer(
    texts,
    padding=True,
    truncation=True,
    max_length=run.settings.max_len,
    return_tensors="pt",
    return_token_type_ids=False,
)
with torch.inference_mode():
    y_prob = torch.sigmoid(model(**inputs).logits).numpy()

# %% [markdown]
# Each probability against its label's threshold:

# %%
decisions = y_prob >= thresholds
for text, row, true in zip(texts, decisions, truth, strict=True):
    decided = [name for name, on in zip(names, row, strict=True) if on]
    print("    " + " ".join(text.split())[:110])
    print(f"decided: {', '.join(decided) or 'none'}  |  true: {', '.join(true) or 'none'}\n")

# %% [markdown]
# Each row is decided label by label, and the right answer may be "none". The built-in sentences test it in pairs: a harsh judgement of a *text* beside an insult of a *person*; an insult beside the report of one, in the same words; and verbs of a threat in a harmless sentence. What it gets wrong among these shows what its training texts did not teach it.

# %% [markdown]
# And the probabilities behind them, a column a text, in the order from above:

# %%
table = pd.DataFrame(y_prob.T, index=names, columns=[f"text {i}" for i in range(len(texts))])
if cut := plots.cut_to(len(names), plots.IN_TABLE, "likeliest in these texts"):
    print(cut)
    table = table.loc[table.max(axis=1).nlargest(plots.IN_TABLE).index]
table.style.format("{:.2f}").background_gradient(cmap="Blues", vmin=0, vmax=1)

# %% [markdown]
# ## With pipeline
# `pipeline` does the same in one line, up to the decision; it knows no thresholds. `top_k=None` asks for all labels; without it you get the best one only, as if the task were multi-class. The first ten of the answer:

# %%
example = min(2, len(texts) - 1)
classify = pipeline("text-classification", model=model, tokenizer=tokenizer, device=model.device)
answer = classify(texts[example], top_k=None, truncation=True, max_length=run.settings.max_len)
pd.DataFrame(answer[:10]).round(3)

# %% [markdown]
# **The order:** the answer is sorted by score, so position *k* need not be label *k*. Code that walks through it with `enumerate` and looks positions up in `id2label` gives scores to the wrong labels. Go by the name:

# %%
by_name = {item["label"]: item["score"] for item in answer}
assert np.allclose([by_name[name] for name in names], y_prob[example], atol=1e-4)
print("by position: ", *[item["label"] for item in answer[:6]], sep="  ")
print("in the model:", *names[:6], sep="  ")

# %% [markdown]
# **The function:** which one is applied to the logits comes from `problem_type`. Where that is missing, probabilities come from a softmax and add up to 1, without any warning:

# %%
model.config.problem_type = None
wrong = classify(texts[example], top_k=None, truncation=True, max_length=run.settings.max_len)
model.config.problem_type = "multi_label_classification"
softmax, sigmoid = sum(item["score"] for item in wrong), sum(by_name.values())
print(f"sum of the scores: {softmax:.2f} with softmax, {sigmoid:.2f} with sigmoid")

# %% [markdown]
# ## Taken elsewhere
# The folder is all one needs. We copy it to a place that knows nothing of this run, load it there, and compare:

# %%
elsewhere = Path(tempfile.mkdtemp()) / "my-model"
copied = shutil.copytree(folder, elsewhere)
predictor = Predictor(elsewhere)
gap = np.abs(predictor.probabilities(texts) - y_prob).max()

# %% [markdown]
# Is everything as it was?

# %%
print(f"labels in the same order: {predictor.label_names == names}")
print(f"texts are cut at {predictor.max_len} tokens")
print(f"largest difference of a probability: {gap:.0e}")
assert predictor.label_names == names
assert predictor.max_len == run.settings.max_len
assert gap < 1e-4

# %% [markdown]
# `Predictor` is the code above in one object: `pipeline`, the columns put back in order by name, and the thresholds of the config.

# %%
predictor(texts)[["text", "labels"]]

# %% [markdown]
# It takes a list, a column of a table or a generator of texts. It refuses what no model can answer, and says what it wants instead:

# %% tags=["nbval-check-output"]
with show_error():
    predictor("one string instead of a list")
with show_error():
    predictor(pd.DataFrame({"text": texts}))

# %% [markdown]
# Nor is it asked about nothing: an empty text or a missing value is named by its number, from 0.

# %% tags=["nbval-check-output"]
with show_error():
    predictor(["fine", "   "])
with show_error():
    predictor([None])

# %% [markdown]
# Longer texts are cut as in training, and an empty list gives an empty table.

# %% tags=["nbval-check-output"]
print(
    len(predictor([])),
    "rows for no text,",
    len(predictor(["a very long text " * 500])),
    "row for a text of 2,000 words",
)

# %% [markdown]
# ## Long texts
# That cut was silent. How many of the validation texts are longer than MAX_LEN?

# %% tags=["nbval-check-output"]
valid, max_len, device = run.splits["validation"], run.settings.max_len, run.compute.device
y_valid = label_matrix(valid)
n_tokens = np.array([len(ids) for ids in tokenizer(valid["text"][:], verbose=False)["input_ids"]])
is_long = n_tokens > max_len
print(f"{is_long.sum()} of {len(valid)} have more than {max_len} tokens; the longest has {n_tokens.max()}")

# %% [markdown]
# And how many positives has each label among them?

# %% tags=["nbval-check-output"]
positives = pd.DataFrame({"positives among them": count_positives(y_valid[is_long])}, index=names)
plots.commonest(positives, count_positives(y_train))

# %% [markdown]
# What stands after the cut, the model has never seen. The simplest way to read all of it is **sliding windows**: cut the text into windows that overlap by `stride` tokens, so that what one window cuts in two another shows whole; let the model read each; and pool the logits of a text's windows.


# %%
def sliding_windows(texts, tokenizer, max_len, stride):
    room = max_len - tokenizer.num_special_tokens_to_add()
    if not 0 <= stride < room:
        raise ValueError(f"stride is {stride}; with max_len {max_len} it takes a number from 0 to {room - 1}")
    encoded = tokenizer(
        list(texts),
        truncation=True,
        max_length=max_len,
        stride=stride,
        return_overflowing_tokens=True,
        return_token_type_ids=False,
    )
    rows = np.array(encoded.pop("overflow_to_sample_mapping"))
    return encoded, rows


# %% [markdown]
# `rows` says which text each window belongs to. Pooling takes, label by label, the highest logit of a text's windows (**max**) or their mean (**mean**):


# %%
def pool_windows(logits, rows, how="max"):
    reductions = {"max": "amax", "mean": "mean"}
    if how not in reductions:
        raise ValueError(f"how is {how!r}; it takes 'max' or 'mean'")
    index = torch.as_tensor(rows, device=logits.device)[:, None].expand_as(logits)
    pooled = torch.zeros(int(rows.max()) + 1, logits.shape[1], dtype=logits.dtype, device=logits.device)
    return pooled.scatter_reduce(0, index, logits, reduce=reductions[how], include_self=False)


# %% [markdown]
# A window is an example like any other. The first window of a text is what cutting leaves of it, so one pass gives all three:


# %%
def three_ways(texts):
    encoded, rows = sliding_windows(texts, tokenizer, max_len, stride=max_len // 4)
    logits = []
    for start in range(0, len(rows), 64):
        windows = {name: values[start : start + 64] for name, values in encoded.items()}
        with torch.inference_mode():
            logits.append(model(**tokenizer.pad(windows, return_tensors="pt").to(device)).logits.cpu())
    logits = torch.cat(logits)
    ways = {"cut": logits[np.unique(rows, return_index=True)[1]]}
    ways |= {how: pool_windows(logits, rows, how) for how in ("max", "mean")}
    return {way: torch.sigmoid(pooled).numpy() for way, pooled in ways.items()}


# %% [markdown]
# The long texts of validation, or as many of them as have 13,000 tokens together.

# %% tags=["nbval-check-output"]
model.to(device)
long = np.random.default_rng(0).permutation(np.flatnonzero(is_long))
long = long[np.cumsum(n_tokens[long]) <= 13_000]
print(len(long), "long texts")

# %% [markdown]
# What is max ahead of the other two, in macro-AP? The rule of the course holds here as well: a label with fewer than ten positives among them takes no part.

# %%
result = None
if labels_that_count(y_valid[long]).any():
    on_long = three_ways([valid["text"][i] for i in long.tolist()])
    result = differences(y_valid[long], on_long, "max").round(3)
else:
    print(f"Can't be told: no label has {MIN_POSITIVES} positives in {len(long)} texts.")
result

# %% [markdown]
# Where an interval holds 0, these texts can't tell. On the built-in comments 49 texts and four labels stand behind each line. That is little, and it is one training: an interval that clears 0 by a few thousandths settles nothing, and for a choice between max and mean there are not enough texts.

# %% [markdown]
# ### A second look, at texts made for it
# So we make long texts, and say so. Each is a validation text that fits into one window, half of them with a label, half without, put together with others that have no label until the whole is one and a half times MAX_LEN long or more. The one text stands first or last, by turns, and its labels are those of the whole. (Real long texts hang together; these don't. And by their making a label sits in one place: of a label that is spread over a whole text, such as a tone, they say nothing.)

# %% tags=["nbval-check-output"]
rng, half = np.random.default_rng(0), 8_000 // max_len
harmless = np.flatnonzero(~is_long & (y_valid == 0).all(axis=1))
labelled = np.flatnonzero(~is_long & (y_valid == 1).any(axis=1))
hidden = np.sort(np.r_[rng.permutation(labelled)[:half], rng.permutation(harmless)[:half]])
print(f"{len(hidden)} texts to hide among {len(harmless)} without a label")

# %% [markdown]
# Are they enough?

# %% tags=["nbval-check-output"]
counted = [name for name, on in zip(names, labels_that_count(y_valid[hidden]), strict=True) if on]
possible = len(harmless) >= 20 and len(counted) > 0
print("labels with ten positives or more:", ", ".join(counted[:12]) or "none")
if not possible:
    print("Too few without a label, or too few with one: the second look is left out.")

# %% [markdown]
# Put together. How many of the texts begin where cutting has already ended?

# %% tags=["nbval-check-output"]
made, before = [], []
for row in hidden.tolist() if possible else []:
    parts = [row]
    while n_tokens[parts].sum() < 1.5 * max_len:
        parts.append(int(rng.choice(harmless)))
    parts = parts[::-1] if len(made) % 2 else parts
    made.append(" ".join(valid["text"][i] for i in parts))
    before.append(n_tokens[parts[: parts.index(row)]].sum())
if possible:
    print(f"{np.mean(np.array(before) >= max_len):.0%} of the {len(made)} begin after the cut")

# %% [markdown]
# Now each text alone, for comparison, and hidden, in three ways. *Found* is the share of all labels that are there and get decided, by the thresholds of the saved model. *False alarms* is the share of the texts without any label that get one.


# %%
def found_and_false(y_true, y_prob):
    decided = decide(y_prob, thresholds)
    without = (y_true == 0).all(axis=1)
    return {
        "macro-AP": macro_average_precision(y_true, y_prob),
        "found": decided[y_true == 1].mean(),
        "false alarms": decided[without].any(axis=1).mean(),
    }


# %% [markdown]
# Predict first: which of max and mean finds more, and which has more false alarms?

# %%
if possible:
    alone = three_ways([valid["text"][i] for i in hidden.tolist()])["cut"]
    ways = three_ways(made)

# %% [markdown]
# The scores of all four:

# %%
result = None
if possible:
    table = {name: found_and_false(y_valid[hidden], p) for name, p in {"alone": alone, **ways}.items()}
    result = pd.DataFrame(table).T.round(3)
    expect(result["found"].idxmax() != "mean", "mean does not find most", run.settings)
    expect(result["found"]["max"] > result["found"]["cut"], "max finds more than cutting", run.settings)
result

# %% [markdown]
# *Alone* is what the model can do when nothing is in the way. **Cutting** loses what begins after the cut. **max** finds much of it again and pays with false alarms: a text of several windows has several chances to be taken for something. **mean** raises the fewest alarms and finds the least: it dilutes the one window that has something with its neighbours that have nothing.
#
# Even max stays behind *alone*: inside its window the text has neighbours as well, and the built-in model's head reads the mean of all tokens. And the thresholds were chosen for whole texts. A maximum over windows is higher than one window's answer and a mean lower, so pooled answers need thresholds of their own, chosen as in notebook 5, on validation texts of the length that will be met. The ranking needs none. By macro-AP, with its interval:

# %%
if possible:
    result = differences(y_valid[hidden], ways, "max").round(3)
result

# %% [markdown]
# On the built-in comments the model of this run ranks better by max than by cutting (another seed was not tried); whether better than by mean, these texts can't tell. And that is so for texts in which one passage decides, since we made them like that.
#
# Which pooling, then? **max** says "somewhere in this text", which suits a threat or a topic: one clear passage is enough, and ninety harmless ones don't outvote it. **mean** says "on the whole", which suits tone and style. Like a threshold, it is chosen on validation.
#
# The other way is a model that reads more. **Longformer** lets each token attend to a stretch around it, and only the first token to all, so that time grows with the length and not with its square; `allenai/longformer-base-4096` reads 4,096 tokens. **ModernBERT** (`answerdotai/ModernBERT-base`) reads [8,192](https://huggingface.co/answerdotai/ModernBERT-base): every third of its layers attends to all tokens, the others to 64 on either side. A test of this course trains, saves and reloads a tiny Longformer with the code of these notebooks; a real one of either kind is a name in CHECKPOINT and a larger MAX_LEN. Take one when a label hangs on passages far apart, which no single window holds, and when there is a GPU. Otherwise try windows first: they work with any checkpoint.

# %% [markdown]
# ## Before you rely on it
# The built-in comments are invented. A model trained on them is for learning how such models are made, not for moderating what real people write. For a model of your own, take its data from where it will be used, look at its errors with people who know the subject, and keep somebody who can be asked when it is wrong.

# %% [markdown]
# ## In short
# - A saved model is weights, tokenizer, length, label names, problem type and thresholds, in one folder, as safetensors.
# - `pipeline(..., top_k=None, truncation=True)`; go by label names, never by position.
# - Reload and compare before shipping.
# - Long texts are cut without a word. Windows read them whole: max says "somewhere in it" and collects false alarms, mean says "on the whole" and dilutes.
#
# You have been through the whole path: from label sets to a model that others can load. Set `DATASET` to your own file at the top of any notebook and go through it again.
