# %% [markdown]
# # 2 · Tokenization
#
# A model reads numbers: one id a word piece, in rows of equal length. This notebook makes those rows, looks at what gets lost on the way, and shows where a popular recipe, "pad everything to 256", spends most of a laptop's time on nothing.
#
# **You will be able to**
# - read what a tokenizer returns: pieces, ids, special tokens, attention mask; and say what `[UNK]` swallows;
# - write a `Dataset` and a collator that pad each batch only as far as it needs;
# - choose MAX_LEN from the lengths of your texts, knowing what is cut and what it costs;
# - say what padding costs, and which way of forming batches wastes least;
# - show that padding leaves the result alone, as long as the mask is passed on.
#
# A word that is new to you is in the [glossary](https://github.com/multilabel-course/multilabel-course/blob/main/docs/glossary.md).
#
# **Time:** under a minute on a laptop with two CPU cores, also for 2,500 texts of your own. On a GPU: not measured.

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
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset

from helpers import drawings, exercises, plots
from helpers.data import label_matrix, read_splits
from helpers.models import load_model, load_tokenizer
from helpers.notebooks import show_error
from helpers.runtime import start_run
from helpers.tokenization import tokenize_splits

# %% [markdown]
# `start_run` checks the parameters, reads the data, picks device and precision, and seeds everything. What it settled on, and where each value came from:

# %%
plots.set_style()
run = start_run(
    "02_tokenization",
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
)
print(run)

# %% [markdown]
# ## What a tokenizer returns
# A **checkpoint** is a trained model in a folder: its weights and its tokenizer. They belong together, since a model understands only the ids it was trained with. The built-in one is WordPiece, the kind of BERT and DistilBERT.

# %% tags=["nbval-check-output"]
settings, device, tokenizer = run.settings, run.compute.device, load_tokenizer(run.checkpoint)
encoded = tokenizer("Two genre-bending heists at once", return_token_type_ids=False)
rows = [
    tokenizer.convert_ids_to_tokens(encoded["input_ids"]),
    encoded["input_ids"],
    encoded["attention_mask"],
]
pd.DataFrame(rows, index=["piece", "id", "mask"])

# %% [markdown]
# Common words are one piece; a rare word such as *heists* is put together from pieces, those inside a word marked `##`. The tokenizer adds a special token at each end, `[CLS]` and `[SEP]`: nobody wrote them, but the model was trained with them, and what it makes of `[CLS]` can stand for the whole text (notebook 3). They count towards the length, so that of 128 tokens 126 are left for the text. The **attention mask** says which positions are to be read: here all of them, the special ones too.
#
# BERT's tokenizers return one row more, the *token type ids*: 0 for a first text, 1 for a second, where a model compares two. Our examples are one text each, all of theirs would be 0, and DistilBERT takes no such input. So `return_token_type_ids=False` leaves them out, here and from now on.

# %% tags=["nbval-check-output"]
pair = tokenizer(["Short.", "A somewhat longer sentence."], padding=True, return_token_type_ids=False)
for ids, mask in zip(pair["input_ids"], pair["attention_mask"], strict=True):
    print(tokenizer.convert_ids_to_tokens(ids), mask)

# %% [markdown]
# To stand in one tensor, rows need one length. The shorter one is filled with `[PAD]`, and its mask is 0 there, so that the model takes nothing from these positions.

# %% [markdown]
# ### What [UNK] swallows
# WordPiece has a fixed list of pieces. A word that cannot be put together from them becomes `[UNK]` as a whole, and everything in it is lost to the model. A sentence as people write it, and the way back:

# %% tags=["nbval-check-output"]
sentence = "Zoë's naïve robot, 10/10 🚀🚀 ¡olé!"
pieces = tokenizer.tokenize(sentence)
print(pieces)
print(tokenizer.convert_tokens_to_string(pieces))

# %% [markdown]
# The built-in tokenizer drops accents and capitals on purpose; the two rockets became one `[UNK]`, which it can't help. In the training texts:

# %% tags=["nbval-check-output"]
splits = run.splits
train = splits["train"]
unknown = [text for text in train["text"] if tokenizer.unk_token in tokenizer.tokenize(text, verbose=False)]
print(f"{len(unknown)} of {len(train)} training texts hold an {tokenizer.unk_token}")

