# %% [markdown]
# # 1 · Data formatting
#
# A text can carry no label, one, or several. This notebook takes such data from the forms in which they are found to the one that a model can be trained on: a text, and a row of zeros and ones.
#
# **You will be able to**
# - say how multi-label classification differs from multi-class, and which function each needs at the end of the model;
# - turn label sets into a float32 matrix with `MultiLabelBinarizer`, and know why float32;
# - read the forms in which multi-label data come with one call, and get every fault of a file named;
# - know what is in a data set: counts, combinations, lengths, repeated texts;
# - split without leaks and without losing the rare labels, and say what happens otherwise.
#
# A word that is new to you is in the [glossary](https://github.com/multilabel-course/multilabel-course/blob/main/docs/glossary.md).
#
# **Time:** about half a minute on the built-in data, on a laptop with two CPU cores; up to a minute for 2,500 texts of your own. No GPU is used.

# %% [markdown]
# ## Set-up
# The first cell makes sure that the course's `helpers` package is there. Then come the parameters, the same in every notebook; `None` means the profile's value.

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
# The parameters. Change them here, or let papermill, which runs notebooks, do it from outside.

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
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from sklearn.preprocessing import MultiLabelBinarizer

from helpers import drawings, exercises, plots
from helpers.data import equal_texts, label_matrix, near_duplicates, read_splits, split_rows
from helpers.labels import count_positives, label_shares
from helpers.metrics import MIN_POSITIVES, label_average_precision
from helpers.models import tfidf_regression
from helpers.notebooks import expect, show_error
from helpers.runtime import start_run

# %% [markdown]
# `start_run` checks the parameters, reads the data, picks device and precision, and seeds everything. What it settled on, and where each value came from:

# %%
plots.set_style()
run = start_run(
    "01_data_formatting",
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
# ## Multi-class or multi-label?
# Some fruits, each an apple, a mango *or* a banana: one of several classes, which is **multi-class**. Films by genre are different. *The Matrix* is action *and* sci-fi, and a film may be neither: every label is a question of its own, which is **multi-label**.
#
# The data have different shapes, too. A multi-class target is one number a text, the class; a multi-label target is a row of zeros and ones:

# %% tags=["nbval-check-output"]
fruits = torch.tensor([0, 2, 1])  # apple, banana, mango: shape (n_examples,)
# action, sci-fi, romance: shape (n_examples, n_labels)
films = torch.tensor([[1.0, 1, 0], [0, 0, 1], [0, 0, 0]])
print("multi-class:", tuple(fruits.shape), fruits.dtype)
print("multi-label:", tuple(films.shape), films.dtype)

# %% [markdown]
# The third film has no label, which a multi-class target could not even express.
#
# The model ends differently as well. It gives one number a label, a **logit**. For multi-class, softmax makes the logits compete for a total of 1. For multi-label, a sigmoid answers each question separately. *The Matrix*, as a good model would see it:

# %% tags=["nbval-check-output"]
logits = torch.tensor([3.0, 2.5, -2.0])
answers = pd.DataFrame({"softmax": logits.softmax(dim=0), "sigmoid": logits.sigmoid()})
answers.index = ["action", "sci-fi", "romance"]
looks = {"figsize": (7.5, 2.4), "layout": (1, 2), "color": plots.BLUE, "rot": 0, "legend": False}
_ = answers.plot.bar(subplots=True, sharey=True, ylim=(0, 1), **looks)
print("total:", answers.sum().round(2).to_dict())

# %% [markdown]
# Softmax cannot say "both": the better action fits, the less is left for sci-fi. With sigmoids both are likely, romance is not, and the total need not be 1: it says how many labels the model expects. In the course it is always the sigmoid, and an all-low answer is a valid one.

# %% [markdown]
# ## What the data look like
# `run.splits` holds the training and validation examples, a `datasets.Dataset` each, whose rows have an id, a text, and the numbers of their labels. The test split stays closed until a model is final. Here are some texts, with the names of their labels. (Nowhere else in this notebook are texts printed. If yours are private or offensive, think of where its outputs will go.)

# %% tags=["nbval-check-output"]
splits = run.splits
train = splits["train"]
names = run.label_names
sets = [{names[i] for i in ids} for ids in train["label_ids"]]
for text, labels in list(zip(train["text"], sets, strict=True))[:4]:
    line = " ".join(text.split())
    print(", ".join(sorted(labels)) or "no label", "\n   ", line[:85] + " ..." * (len(line) > 85), "\n")

# %% [markdown]
# ## From label sets to a matrix
# A model needs numbers. scikit-learn's `MultiLabelBinarizer` gives each label a column and puts 1 where the label is present. First on the smallest example, a thriller in space and a comedy:

# %% tags=["nbval-check-output"]
mlb = MultiLabelBinarizer()
print(mlb.fit_transform([{"sci-fi", "thriller"}, {"comedy"}]))
print(list(mlb.classes_))
print("of strings:", list(MultiLabelBinarizer().fit(["sci-fi", "comedy"]).classes_))

# %% [markdown]
# The columns are in alphabetical order. It has to be given sets or lists: a string such as `"sci-fi;thriller"` is taken for a list of letters, without an error, so split such strings first. Keep `classes_` with the data: a prediction is a row of numbers, and only this list says which number is which label.
#
# Now the real sets. The binarizer learns its columns, and whatever learns is fitted on **train only**:

# %% tags=["nbval-check-output"]
mlb = MultiLabelBinarizer().fit(sets)
y_train = mlb.transform(sets)
print(y_train.shape, y_train.dtype)
first = pd.DataFrame(y_train[:4].T, index=mlb.classes_, columns=[f"text {i}" for i in range(4)])
plots.commonest(first, y_train.sum(axis=0))

# %% [markdown]
# (Turned over, to fit the page: a column here is a row of the matrix.)
#
# A label that train never showed has no column. The binarizer says so in a warning that is easy to miss, and drops it:

# %% tags=["nbval-check-output"]
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    row = mlb.transform([{mlb.classes_[0], "never seen"}])
print(f"ones in the row: {row.sum()} | zeros: {(row == 0).sum()} |", caught[0].message)

# %% [markdown]
# The text would count as one *without* that label: not a missing target but a wrong one. So in the course the list of labels comes with the data, in the data's order. The binarizer takes it as `classes`, and `label_matrix` gives what comes of it:

# %% tags=["nbval-check-output"]
y_train = label_matrix(train)
assert np.array_equal(MultiLabelBinarizer(classes=names).fit_transform(sets), y_train == 1)
print(y_train.dtype, "|", ", ".join(names[:12]), "..." if len(names) > 12 else "")

# %% [markdown]
# ## Why float32
# `MultiLabelBinarizer` gives integers. The loss of this task, binary cross-entropy, needs floating point. Whole numbers and booleans stop it, each with words that don't name the cause:

# %% tags=["nbval-check-output"]
loss_fn = torch.nn.BCEWithLogitsLoss()
four, logits = torch.tensor(y_train[:4]), torch.zeros(4, y_train.shape[1])
for dtype in (torch.int64, torch.bool):
    with show_error():
        loss_fn(logits, four.to(dtype))

# %% [markdown]
# Predict first: does the same happen with floating point of another size?

# %% tags=["nbval-check-output"]
for dtype in (torch.float16, torch.float32, torch.float64):
    loss = loss_fn(logits, four.to(dtype))
    print(f"labels {dtype}: loss {loss.item():.4f}, {loss.dtype}")
assert y_train.dtype == np.float32

# %% [markdown]
# All three work. The loss is log 2, or 0.693: each cell costs minus the logarithm of the probability that was given to the right answer, and a logit of 0 gives one half to either (more in notebook 3). But it takes on the type of the labels: in float16 it is rounded to three digits, and float64 keeps digits that the logits don't have. Logits are float32, so the labels are, too, and `label_matrix` makes them so.

# %% [markdown]
# ## The forms in which data come
# | form | labels of one text | met in |
# |---|---|---|
# | lists, or names joined by a separator | `["a", "b"]` or `a;b` | exports, JSONL |
# | one 0/1 column a label | `1,1,0` | the toxic-comment CSV of Kaggle |
# | lists of label ids | `[0, 1]`, the names kept beside | GoEmotions on the Hugging Face hub |
# | tokenized already, float vectors | `[1.0, 1.0, 0.0]`, and `input_ids` for the text | `zcamz/toxic` on the hub |
#
# The first two are what people keep in files. Twenty texts, with lists of labels, with joined names, and with a column a label:

# %%
folder = Path(tempfile.mkdtemp())
rows = pd.DataFrame({"text": [f"Example number {i}, nothing more" for i in range(20)]})
rows["labels"] = [["a"], ["a", "b"], [], ["b", "c"]] * 5
joined = rows["labels"].str.join("|")
rows.to_json(folder / "lists.jsonl", orient="records", lines=True)
rows.assign(labels=joined).to_csv(folder / "joined.csv", index=False)
rows[["text"]].join(joined.str.get_dummies()).to_csv(folder / "columns.csv", index=False)

# %% [markdown]
# One call reads them all. It returns the same thing each time, a `DatasetDict` with `train`, `validation` and `test` and float32 labels:

# %% tags=["nbval-check-output"]
matrices = set()
for file in sorted(folder.iterdir()):
    read = read_splits(file)
    sizes = {split: part.num_rows for split, part in read.items()}
    print(f"{file.name:<12}", sizes, label_matrix(read["train"])[0])
    matrices.add(label_matrix(read["train"]).tobytes())
assert len(matrices) == 1

# %% [markdown]
# The labels are the same array, byte for byte. The other two forms are read by the same call: [A2](appendix/A2_other_forms_of_data.ipynb), for a second reading, is about them.
#
# `DATASET` in the parameters cell takes any such file; a name like `owner/name` is read from the hub. [docs/your_own_data.md](https://github.com/multilabel-course/multilabel-course/blob/main/docs/your_own_data.md) has a line of every form, those of spreadsheets and annotation tools among them, and the line that converts what is not read.

# %% [markdown]
# ## Bad data are named, not guessed at
# Real files have faults. A silent repair would come back as a bad score, so reading is strict: it collects the faults of the whole file, and says for each where it is and what to do. The handful that everybody meets sooner or later, in one file:

# %% tags=["nbval-check-output"]
faulty = """text,toxic,threat,Threat
fine so far,0,0,0
,1,0,0
"quotes keep a comma, and a line
break, in one text",0,1,0
without them, a comma makes a column,0,1,0
also fine,2,0,0
"NA",1,yes,0
"""
faulty_file = Path(tempfile.mkdtemp()) / "faulty.csv"
faulty_file.write_text(faulty)
with show_error():
    read_splits(faulty_file)

# %% [markdown]
# Rows are counted as a spreadsheet does: the header is row 1, and a text of two lines is one row. "NA" is a text that people write and is kept as one; `pandas.read_csv` on its own takes it for a missing value. In a 0/1 column a cell with nothing in it is refused as well: it may be a no, or a question that nobody answered, and only you can say which (`UNKNOWN = True` takes it for the second). In a column of names an empty cell means no label, and a row of zeros is a text without a label; neither is a fault. An id that occurs twice is one, and so are two separators in one column.
#
# Names of labels are checked, too. An unnoticed `Funny` beside `funny` would become a label of its own, with one example to learn from, and that example would be a wrong no for `funny`: the model would be taught a contradiction (exercise 2 has such a file). Where you know which labels there should be, say so: `LABEL_NAMES` makes any other name an error. Only what cannot change a meaning is cleaned up silently, such as spaces around a name. The same check runs from a terminal, without loading PyTorch: `python -m helpers check FILE`.

# %% [markdown]
# ## Know your labels
# Three numbers describe a label matrix: **cardinality**, the mean number of labels a text; **density**, cardinality divided by the number of labels; and how many different **combinations** occur. (A label that is unknown of a text counts as absent here; notebook 4 is about such cells.)

# %% tags=["nbval-check-output"]
present = (y_train == 1).astype(np.float32)
print(f"{len(present)} training texts, {len(names)} labels")
print(f"cardinality {present.sum(1).mean():.2f}, density {present.mean():.3f}")
print(f"without a label: {np.mean(present.sum(1) == 0):.0%} of the texts")
combinations, how_often = np.unique(present, axis=0, return_counts=True)
print(f"{len(combinations)} combinations, {np.sum(how_often == 1)} of them on one text only")

# %% [markdown]
# Combinations that occur once are why multi-label is not multi-class over combinations: such a class would have a single example. How many labels has a text?

# %% tags=["nbval-check-output"]
pd.Series(np.bincount(present.sum(1).astype(int))).rename_axis("labels on a text").to_frame("texts")

# %% [markdown]
# Texts without a label, where there are any, teach what a "no" looks like. Keep them, except where an empty row means that nobody looked.
#
# Density and the share of texts without a label say what the laziest model gets. It always answers "no". Counted by cells it is right in a share of 1 - density, which is four of five on the built-in film plots and comes near 100% where labels are rare. Counted by rows it is right where a text has no label. So a high share of right cells says nothing by itself; notebook 5 has scores that see through it.
#
# Are some labels much rarer than others?

# %%
counts = pd.Series(count_positives(y_train), index=names)
ax = plots.label_counts(counts)

# %% tags=["nbval-check-output"]
print(f"commonest: {counts.idxmax()} ({counts.max()}), rarest: {counts.idxmin()} ({counts.min()})")
print(f"ratio {counts.max() / max(counts.min(), 1):.1f}")

# %% [markdown]
# A ratio near 1 means that the labels have about as many examples to learn from. Where it is large, which is called **imbalance**, notebooks 4 and 5 have what may help the rare ones: weights and thresholds. What is rare in train is rarer still in validation, and a recall that rests on five texts moves by a fifth with each.
#
# Labels also come together. The matrix product counts, for each two labels, the texts that have both, and on the diagonal those that have the one. Each row is divided by its diagonal (of many labels we take the 20 commonest):

# %%
shown = sorted(np.argsort(-counts.to_numpy(), kind="stable")[: plots.IN_TABLE])
some, labels = present[:, shown], [names[k] for k in shown]
together = pd.DataFrame(some.T @ some, index=labels, columns=labels)
share = together.div(np.maximum(np.diag(together), 1), axis=0).astype(float)
itself = np.eye(len(share), dtype=bool)

# %% [markdown]
# Predict first: if a third of the texts with *a* also have *b*, do a third of those with *b* have *a*?

# %%
few, all_names = len(share) <= 12, {"xticklabels": True, "yticklabels": True}
ax = sns.heatmap(share, mask=itself, annot=few, cbar=not few, fmt=".0%", cmap="Blues", **all_names)
ax.set_title("Of the texts with the row's label, how many have the column's?")
ax.grid(False)

# %% tags=["nbval-check-output"]
pairs = share.mask(itself).stack()
first, second = pairs.idxmax()
print(f"{pairs.max():.0%} of the texts with {first} also have {second},")
print(f"{share.loc[second, first]:.0%} of those with {second} also have {first}")

# %% [markdown]
# The same number of shared texts is a larger part of a rare label than of a common one, so the relation has a direction. Where labels are about equally frequent, as the built-in genres are, the two directions are close. Among the built-in comments (`DATASET = "comments"`) all training texts with `severe_toxic` are `toxic`, and 22% of the toxic ones are `severe_toxic`. A model may learn such ties in the place of what the text says.

# %% [markdown]
# ## Know your texts
# How long are they? In words, for now; notebook 2 counts tokens.

# %%
n_words = pd.Series([len(text.split()) for text in train["text"]])
shown = n_words.clip(upper=int(n_words.quantile(0.995)))
ax = shown.plot.hist(bins=plots.whole_bins(shown), color=plots.GREY, figsize=(7.5, 2.8))
_ = ax.set(title="Length of the training texts", xlabel="words", ylabel="number of texts")

# %% tags=["nbval-check-output"]
print(f"shortest {n_words.min()}, median {n_words.median():.0f}, longest {n_words.max()} words")
print(f"{np.mean(n_words > 3 * n_words.median()):.1%} are more than three times as long as the median")


# %% [markdown]
# The tail on the right, if there is one, decides what a fixed length costs: padding for the many, or cutting the few (notebook 2).
#
# Then, is a text there twice? We count texts that are **equal** up to case and spaces; texts that are **nearly equal**, which share at least four fifths of all the pairs of neighbouring words in them; and equal texts with **different labels**.


# %%
def repeats(texts, labels):
    equal, near = equal_texts(texts), near_duplicates(texts)
    sets = pd.Series([tuple(row) for row in labels])
    return {
        "repeats of an equal text": len(texts) - len(set(equal)),
        "repeats of a nearly equal text": len(texts) - len(set(near)),
        "texts with conflicting labels": int((sets.groupby(equal).nunique() > 1).sum()),
    }


# %% [markdown]
# For the training texts, and again with three planted copies of the longest: with other spaces, with a word more, and with other labels:

# %% tags=["nbval-check-output"]
texts = train["text"][:]
k = max(range(len(texts)), key=lambda i: len(texts[i].split()))
planted = texts + ["  " + texts[k].replace(" ", "  "), texts[k] + " Really.", texts[k]]
planted_y = np.vstack([y_train, y_train[[k, k]], 1 - y_train[[k]]])
pd.DataFrame({"train": repeats(texts, y_train), "with three planted": repeats(planted, planted_y)})

# %% [markdown]
# Of the three planted copies two are equal, and one contradicts the original. The one with a word more is nearly equal, unless the text is very short: four words have three pairs, one word more makes it four, and three shared pairs of four are 75%, too few.
#
# What to do with a conflict is for you to say: ask who labelled it, keep the majority, or drop the text.

# %% [markdown]
# ## Splits that can be trusted
# The built-in files carry their split. A file without a `split` column is split here into 70% train, 15% validation and 15% test. Two things can go wrong, and both are invisible afterwards: the draw can be unlucky for a rare label, and the same text can land on both sides.
#
# ### Random or stratified
# A random draw keeps each label's share on average. **Iterative stratification** sees to it in every single draw: it takes the label with the fewest rows left, deals these rows out, each to the part that still lacks most of that label, and goes on with the next label. (scikit-learn's `train_test_split(stratify=Y)` takes each *combination* of labels for a class, and stops where one occurs once.)
#
# We divide train and validation (at most 2,000 rows of them) anew, 85 to 15, with 100 seeds. How many positives of a rare label does the smaller part get? We take the rarest that has at least ten.

# %%
y = np.vstack([y_train, label_matrix(splits["validation"])]) == 1
y = y[np.random.default_rng(0).permutation(len(y))[:2000]]
positives = y.sum(axis=0)
enough = np.flatnonzero(positives >= MIN_POSITIVES)
rare = enough[positives[enough].argmin()] if len(enough) else positives.argmax()
print(f"{names[rare]}: {positives[rare]:.0f} positives")
if not len(enough):
    print(f"No label has {MIN_POSITIVES} positives here; this is the commonest, and what follows needs more.")

# %% [markdown]
# Both kinds of split. Predict first: 15% of these positives would be fair; how far from that will the unluckiest random draw be?

# %% tags=["nbval-check-output"]
shares = {"train": 0.85, "validation": 0.15}
numbered = [f"text {i}" for i in range(len(y))]
drawn, sizes = {"random": [], "stratified": []}, []
for seed in range(100):
    taken = np.random.default_rng(seed).permutation(len(y))[: round(0.15 * len(y))]
    drawn["random"].append(int(y[taken, rare].sum()))
    dealt = split_rows(numbered, y, shares, seed) == "validation"
    drawn["stratified"].append(int(y[dealt, rare].sum()))
    sizes.append(int(dealt.sum()))
summary = pd.DataFrame(drawn).agg(["min", "mean", "max"]).T
summary["15% of all positives"] = 0.15 * int(positives[rare])
print(f"rows in the smaller part, stratified: {min(sizes)} to {max(sizes)}; 15% are {0.15 * len(y):.0f}")
summary.round(1)

# %% [markdown]
# Compare *min* and *max* of the two rows. The mean is about right for both; but you use one seed, not a hundred, and with a random draw that seed decides how many positives your validation has. The line above the table is the price of stratification: the positives are where they should be, and the part has more or fewer rows than asked for, among the built-in film plots up to a tenth. For a label with a handful of positives no way of dividing helps: it needs more texts, or counts for nothing.

# %% [markdown]
# ### What a leak does to the score
# Scraped data hold reposts. We make such a set out of ours: every third text has a copy, with "Repost." before it and the same labels. A **group** is a text with its copies; a text that has none is a group of its own.

# %%
texts, y = train["text"][:2000], y_train[:2000]
scraped = texts + [f"Repost. {text}" for text in texts[::3]]
y_scraped = np.vstack([y, y[::3]])
groups = near_duplicates(scraped)
at_random = np.where(np.random.default_rng(0).random(len(scraped)) < 0.15, "validation", "train")
in_groups = split_rows(scraped, y_scraped, shares, 0, groups)

# %% [markdown]
# We have split it twice, at random and by groups. As a picture, of 72 texts and their copies: left a tile is a row, and rows of one group have the same number; right are the shares of the six commonest labels, in both parts of the whole split. Which numbers stand on both sides?

# %%
few = min(72, len(texts))
some = np.r_[:few, len(texts) : len(texts) + -(-few // 3)]  # these texts and their copies
commonest = np.argsort(-count_positives(y_scraped), kind="stable")[:6]
fig, axes = plt.subplots(2, 2, figsize=(7.5, 4.4), layout="constrained", width_ratios=[2.2, 1])
for pair, kind, side in ((axes[0], "random", at_random), (axes[1], "grouped", in_groups)):
    table = pd.DataFrame({part: label_shares(y_scraped[side == part]) for part in shares}, index=names)
    drawings.split(side[some], groups[some], table.iloc[commonest], kind, pair)

# %% [markdown]
# Orange: a group that was torn apart, so that training sees a text of the validation part. The other split keeps every group on one side and, being stratified, each label's share nearly the same in both parts.
#
# Now a model learns from the train part, TF-IDF with logistic regression, and its validation part says how good it is. Is that true? We ask the same model about texts of which no copy is anywhere in the set, our own validation split:


# %%
def reported_and_true(side):
    rest, held = np.flatnonzero(side == "train"), np.flatnonzero(side == "validation")
    learned, asked = [scraped[i] for i in rest], [scraped[i] for i in held]
    y_prob = tfidf_regression(learned, y_scraped[rest], asked + fresh)
    reported = label_average_precision(y_scraped[held], y_prob[: len(held)])
    true = label_average_precision(y_fresh, y_prob[len(held) :])
    both = np.isfinite(reported) & np.isfinite(true)  # labels with a positive on both sides
    return reported[both].mean(), true[both].mean()


# %% [markdown]
# The score is **macro-AP**, which says how well the texts with a label are ranked above those without: 1 is perfect, and a model that knows nothing gets about the label's share of the texts. Notebook 3 shows how it is computed. Predict first: which of the four numbers will stand out?

# %%
fresh, y_fresh = splits["validation"]["text"][:1000], label_matrix(splits["validation"])[:1000]
leak = {"random": reported_and_true(at_random), "grouped": reported_and_true(in_groups)}
leak = pd.DataFrame(leak, index=["reported", "on fresh texts"]).T
leak["too high by"] = leak["reported"] - leak["on fresh texts"]
leaks = leak["too high by"]["random"] > leak["too high by"]["grouped"]
expect(leaks, "the random split flatters more", run.settings)
leak.round(3)

# %% [markdown]
# On fresh texts the two models are about equally good. But the random split *reports* more, since some of its texts were learned by heart. How much more depends on how many copies there are, here every third text; in your data it is as large as the reposts are many.
#
# Nothing in the training would have warned you. `read_splits` keeps near-duplicates on one side where it makes the split. Where a file brings its own, look yourself:

# %% tags=["nbval-check-output"]
both = train["text"][:] + splits["validation"]["text"][:]
side = np.repeat(["train", "validation"], [len(train), len(splits["validation"])])
sides = pd.Series(side).groupby(near_duplicates(both)).nunique()
print(f"{len(sides)} different texts; on both sides, word for word or nearly: {(sides > 1).sum()}")

# %% [markdown]
# If there are some, delete the column `split` and let it be made here. A split that a publisher made, as for GoEmotions, is best kept: scores can then be compared with those of others.

# %% [markdown]
# ## Exercises
# Put your answer in the place of `None`, run the cell and the one below it: it says whether the answer is right, or what is off. An unanswered exercise stops nothing. The solutions are folded; try first.

# %% [markdown]
# ### Exercise 1 · Deal six rows
# Two of these six texts go to validation, the others to train. Each label should keep its share on both sides, and no text should stand on both. Which two? Rows are counted from 0.

# %% tags=["solution"]
six = pd.DataFrame(
    {
        "text": ["What a day", "what a  day", "The dog ran off"]
        + ["He cried with laughter", "Rain again", "Tea at five"],
        "funny": [1, 1, 0, 1, 0, 0],
        "sad": [0, 0, 1, 1, 1, 0],
    }
)
# Your answer, two row numbers:
# Of each label one text in three has to go. Rows 0 and 1 are one text; to take both would take
# two funny ones, so they stay. The only other funny text is 3, which is sad as well. A second
# sad one would be too many, which leaves 5.
in_validation = [3, 5]

# %% tags=["nbval-check-output"]
exercises.deal(in_validation, six)

# %% [markdown]
# ### Exercise 2 · Mend a file
# These ten rows have four faults. Find them before the reader does; `mended = faulty` as an answer gets its list. Then mend the text, by `replace` or in a copy, until the reader is silent, and lose no text and no label.

# %% tags=["solution"]
faulty = """id,text,labels
1,It rained, and nobody minded,funny
2,The train was late again,sad;funny
2,Somebody sang in the lift,Funny
4,The last page was missing,sad
5,They applauded the fire alarm,funny|sad
6,The bakery has closed,sad
7,A dog took the tram,funny
8,Nothing happened on Tuesday,
9,The umbrella stayed dry,funny
10,The shop is open again,
"""
# Your answer, the whole text:
mended = (
    faulty.replace("It rained, and nobody minded", '"It rained, and nobody minded"')  # quotes keep a comma
    .replace("sad;funny", "sad|funny")  # one separator in the whole file
    .replace("2,Somebody", "3,Somebody")  # each row its own id
    .replace("Funny", "funny")  # one spelling for each label
)

# %% tags=["nbval-check-output"]
exercises.mended_csv(mended, faulty)

# %% [markdown]
# ### Exercise 3 · Which split is fair?
# Three ways, A, B and C, to take three of nine messages for validation (v) and leave six for training (t). One is fair. What is wrong with the other two? Count each label on both sides, and look for reposts.

# %% tags=["solution"]
drill = "The neighbours drill every morning at six, and nobody does anything about it"
nine = pd.DataFrame(
    {
        "text": [drill, f"{drill} still", "Loud music until three", "Stop it, or I come over"]
        + ["You will regret this", "Thanks for the flowers", "Turn it down or else"]
        + ["The lift rattles all night", "The bins are full"],
        "noise": [1, 1, 1, 1, 0, 0, 1, 1, 0],
        "threat": [0, 0, 0, 1, 1, 0, 1, 0, 0],
        "A": list("vtttvttvt"),
        "B": list("ttvttttvv"),
        "C": list("ttvtvttvt"),
    }
)
# Your answer, a letter:
# A has the complaint about drilling on both sides: its repost differs by one word. B takes two
# of six noise texts, as it should, but none of three threats. C takes two and one.
fair = "C"

# %% tags=["nbval-check-output"]
exercises.fair_split(fair, nine)

# %% [markdown]
# ## In short
# - Multi-label means one yes-or-no question a label: sigmoid, not softmax.
# - `MultiLabelBinarizer` makes the matrix; the list of labels is fixed and travels with it; the loss wants floating point, float32 as the logits are.
# - One call, `read_splits`, brings every form to the same one, and names every fault of a file.
# - Look at counts, combinations, lengths and repeats first. They decide which scores can be believed.
# - Split with stratification, which keeps counts of positives, and repeats on one side. A leak is invisible and flatters, the more the more texts are repeated.
#
# **Next:** [2 · Tokenization](02_tokenization.ipynb), from text to tensors.
