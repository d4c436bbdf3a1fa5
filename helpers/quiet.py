"""Quietness: no bars, reports and warnings that are noise in a stored notebook; nothing told to any service."""

import logging
import os
import warnings
from contextlib import contextmanager

# For the kernels of notebooks that are executed as a whole: a stored progress bar differs each time.
KERNEL_ENVIRONMENT = {"TQDM_DISABLE": "1"}
# The kernel would warn at every start that its traffic over the loopback is not encrypted.
KERNEL_ARGUMENTS = ["--IPKernelApp.log_level=40"]


def quiet_imports():
    """Silence what libraries say while they are imported and nobody can act on."""
    # tqdm warns where ipywidgets is not installed; the course stores no widgets and wants none.
    warnings.filterwarnings("ignore", message="IProgress not found")


def quiet_libraries():
    """No progress bars from transformers and datasets, no telemetry, no tokenizer threads beside forked workers."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import datasets
    from transformers.utils import logging as transformers_logging

    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()


@contextmanager
def quiet_loading():
    """Silence the progress bar and the report of newly initialised weights while a model is loaded."""
    from transformers.utils import logging as transformers_logging

    bars, verbosity = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