# %% [markdown]
# Where it is none, nothing is lost; where it is a few, a word each. Where it is many, as with another script or with emoji that carry the meaning, take a checkpoint whose tokenizer knows them, or replace them before tokenizing by words that it knows, an emoji by its name. (New pieces can be added to a tokenizer as well; their vectors start from nothing, and many texts are needed to learn them.)
#
# Other checkpoints come with other kinds. RoBERTa and ModernBERT use **byte-level BPE**, which starts from the 256 bytes, so that nothing is ever unknown, and joins frequent neighbours. CANINE reads characters, which loses nothing either, and makes the longest rows. You don't choose freely: the tokenizer comes with the checkpoint, and its ids mean nothing to another. [A2](appendix/A2_other_forms_of_data.ipynb) compares the three on one sentence.

# %% [markdown]
# ### Two calls you will meet in older code
# `encode_plus` is gone from transformers 5. And `pad_to_max_length=True` is worse than gone: it is accepted and ignored, so the rows keep their own lengths and the error comes later, from somewhere else:

# %% tags=["nbval-check-output", "raises-exception"]
with show_error():
    tokenizer.encode_plus("Two heists at once")

# %% [markdown]
# The other call, and what becomes of its rows:

# %% tags=["nbval-check-output", "raises-exception"]
rows = [
    tokenizer(text, max_length=16, truncation=True, pad_to_max_length=True)["input_ids"]
    for text in ("Short.", "A longer sentence.")
]
with show_error():
    torch.stack([torch.tensor(row) for row in rows])


# %% [markdown]
# Today the tokenizer is called like a function, with `truncation=` and `padding=` given explicitly.

# %% [markdown]
# ## A Dataset
# PyTorch wants an object that knows its length and returns one example by number. This one tokenizes all texts once, cuts them at `max_len`, and does *not* pad: nobody knows yet which texts will share a batch.


# %%
class MultiLabelDataset(Dataset):
    def __init__(self, texts, labels, tokenizer, max_len):
        self.encodings = tokenizer(
            list(texts), truncation=True, max_length=max_len, return_token_type_ids=False
        )
        self.labels = torch.as_tensor(labels, dtype=torch.float32)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        item = {name: values[index] for name, values in self.encodings.items()}
        return {**item, "labels": self.labels[index]}


# %% [markdown]
# One example of the training data:

# %% tags=["nbval-check-output"]
train_set = MultiLabelDataset(train["text"], label_matrix(train), tokenizer, settings.max_len)
item = train_set[0]
print(f"{len(train_set)} examples; the first has {len(item['input_ids'])} tokens")
print(f"its labels: {len(item['labels'])} numbers, {item['labels'].sum():.0f} of them 1")


# %% [markdown]
# ## A collator
# The `DataLoader` draws a few examples and hands them to a **collator**, which makes tensors of them. This one pads to the longest of the batch, and refuses labels that the loss could not use:


# %%
class MultiLabelCollator:
    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __call__(self, items):
        inputs = [{name: item[name] for name in ("input_ids", "attention_mask")} for item in items]
        batch = dict(self.tokenizer.pad(inputs, return_tensors="pt"))
        labels = [torch.as_tensor(item["labels"]) for item in items]
        if any(not vector.is_floating_point() for vector in labels):
            raise ValueError(
                "labels must be floating point, float32 as the logits are: "
                "BCEWithLogitsLoss takes no integers and no booleans. Convert them with .astype('float32')"
            )
        if len({tuple(vector.shape) for vector in labels}) > 1:
            raise ValueError(
                "label vectors of different lengths in one batch: "
                f"{sorted({len(v) for v in labels})}. Every row needs one number a label"
            )
        batch["labels"] = torch.stack(labels).to(torch.float32)
        return batch


# %% [markdown]
# Three batches of the `DataLoader` that uses it:

# %% tags=["nbval-check-output"]
collator = MultiLabelCollator(tokenizer)
loader = DataLoader(train_set, batch_size=settings.train_batch_size, collate_fn=collator)
batches = list(loader)
for batch in batches[:3]:
    print({name: (tuple(tensor.shape), str(tensor.dtype)) for name, tensor in batch.items()})

# %% [markdown]
# A batch is as wide as its longest text, and never wider than MAX_LEN. Training batches will be shuffled; validation batches never are, so that predictions stay in the order of the rows.

# %% [markdown]
# Integer labels would only fail in the loss, with the message of notebook 1. They are stopped here, where the row is still at hand; float64 and float16 are turned into float32:

# %% tags=["nbval-check-output"]
with show_error():
    collator([{**train_set[0], "labels": [0, 1, 1]}])

