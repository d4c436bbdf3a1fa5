"""Assign the column `split` of the two data sets: python data/make_splits.py

Stratified over labels (iterative stratification) by helpers.data.split_rows with its fixed seed, so that running it
again changes nothing.
"""

import pandas as pd

from helpers.data import EMBEDDED, embedded_path, read_rows, split_rows

for name in EMBEDDED:
    path = embedded_path(name)
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    read = read_rows(name)
    rows["split"] = split_rows(read.text, read.matrix)
    rows.to_csv(path, index=False)
    print(name, rows["split"].value_counts().to_dict())
