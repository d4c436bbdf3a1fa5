"""What is known of a label matrix: the mark of an unknown cell, and what is counted where it may occur."""

import numpy as np

UNKNOWN = -100  # nobody has said whether the label is there; what PyTorch and transformers leave out by default


def known(labels):
    """Where a label matrix (array or tensor, of any shape) says yes or no: bool, of the same shape.

    Other cells hold UNKNOWN; they take part in no loss, weight, baseline or score.
    """
    return labels != UNKNOWN


def count_positives(labels):
    """How many texts have each label: int array of shape (n_labels,), from an array of shape (n_examples, n_labels)."""
    return (np.asarray(labels) == 1).sum(axis=0)


def label_shares(labels):
    """Each label's share of yes among the texts of which it is known; 0 where it is known of none.

    Returns a float32 array of shape (n_labels,), from an array of shape (n_examples, n_labels).
    """
    n_known = known(np.asarray(labels)).sum(axis=0)
    return (count_positives(labels) / np.maximum(n_known, 1)).astype(np.float32)