# %% [markdown]
# ### The same with `datasets.map`
# `MultiLabelDataset` keeps all ids in memory. The data are a `datasets.Dataset` already, and its `map` writes the result to disk and reads it from there, so that memory does not grow with the rows. `tokenize_splits` of `helpers` calls it; the later notebooks use that. The collator stays the same:

# %% tags=["nbval-check-output"]
columns = ["input_ids", "attention_mask", "labels"]
mapped = tokenize_splits(splits, tokenizer, settings.max_len)["train"].select_columns(columns)
mapped_batches = DataLoader(mapped, batch_size=settings.train_batch_size, collate_fn=collator)
for ours, theirs in zip(batches, mapped_batches, strict=True):
    assert all(torch.equal(ours[name], theirs[name]) for name in columns)
print(f"all {len(batches)} batches are equal to those of MultiLabelDataset")

# %% [markdown]
# [A2](appendix/A2_other_forms_of_data.ipynb) measures how fast the two are, beside a third way that is copied a lot.


# %% [markdown]
# ## How long are the texts?
# MAX_LEN is a decision about what to throw away. So look first, with nothing cut:

# %%
whole = tokenizer(train["text"][:], return_token_type_ids=False, verbose=False)["input_ids"]
n_tokens = np.array([len(ids) for ids in whole])
ax = plots.lengths(n_tokens, settings.max_len)

# %% [markdown]
# How many texts, and how much of all text, would other limits cut?

# %% tags=["nbval-check-output"]
limits = [32, 64, 128, 256, 512]
cut = pd.DataFrame(
    {
        "texts cut": [np.mean(n_tokens > limit) for limit in limits],
        "tokens lost": [np.maximum(n_tokens - limit, 0).sum() / n_tokens.sum() for limit in limits],
    },
    index=pd.Index(limits, name="MAX_LEN"),
)
cut.map("{:.1%}".format)

# %% [markdown]
# That is what a smaller limit throws away. What does a larger one cost? We time a forward pass of eight texts that fill it. The model is the checkpoint with a new head, not trained yet, as the message says; its speed is that of the trained one:

# %%
model = load_model(run.checkpoint, run.label_names).to(device).eval()


# %% [markdown]
# The time of each width, the quicker of two passes:


# %%
def milliseconds(width):
    ids = torch.full((8, width), tokenizer.convert_tokens_to_ids("the"), device=device)
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        with torch.inference_mode():
            model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.cpu()
        seconds.append(time.perf_counter() - start)
    return 1000 * min(seconds) / len(ids)


# %% [markdown]
# Both prices side by side:

# %%
price = cut.map("{:.1%}".format)
fits = [limit for limit in limits if limit <= tokenizer.model_max_length]
price["ms a full text"] = pd.Series({limit: round(milliseconds(limit), 1) for limit in fits})
price

# %% [markdown]
# Read each row as two prices. On a CPU twice the width takes about twice the time; how steep it is here, the last column says. A larger MAX_LEN is paid only by batches that hold a long text, if they are as wide as their longest text and no wider. For the MAX_LEN of this run:

# %% tags=["nbval-check-output"]
print(f"median {np.median(n_tokens):.0f} tokens, longest {n_tokens.max()}")
print(f"at {settings.max_len}, {np.mean(n_tokens > settings.max_len):.1%} of the texts are cut")


# %% [markdown]
# A good MAX_LEN is the smallest that loses next to nothing: on the built-in data 128, which cuts about one text in fifty and loses one token in five hundred.

# %% [markdown]
# ## What padding costs
# Three ways to form batches: pad all to a fixed 256 as the well-known recipe does; pad each batch to its longest (**dynamic**); and, besides, put texts of similar length in one batch (**length-grouped**, here by sorting). Predict first: about which share of all positions holds no text, in each of the three?


# %%
def padded_share(lengths, batch_size, fixed=None):
    groups = [lengths[start : start + batch_size] for start in range(0, len(lengths), batch_size)]
    positions = sum(len(group) * (fixed or group.max()) for group in groups)
    return 1 - lengths.sum() / positions


# %% [markdown]
# A sample of the training texts, cut at 256, as drawn and sorted by length:

# %% tags=["nbval-check-output"]
sample = np.random.default_rng(0).choice(len(train_set), size=min(96, len(train_set)), replace=False)
by_length = np.array(sorted(sample, key=lambda i: n_tokens[i]))
kept = np.minimum(n_tokens, 256)
waste = pd.Series(
    {
        "fixed 256": padded_share(kept[sample], settings.train_batch_size, fixed=256),
        "dynamic": padded_share(kept[sample], settings.train_batch_size),
        "length-grouped": padded_share(kept[by_length], settings.train_batch_size),
    }
)
waste.map("{:.0%}".format).to_frame("positions without text")

