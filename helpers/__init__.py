"""Helpers of the multilabel-course notebooks, one module a subject, in the order of the notebooks.

data, tokenization, models, training, metrics, thresholds, inference; and the plumbing: checkpoints, runtime, plots.
Importing this package loads nothing heavy.
"""

import warnings

COURSE = "multilabel-course"
__version__ = "0.1.0"

# tqdm warns at import where ipywidgets is not installed; the course stores no widgets and wants none.
warnings.filterwarnings("ignore", message="IProgress not found")
