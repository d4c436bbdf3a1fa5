"""Assign the column `split` of the two data sets: python data/make_splits.py

Stratified over labels (iterative stratification) by helpers.data.split_rows with its fixed seed, near-duplicates
together, so that running it again changes nothing.
"""

import pandas as pd

from helpers.data import FRACTIONS, embedded_path, near_duplicates, read_rows, split_rows

# The comments' rare labels need positives in validation and test more than they need them in train.
SHARES = {"movies": FRACTIONS, "comments": {"train": 0.4, "validation": 0.3, "test": 0.3}}


def splits(name):
    """The split of each row of a built-in data set, in the order of its file."""
    rows = read_rows(name)
    return split_rows(rows.text, rows.matrix, SHARES[name], groups=near_duplicates(rows.text))


if __name__ == "__main__":
    for name in SHARES:
        path = embedded_path(name)
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
        rows["split"] = splits(name)
        rows.to_csv(path, index=False)
        print(name, rows["split"].value_counts().to_dict())