# %% [markdown]
# The same texts as masks: a line is a text, a block a batch. Compare the grey areas. What makes a batch of the middle picture so wide, and where have the long texts gone in the right one?

# %%
axes = drawings.padding(n_tokens[sample], settings.train_batch_size, fixed=256)

# %% [markdown]
# Positions without text are computed like all others and then ignored. Dynamic padding still leaves many of them: one long text makes its whole batch wide. Sorting leaves few, and the fewer the more texts there are to sort. What that means in seconds depends on the machine, so we measure it on yours: the same texts, three ways.

# %% [markdown]
# The clock runs over tokenizing, padding and the forward pass, in fp32 (numbers of 32 bits; notebook 3 has half of that). The logits are kept, in the order of the rows:


# %%
def forward(rows, **padding):
    logits, start = {}, time.perf_counter()
    options = {"truncation": True, "max_length": 256, "return_tensors": "pt", **padding}
    for first in range(0, len(rows), settings.train_batch_size):
        chosen = rows[first : first + settings.train_batch_size]
        texts = [train["text"][int(i)] for i in chosen]
        inputs = tokenizer(texts, return_token_type_ids=False, **options)
        with torch.inference_mode():
            logits.update(zip(chosen, model(**inputs.to(device)).logits.cpu(), strict=True))
    seconds = time.perf_counter() - start
    return torch.stack([logits[i] for i in sorted(logits)]), len(rows) / seconds


forward(sample[:16], padding=True)  # to warm up
passes = {
    "fixed 256": forward(sample, padding="max_length"),
    "dynamic": forward(sample, padding=True),
    "length-grouped": forward(by_length, padding=True),
}
measured = waste.to_frame("positions without text")
measured["texts per second"] = [speed for _, speed in passes.values()]
measured["against fixed"] = measured["texts per second"] / measured["texts per second"].iloc[0]
measured.round(2)

# %% [markdown]
# As a picture:

# %%
fig, axes = plt.subplots(1, 2, figsize=(7.5, 2.2), layout="constrained", sharey=True)
for ax, column, form in zip(axes, measured, ("{:.0%}", "{:.0f}"), strict=False):
    bars = ax.barh(measured.index[::-1], measured[column][::-1], color=plots.BLUE)
    ax.bar_label(bars, labels=[form.format(v) for v in measured[column][::-1]], padding=3)
    ax.set_title(column)
    ax.margins(x=0.2)
    ax.grid(False, axis="y")
axes[0].set_xlabel("share of all positions")
_ = axes[1].set_xlabel("tokenizing and forward pass, fp32")

# %% [markdown]
# The gain is free: nothing about the texts changed. It is large where texts are much shorter than the fixed width, and none where they fill it. Fully sorted, though, the batches would be the same in every epoch, and go from short texts to long ones. So training in the next notebooks shuffles the texts, takes blocks of some batches, sorts inside each block, and shuffles the batches; that costs a little more padding than full sorting.

# %% [markdown]
# ## Does padding change the result?
# It must not, and with the mask it does not. The logits of all texts from above, from three kinds of batches:

# %%
reference, _ = passes["fixed 256"]
tolerance = 1e-5 if device.type == "cpu" else 1e-3  # GPUs round more
for kind, (logits, _) in passes.items():
    print(f"{kind:<15} largest change of a logit {(logits - reference).abs().max().item():.0e}")
    assert torch.allclose(logits, reference, rtol=0, atol=tolerance)


# %% [markdown]
# They agree: what is left is the rounding of sums in another order. Now a common slip. One sentence alone, padded to 64, and padded with the mask left out. Predict first: will the slip change the logits by more or less than they differ between texts (their standard deviation)?


# %%
def encode(text, **options):
    return tokenizer(text, return_tensors="pt", return_token_type_ids=False, **options).to(device)


alone = encode("Two heists at once")
padded = encode("Two heists at once", padding="max_length", max_length=64)

# %% [markdown]
# The logits of all three:

# %%
with torch.inference_mode():
    expected = model(**alone).logits
    with_mask = (model(**padded).logits - expected).abs().max().item()
    without_mask = (model(input_ids=padded["input_ids"]).logits - expected).abs().max().item()
