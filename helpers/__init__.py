"""Helpers of the multilabel-course notebooks, one module a subject. Importing this package loads nothing heavy.

The subjects, in the order of the notebooks (numbers in brackets):

labels         (1) every form of labels, brought to names and a matrix of 0 and 1
reading        (1) every form of data, brought to rows and checked; each fault named
data           (1) the one form, repeats and near-duplicates, splits without leaks
tokenization   (2) texts to padded tensors; token ids back to texts
models         (3, 4) the classifiers, how they are loaded, and the baselines to beat
training       (3) loss and weights, what is trained, batches, an epoch; `fit`, and what it saves on the way
trainer        (4) the same with the Trainer: `fine_tune`
sharing        (A3) the Trainer in several processes, and after a cut: `train_together`
metrics        (5) decisions, scores, intervals, tables
thresholds     (5) where to cut
inference      (6) a saved folder as a function of texts

What they stand on:

settings       a run's settings, checked; what they are by default, and where each came from
device         device, precision and seeds, chosen once: `Compute`
checkpoints    the embedded model; whether a checkpoint can be used, and what tells it from another
files          checksums, whole files, locks
drawings       pictures that explain: a batch on its way, padding, attention, a split, accumulation, epochs
plots          figures that more than one notebook draws, tables of many labels
quiet          progress bars and warnings

What joins them:

runtime        `start_run`: settings, data, compute, and the folder of what a run makes
notebooks      executing the notebooks, making them from their texts, and what they call beside the subjects
exercises      what the notebooks' exercises say to an answer
__main__       python -m helpers check | run | train

A module imports from its own group and from the one it stands on, what joins them from all, and none in a circle.
"""

from helpers import quiet

__version__ = "0.2.0"

quiet.quiet_imports()
