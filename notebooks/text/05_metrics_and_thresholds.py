# %% [markdown]
# # 5 · Metrics and thresholds
#
# A multi-label model can be 80% right and useless. This notebook goes through the scores that are in use, by hand on a small example and then on the model of notebook 4, chooses a threshold for each label, and at the end, once, opens the test split.
#
# **You will be able to**
# - compute subset accuracy, Hamming loss, Hamming score, micro and macro F1 by hand, and say what each overlooks;
# - see why an AUC from 0/1 decisions is no AUC;
# - choose a threshold per label on validation data, and know when not to;
# - report a final score with an interval.
#
# **Time:** about half a minute on a laptop with two CPU cores, and about a minute more if notebook 4 has not run yet; on a GPU: not measured.

# %% [markdown]
# ## Set-up
# The first cell makes sure that the course is installed.

# %% tags=["setup"]
# Does nothing where the course is installed; elsewhere, as in Colab, installs this version of it.
import importlib, os, subprocess, sys

VERSION = "0.2.0"
ADDRESS = f"https://github.com/multilabel-course/multilabel-course/archive/refs/tags/v{VERSION}.zip"
try:
    import helpers
except ImportError:
    helpers = None
if getattr(helpers, "__version__", None) != VERSION:
    clone = ".." if os.path.exists("../helpers/runtime.py") else None
    source = os.environ.get("MULTILABEL_COURSE") or clone or ADDRESS
    command = [sys.executable, "-m", "pip", "install", "--quiet", source]
    if (pip := subprocess.run(command, capture_output=True, text=True)).returncode:
        raise RuntimeError(f"pip could not install the course from {source}:\n{pip.stderr[-2000:]}")
    sys.modules.pop("helpers", None)
    importlib.invalidate_caches()
    helpers = importlib.import_module("helpers")
in_the_way = getattr(helpers, "__version__", None) != VERSION
assert not in_the_way, f"another helpers is in the way: {helpers.__file__}; start in another folder"

# %% [markdown]
# The parameters. Change them here, or let papermill do it from outside. They are the same in every notebook; `None` means the profile's value; `start_run` prints it.

# %% tags=["parameters"]
PROFILE = "tiny"  # "tiny": built-in data and model, CPU. "full": data and checkpoint from the hub, for a GPU
DATASET = None  # None (the profile's), "movies", "comments", a .csv, .jsonl or .parquet file, or a hub name
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
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, hamming_loss, roc_auc_score

from helpers import models, plots
from helpers.data import label_matrix
from helpers.inference import Predictor
from helpers.metrics import (
    compare,
    decision_scores,
    hamming_score,
    interval,
    macro_average_precision,
    per_label_table,
    resampled_macro_ap,
)
from helpers.runtime import start_run
from helpers.thresholds import best_f1_threshold, tune_thresholds
from helpers.trainer import fine_tune

# %% [markdown]
# `start_run` checks the parameters, reads the data, picks device and precision, and seeds everything. What it settled on, and where each value came from:

# %%
plots.set_style()
run = start_run(
    "05_metrics_and_thresholds",
    default_dataset="comments",
    profile=PROFILE,
    dataset=DATASET,
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
# ## Five scores on four examples
# Four texts, three labels. The first is predicted perfectly, the second half right, the third has no label and gets none, the fourth is missed:

# %% tags=["nbval-check-output"]
y_true = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1]])
y_pred = np.array([[1, 0, 0], [1, 0, 0], [0, 0, 0], [1, 0, 0]])
print("subset accuracy", (y_true == y_pred).all(axis=1).mean(), " = rows that are right in every label")
print("Hamming loss   ", round((y_true != y_pred).mean(), 3), "= cells that are wrong, here 3 of 12")

# %% [markdown]
# **Subset accuracy** is the strictest: a row with one wrong cell counts as much as one with all wrong. **Hamming loss** is the mildest: most cells are zeros, and zeros are easy.
#
# The **Hamming score** looks at each row's labels only: those in both sets, divided by those in either. Where both are empty, the row is right and counts 1.

# %% tags=["nbval-check-output"]
both, either = (y_true & y_pred).sum(axis=1), (y_true | y_pred).sum(axis=1)
by_row = np.where(either == 0, 1.0, both / np.maximum(either, 1))
print("Hamming score", by_row, "mean", by_row.mean())
assert by_row.mean() == hamming_score(y_true, y_pred)

# %% [markdown]
# **F1** is the harmonic mean of precision and recall, $2\,TP / (2\,TP + FP + FN)$. *Micro* counts all cells together, *macro* takes the mean over labels, *samples* over rows.

