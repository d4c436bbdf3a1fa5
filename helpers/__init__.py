"""Helpers of the multilabel-course notebooks, one module a subject, in the order of the notebooks.

data, tokenization, models, training, metrics, thresholds, inference; and the plumbing: checkpoints, runtime, plots.
Importing this package loads nothing heavy.
"""

COURSE = "multilabel-course"
__version__ = "0.1.0"
