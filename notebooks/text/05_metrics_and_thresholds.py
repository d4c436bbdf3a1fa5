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
# A word that is new to you is in the [glossary](https://github.com/multilabel-course/multilabel-course/blob/main/docs/glossary.md).
#
# **Time:** about a minute on two CPU cores, two where they only have fp32, also for 2,500 texts of your own; and the time of notebook 4, if that has not run yet. On a GPU: not measured.

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
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import stats
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, hamming_loss, roc_auc_score

from helpers import models, plots
from helpers.data import label_matrix
from helpers.inference import Predictor
from helpers.labels import count_positives
from helpers.metrics import (
    compare,
    decision_scores,
    differences,
    hamming_score,
    interval,
    known_rows,
    macro_average_precision,
    per_label_table,
    resampled_macro_ap,
)
from helpers.notebooks import benchmark_results, expect
from helpers.runtime import start_run
from helpers.thresholds import best_f1_threshold, resampled_thresholds, trusted_thresholds, tune_thresholds
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
#
# `decision_scores` has them all. Its macro F1, like macro-AP below, leaves out labels with fewer than ten positives in the texts that are scored, unless it is told otherwise, as here: one positive more or less found would move such a label by a tenth and more, and with it the mean by which epochs and models are chosen. Where no label has ten, the micro average takes its place. `print(run)` above names some of those that are too rare to count.

# %% tags=["nbval-check-output"]
assert accuracy_score(y_true, y_pred) == (y_true == y_pred).all(axis=1).mean()
assert np.isclose(hamming_loss(y_true, y_pred), (y_true != y_pred).mean())
decision_scores(y_true, y_pred.astype(float), min_positives=1)

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
usable = (y_valid.min(axis=0) == 0) & (y_valid.max(axis=0) == 1)  # both answers and none unknown
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
# Someone who reads the top of that list finds it useless; ROC AUC calls it very good. **Average precision** is the mean, over the positives, of the precision at each one's rank: here (1/10 + 2/11 + 3/12) / 3. Its mean over labels, macro-AP, is the score of this course (over the labels with ten positives or more; the table below holds the others, too).

# %%
score = macro_average_precision(y_valid, y_prob)
low, high = interval(resampled_macro_ap(y_valid, y_prob), score)
print(f"macro-AP {score:.3f}, 95% interval {low:.3f} to {high:.3f}")
positives = count_positives(y_valid)
plots.commonest(per_label_table(y_valid, y_prob, names), positives).round(2)

# %% [markdown]
# The interval comes from scoring 1,000 sets of texts, each drawn from these with replacement. With few positives such draws score too high: a positive that is drawn twice helps its own rank. So the percentiles are moved back by as much as the draws lie above the score. Does that help? `benchmarks/intervals.py` drew data sets from a known distribution, and counted how often a 95% interval held the truth, for a model's score and for the difference of two models:

# %%
coverage = benchmark_results("intervals")
shown = ["draws lie higher by", "plain holds it", "corrected holds it", "width"]
coverage.set_index(["of", "examples", "share", "labels"])[shown].sort_index(ascending=False).round(3)

# %% [markdown]
# Read *plain* and *corrected* against 0.95 (each is known to about 0.03). Of a score, the plain interval misses the truth far too often where labels have few positives, down to 0.73; the corrected one holds it in 0.91 to 0.95 of all sets. It is still a little too narrow, so take its ends as the least that is in doubt. In the difference of two models the bias cancels, and the plain interval, 0.91 to 0.97, is the better one; it is what the tables of differences show.

# %% [markdown]
# ## A threshold for each label
# With weighted positives in the loss and with labels of different frequency, there is no reason why 0.5 should suit all. The F1 of each label at 97 thresholds, on validation; of many labels, the eight with the most positives there are drawn:

# %%
cuts = np.linspace(0.02, 0.98, 97)
fig, ax = plt.subplots(figsize=(7.5, 4), layout="constrained")
by_label = known_rows(y_valid, y_prob)
drawn = sorted(range(len(names)), key=lambda k: -positives[k])[: len(plots.PALETTE)]
for k, color in zip(drawn, plots.PALETTE, strict=False):
    labels, scores = by_label[k]
    f1 = [f1_score(labels, scores >= cut, zero_division=0) for cut in cuts]
    ax.plot(cuts, f1, color=color, label=f"{names[k]} ({positives[k]})")