# %% tags=["nbval-check-output"]
tp = ((y_true == 1) & (y_pred == 1)).sum(axis=0)
wrong = (y_true != y_pred).sum(axis=0)  # false positives and false negatives
by_label = 2 * tp / np.maximum(2 * tp + wrong, 1)
micro, macro = 2 * tp.sum() / (2 * tp.sum() + wrong.sum()), by_label.mean()
print("F1 of each label", by_label, " macro", round(macro, 3), " micro", round(micro, 3))
assert np.isclose(macro, f1_score(y_true, y_pred, average="macro", zero_division=0))
assert np.isclose(micro, f1_score(y_true, y_pred, average="micro"))

# %% [markdown]
# Two of the three labels are never predicted, and only macro F1 says so. Micro F1 is carried by the common label. None of these is wrong; each answers another question, so a report that gives one number should say which.

# %% tags=["nbval-check-output"]
assert accuracy_score(y_true, y_pred) == (y_true == y_pred).all(axis=1).mean()
assert np.isclose(hamming_loss(y_true, y_pred), (y_true != y_pred).mean())
decision_scores(y_true, y_pred.astype(float))

# %% [markdown]
# ## The model of notebook 4
# `fine_tune` takes the model and its validation probabilities from the run's folder, or makes them as notebook 4 does if they aren't there.

# %%
folder = fine_tune(run)
splits = run.splits
train, valid = splits["train"], splits["validation"]
names = run.label_names
y_valid, y_prob = run.folder.predictions("validation")
print(f"{len(y_valid)} validation texts, {len(names)} labels")

# %% [markdown]
# ## Accuracy and the model that does nothing
# The model at the customary threshold of 0.5, beside the answer "no label, ever":

# %%
scores = {"all zeros": decision_scores(y_valid, np.zeros_like(y_prob))}
scores["fine-tuned at 0.5"] = decision_scores(y_valid, y_prob)
pd.DataFrame(scores).round(3)

# %% [markdown]
# Where most texts carry no label, *all zeros* comes out well by subset accuracy, Hamming loss, Hamming score and samples F1, all of which give credit for empty rows (samples F1 because an empty row that is predicted empty counts 1 here; scikit-learn's default is 0). Only micro and macro F1 are 0 for it. So a trivial answer belongs in every table.

# %% [markdown]
# ## Ranking first
# Decisions mix two things: how well texts are ranked, and where they are cut. To judge the ranking, give the metric **probabilities**. A popular notebook passes 0/1 decisions to `roc_auc_score`, and gets another number:

# %%
usable = (y_valid.min(axis=0) == 0) & (y_valid.max(axis=0) == 1)  # AUC needs both answers
auc = not_an_auc = np.nan
if usable.any():
    auc = roc_auc_score(y_valid[:, usable], y_prob[:, usable], average="macro")
    not_an_auc = roc_auc_score(y_valid[:, usable], y_prob[:, usable] >= 0.5, average="macro")
print(f"ROC AUC from probabilities {auc:.3f}, from decisions at 0.5 {not_an_auc:.3f}")

# %% [markdown]
# The second is the mean of two rates at one threshold, and moves with the threshold while the ranking stays as it is.
#
# ROC AUC itself is generous to rare labels. A hundred texts, three of them positive, and nine wrong ones ranked above all three:

# %% tags=["nbval-check-output"]
ranked = np.array([0] * 9 + [1] * 3 + [0] * 88)
score = np.linspace(1, 0, 100)
print(
    f"ROC AUC {roc_auc_score(ranked, score):.2f}, average precision {average_precision_score(ranked, score):.2f}"
)

# %% [markdown]
# Someone who reads the top of that list finds it useless; ROC AUC calls it very good. **Average precision** is the mean, over the positives, of the precision at each one's rank: here (1/10 + 2/11 + 3/12) / 3. Its mean over labels, macro-AP, is the score of this course.

# %%
low, high = interval(resampled_macro_ap(y_valid, y_prob))
print(f"macro-AP {macro_average_precision(y_valid, y_prob):.3f}, 95% interval {low:.3f} to {high:.3f}")
per_label_table(y_valid, y_prob, names).round(2)

# %% [markdown]
# ## A threshold for each label
# With weighted positives in the loss and with labels of different frequency, there is no reason why 0.5 should suit all. The F1 of each label at 97 thresholds, on validation:

# %%
cuts = np.linspace(0.02, 0.98, 97)
fig, ax = plt.subplots(figsize=(7.5, 4), layout="constrained")
for k, name in enumerate(names):
    ax.plot(
        cuts,
        [f1_score(y_valid[:, k], y_prob[:, k] >= cut, zero_division=0) for cut in cuts],
        label=f"{name} ({y_valid[:, k].sum()})",
    )