print(f"largest change of a logit: with the mask {with_mask:.0e}, without it {without_mask:.0e},")
print(f"where the logits of different texts differ by {reference.std(dim=0).mean().item():.0e}")
assert with_mask < tolerance < 10 * tolerance < without_mask

# %% [markdown]
# With the mask the difference is rounding. Without it, it is of the order of what tells one text from another: the padding is read as if it were text, and the answer to one text depends on the others of its batch: a fault that no error message tells. A mean over all positions, padding included, does the same.
#
# If a logit changes from call to call although the input is the very same, padding is not to blame: dropout is on. `model.eval()` switches it off.

# %% [markdown]
# ## Texts longer than the model
# The built-in encoder has 512 positions, and one token more is an error rather than a cut:

# %%
if settings.checkpoint == "embedded":
    too_long = encode("long " * 511, verbose=False)
    print(too_long["input_ids"].shape[1], "tokens")
    with show_error():
        model(**too_long)

# %% [markdown]
# `truncation=True` avoids the error by reading the beginning only. Where what counts may stand further down, a text can be read in overlapping windows: [notebook 6](06_inference.ipynb) compares both with a trained model.

# %% [markdown]
# ## Exercises
# Three to think through before anything is run. Put your answer in the place of `None`, run the cell and the one below it: it says whether the answer is right, or what is off. An unanswered exercise stops nothing. The solutions are folded.

# %% [markdown]
# ### Exercise 1 · MAX_LEN for comments
# The course's other data set holds short comments. Choose for them the smallest multiple of 16 that cuts no more than two texts in a hundred. `lengths` has the tokens of each, `[CLS]` and `[SEP]` included. Predict first: is 128, enough for the films, enough here?

# %% tags=["solution"]
comments = read_splits("comments")["train"]["text"][:]
lengths = np.array([len(ids) for ids in tokenizer(comments, verbose=False)["input_ids"]])
print(f"{len(lengths)} comments, median {np.median(lengths):.0f} tokens, longest {lengths.max()}")
# Your answer, a number:
# The share of texts longer than each width, until it is small enough. Most comments are short,
# but a few are very long: 128 cuts a little more than two in a hundred.
chosen = next(width for width in range(16, 1000, 16) if np.mean(lengths > width) <= 0.02)

# %% tags=["nbval-check-output"]
exercises.max_len(chosen, lengths)

# %% [markdown]
# ### Exercise 2 · The share of padding
# Four texts have 10, 12, 14 and 100 tokens. Which share of all positions is padding when they are one batch, and when the first two and the last two are a batch each? Predict, then compute both to two digits.

# %% tags=["solution"]
four = [10, 12, 14, 100]
# Your answer, two shares, for one batch and for two:
# 136 tokens of text, in 4 rows of 100, or in 2 rows of 12 and 2 rows of 100.
shares = (1 - 136 / (4 * 100), 1 - 136 / (2 * 12 + 2 * 100))

# %% tags=["nbval-check-output"]
exercises.padding_share(shares, four)

# %% [markdown]
# ### Exercise 3 · What the mask changes
# Three texts are padded into one batch. Then their attention mask is replaced by ones. Predict: of which texts do the logits change? The check computes them both ways and tells.

# %% tags=["solution"]
three = ["A quiet film", "An orchestra rehearses while the house burns down", "Two heists at once"]
batch = tokenizer(three, padding=True, return_tensors="pt", return_token_type_ids=False).to(device)
print(*tokenizer.batch_decode(batch["input_ids"]), sep="\n")
# Your answer, a list of text numbers, counted from 0:
# Texts 0 and 2 are padded, and their [PAD]s would be read. Text 1 fills its row: its mask was all ones before.
changed = [0, 2]

# %%
ones = torch.ones_like(batch["attention_mask"])
with torch.inference_mode():
    change = model(input_ids=batch["input_ids"], attention_mask=ones).logits - model(**batch).logits
exercises.mask_of_ones(changed, change.abs().amax(dim=1) > tolerance)

# %% [markdown]
# ## In short
# - The tokenizer comes with the checkpoint; call it, and give `truncation` and `padding` explicitly. Know what `[UNK]` swallows.
# - Tokenize once, in batches; pad late: a small collator makes batches as wide as they need to be.
# - Choose MAX_LEN from the lengths you have; know the share of texts you cut and the time you pay.
# - Always pass the attention mask on.
# - A text that is too long is cut, or read in windows (notebook 6).
#
# **Next:** [3 · A custom model and its training](03_custom_model_training.ipynb).