ax.axvline(0.5, color=plots.GREY, linestyle="--")
ax.legend(title="label (validation positives)", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
cut = plots.cut_to(len(names), len(drawn))
ax.set_title("F1 depends on where one cuts" + f" ({cut})" * bool(cut))
ax.set(xlabel="threshold", ylabel="F1 on validation", ylim=(0, 1))
plt.show()


# %% [markdown]
# A smooth hill means that the threshold is easy to choose; a staircase is a label with few positives, where the best step is luck. The threshold of highest F1 can only gain on these texts, since it was chosen on them. How much of the gain is luck? The texts tell it themselves. Draw as many of them with replacement, choose the threshold there, and compare its F1 there with its F1 on the texts as they are:


# %%
def thresholds_of_draws(y_true, y_prob, n_draws=100):
    rng, chosen, differences = np.random.default_rng(0), [], []
    for _ in range(n_draws):
        rows = rng.integers(len(y_true), size=len(y_true))
        cut = best_f1_threshold(y_true[rows], y_prob[rows])
        there, here = (f1_score(y_true[i], y_prob[i] >= cut, zero_division=0) for i in (rows, slice(None)))
        chosen.append(cut)
        differences.append(there - here)
    return np.array(chosen), np.array(differences)


# %% [markdown]
# For the label with the most positives and, of those with at least ten, the one with the fewest; beside it the course's own function, which does the same with all draws at once:

# %%
enough = sorted(np.flatnonzero(positives >= 10), key=lambda k: -positives[k])
for k in dict.fromkeys([*enough[:1], *enough[-1:]]):
    chosen, by_hand = thresholds_of_draws(*by_label[k])
    ours = resampled_thresholds(*by_label[k])[1]
    low, high = np.quantile(chosen, [0.1, 0.9])
    print(f"{names[k]} ({positives[k]} positives): eight draws in ten choose {low:.2f} to {high:.2f};")
    print(f"    mean difference by hand {by_hand.mean():.3f}, helpers {ours.mean():.3f}")
    noise = np.hypot(by_hand.std() / np.sqrt(len(by_hand)), ours.std() / np.sqrt(len(ours)))
    agree = abs(by_hand.mean() - ours.mean()) <= 4 * noise
    expect(agree, "the two agree to within the noise of the draws", run.settings)
if not enough:
    print("No label has ten positives in validation: every threshold below stays at 0.5.")

# %% [markdown]
# The mean difference is the **optimism** of a threshold that is scored where it was chosen. So the rule is: a label keeps 0.5 if it has fewer than ten positives in validation, or if the best threshold gains no more than its optimism. Otherwise it gets the *mean* of the thresholds that the draws chose, which moves less from one set of texts to the next than the best one of a single set. `trusted_thresholds` does that for all labels:

# %%
table = trusted_thresholds(y_valid, y_prob).set_index(pd.Index(names, name="label"))
highest, thresholds = tune_thresholds(y_valid, y_prob), table["threshold"].to_numpy()
shown = plots.commonest(table, positives).set_index("positives", append=True)
shown.map("{:.3f}".format).replace("nan", "-")


# %% [markdown]
# *Gain* is what the threshold of highest F1 gains over 0.5 on these texts, *optimism* how much of that is luck; neither is computed where there are too few positives (-). What the thresholds do to the scores:


# %%
def at_three(y_true, y_prob):
    cuts = {"at 0.5": 0.5, "highest F1": highest, "trusted": thresholds}
    return pd.DataFrame({name: decision_scores(y_true, y_prob, cut) for name, cut in cuts.items()})


at_three(y_valid, y_prob).round(3)

# %% [markdown]
# By macro F1 no rule can beat the highest F1 here: it was chosen on these texts, for each label. Is it the better rule? `benchmarks/thresholds.py` asked that with five models on each of three data sets. Thresholds were chosen on one half of the validation texts and scored on the other; then chosen on all of validation and scored on test.
#
# Measured for the course on these three sets, not on your data:

# %%
rules = benchmark_results("thresholds")
print(rules["date"].iloc[0], "|", rules["machine"].iloc[0])
keys = ["scored on", "dataset"]
rules = rules.pivot_table(index=[*keys, "seed"], columns="rule", values="F1 macro").rename_axis(columns=None)
gain = rules[["highest F1", "the course's"]].sub(rules["0.5"], axis=0).groupby(keys)
half_width = stats.t.ppf(0.975, 4) * gain.std() / np.sqrt(5)
shown = rules[["0.5"]].groupby(keys).mean().map("{:.3f}".format)
shown.join(gain.mean().map("{:+.3f}".format) + " ± " + half_width.map("{:.3f}".format))

# %% [markdown]
# Macro F1 at 0.5, and what the two rules gain over it: the mean over five seeds and the half-width of its 95% interval (Student's t). Chosen on half of the validation texts and scored on the other half, both rules lose on the built-in film plots by more than their interval: the thresholds of highest F1 lose 0.017, the course's rule half of that. Everywhere else, and on test on all three sets, no rule can be told from 0.5; the means of the course's rule lie between 0.000 and 0.005 above it, those of the highest F1 between 0.006 below and 0.003 above. The models of these three sets are trained with moderate weights, and 0.5 is a decent cut for them already; there the rule's use is to do no harm where there is little to gain.

# %% [markdown]
# ## The test split, once
# Epoch, weights and thresholds are fixed. Now the test texts are read for the first time, and nothing is changed after this cell.

# %%
test = run.final_test()
y_test = label_matrix(test)
p_test = Predictor(folder, device=run.compute.device).probabilities(test["text"][:])
run.folder.save_predictions("test", test["id"][:], y_test, p_test)
final = at_three(y_test, p_test)
final.round(3)

# %% [markdown]
# How much of the gain survived:

# %%
gains = {"validation": at_three(y_valid, y_prob), "test": final}
gains = pd.DataFrame({split: scores.loc["F1 macro"] for split, scores in gains.items()})
(gains - gains.loc["at 0.5"]).round(3)

# %% [markdown]
# What a rule gains on validation and not on test is optimism: choosing and scoring on the same texts. One test split of this size is no verdict on a rule, the table above is the better one; if 0.5 wins here, the honest report says so.
#
# The ranking on test, beside the baselines, which were trained on the same training texts:

# %%
texts, y_train, new_texts = train["text"][:], label_matrix(train), test["text"][:]
answers = {
    "all zeros": models.all_zeros(texts, y_train, new_texts),
    "label prior": models.label_prior(texts, y_train, new_texts),
    "linear SVM": models.linear_svm(texts, y_train, new_texts),
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
run.folder.record("fine-tuned, trusted thresholds", "test", final["trusted"])
table[["macro-AP", "low", "high"]].round(3)

# %% [markdown]
# This table is the report: one score that ranks, an interval, and what costs nothing beside it. Overlapping bars settle nothing; the differences on the same resampled texts say more, of this one training:

# %%
differences(y_test, answers, "fine-tuned").round(3)

# %% [markdown]
# Compare with validation. Where the fine-tuned model stands lower here, two things are at work. Its epoch was chosen on validation, on the built-in data its recipe as well, which flatters it there. And a macro mean over rare labels moves from one split to another: the fewer positives, the more. With some ninety of the rarest in each split, the built-in comments keep that small.
#
# If on your data counting words and pieces of words does better, look at the data before blaming the model: where words tell the labels, reading their order adds little. A simple model that wins is the one to use. The built-in comments were written so that words alone don't tell; the lead here says what fine-tuning can do, not how much it gains on a real forum.

# %% [markdown]
# ## In short
# - Subset accuracy, Hamming loss and samples F1 reward saying nothing; keep *all zeros* in the table.
# - Rank with probabilities (macro-AP), then choose thresholds on validation, one label at a time, where it has enough positives.
# - A gain that is no larger than its own optimism is luck: keep 0.5 there, and show 0.5 beside the tuned thresholds, also when it wins.
# - Open the test split once.
#
# **Next:** [6 · Inference](06_inference.ipynb).