ax.axvline(0.5, color=plots.GREY, linestyle="--")
ax.legend(title="label (validation positives)", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
ax.set_title("F1 depends on where one cuts")
ax.set(xlabel="threshold", ylabel="F1 on validation", ylim=(0, 1))
plt.show()


# %% [markdown]
# A smooth hill means that the threshold is easy to choose; a staircase is a label with few positives, where the best step is luck. So the rule is: the threshold with the highest F1 on **validation**, and 0.5 where a label has fewer than five positives there.


# %%
def tune(y_true, y_prob, min_positives=5, default=0.5):
    return np.array(
        [
            best_f1_threshold(y_true[:, k], y_prob[:, k]) if y_true[:, k].sum() >= min_positives else default
            for k in range(y_true.shape[1])
        ]
    )


# %% [markdown]
# On the validation probabilities of the model:

# %%
thresholds = tune(y_valid, y_prob)
assert np.array_equal(thresholds, tune_thresholds(y_valid, y_prob))
pd.DataFrame({"positives": y_valid.sum(axis=0), "threshold": thresholds}, index=names).round(3)


# %% [markdown]
# What that does to the scores:


# %%
def at_half_and_tuned(y_true, y_prob):
    return pd.DataFrame(
        {"at 0.5": decision_scores(y_true, y_prob), "tuned": decision_scores(y_true, y_prob, thresholds)}
    )


at_half_and_tuned(y_valid, y_prob).round(3)

# %% [markdown]
# On validation macro F1 cannot fall: the thresholds were chosen there, for each label's F1. The other scores may. Labels with too few positives stay at 0.5. Whether the gain holds is for data to tell that had no part in the choice.

# %% [markdown]
# ## The test split, once
# Epoch, weights and thresholds are fixed. Now the test texts are read for the first time, and nothing is changed after this cell.

# %%
test = run.final_test()
y_test = label_matrix(test)
p_test = Predictor(folder, device=run.compute.device, max_len=run.settings.max_len).probabilities(
    test["text"][:]
)
run.folder.save_predictions("test", test["id"][:], y_test, p_test)
final = at_half_and_tuned(y_test, p_test)
final.round(3)

# %% [markdown]
# How much of the gain survived:

# %%
gain_valid = at_half_and_tuned(y_valid, y_prob).loc["F1 macro"].diff().iloc[-1]
gain_test = final.loc["F1 macro"].diff().iloc[-1]
print(f"macro F1 gained by tuning: {gain_valid:+.3f} on validation, where it was chosen;")
print(f"{gain_test:+.3f} on test")

# %% [markdown]
# The difference between the two gains estimates, with noise, the optimism of choosing and scoring on the same texts. If the gain on test is negative, the validation split may have been too small to choose thresholds from; then 0.5 would have been the better choice here, and the honest report says so.
#
# The ranking on test, beside the baselines, which were trained on the same training texts:

# %%
texts, y_train, new_texts = train["text"][:], label_matrix(train), test["text"][:]
answers = {
    "all zeros": models.all_zeros(texts, y_train, new_texts),
    "label prior": models.label_prior(texts, y_train, new_texts),
    "TF-IDF + LR": models.tfidf_regression(texts, y_train, new_texts),
    "frozen + LR": models.frozen_regression(
        texts, y_train, new_texts, run.checkpoint, run.settings.max_len, run.compute
    ),
    "fine-tuned": p_test,
}
table = compare(y_test, answers)
ax = plots.model_scores(table, title="Test macro-AP")

# %% [markdown]
# Recorded, and as numbers:

# %%
for name, row in table.iterrows():
    run.folder.record(name, "test", row.drop(["low", "high"]))
run.folder.record("fine-tuned, tuned thresholds", "test", final["tuned"])
table[["macro-AP", "low", "high"]].round(3)

# %% [markdown]
# This table is the report: one score that ranks, an interval, and what costs nothing beside it. Overlapping bars are not a verdict; the differences on the same resampled texts are:

# %%
draws = {name: resampled_macro_ap(y_test, y_prob) for name, y_prob in answers.items()}
for name in ("label prior", "TF-IDF + LR", "frozen + LR"):
    difference = table.loc["fine-tuned", "macro-AP"] - table.loc[name, "macro-AP"]
    low, high = interval(draws["fine-tuned"] - draws[name])
    verdict = "leads" if low > 0 else "trails" if high < 0 else "cannot be told apart from it"
    print(f"against {name:<12}{difference:+.3f} (95%: {low:+.3f} to {high:+.3f}): {verdict}")

# %% [markdown]
# If the fine-tuned model stands lower here than on validation, two things are at work. Its epoch was chosen on validation, on the built-in data its recipe as well, which flatters it there. And a macro mean over rare labels, each resting on a handful of texts, moves a lot from one split to another.
#
# If counting words does better, look at the data before blaming the model. The built-in comments were written by a language model, and such writers come back to the same turns of phrase: a gift to TF-IDF, less so on what people write. A simple model that wins is the one to use.

# %% [markdown]
# ## In short
# - Subset accuracy, Hamming loss and samples F1 reward saying nothing; keep *all zeros* in the table.
# - Rank with probabilities (macro-AP), then choose thresholds on validation, one label at a time, where it has enough positives.
# - Show 0.5 beside the tuned thresholds, also when it wins.
# - Open the test split once.
#
# **Next:** [6 · Inference](06_inference.ipynb).
