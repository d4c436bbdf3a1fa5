"""Commands: `python -m helpers check FILE` and `python -m helpers run`."""

import argparse
import sys

import numpy as np
import pandas as pd

from helpers import data, notebooks, reading
from helpers.settings import ParameterError

ENOUGH = 100  # groups of texts with a label, of which a stratified split surely gives some to each part


def main(arguments=None):
    """Parse the command line and run a command; the value returned is the exit status."""
    parser = argparse.ArgumentParser(prog="python -m helpers", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="read a data set as the notebooks do and say what is wrong with it")
    check.add_argument("file", help="a .csv, .jsonl or .parquet file, movies, comments or a hub name")
    run = commands.add_parser("run", help="execute the notebooks")
    run.add_argument("notebooks", nargs="*", help="which ones, by the start of their names (01 04); default: all")
    run.add_argument("--profile", default=None, choices=("tiny", "full"))
    run.add_argument(
        "--dataset", default=None, help="DATASET for every notebook: a file, movies, comments or a hub name"
    )
    run.add_argument("--checkpoint", default=None, help="CHECKPOINT: a folder or a hub name")
    run.add_argument("--epochs", default=None, type=int)
    run.add_argument("--output-dir", default=None, help="where artefacts and executed notebooks go; default: build")
    run.add_argument(
        "--in-place",
        action="store_true",
        help="make the notebooks from notebooks/text/, execute them, and store them in notebooks/, as they are committed",
    )
    options = parser.parse_args(arguments)
    try:
        return check_file(options.file) if options.command == "check" else notebooks.run_notebooks(options)
    except (data.DataError, ParameterError, notebooks.CommandError) as error:
        print(error, file=sys.stderr)
        return 1


def check_file(file):
    """Print what a data set holds, or everything that is wrong with it; 0 or 1."""
    rows = reading.read_rows(file)
    equal = data.equal_texts(rows.text)
    near = data.near_duplicates(rows.text, equal=equal)
    again = np.bincount(equal)[equal] > 1
    conflicts = pd.DataFrame(rows.matrix[again]).groupby(equal[again]).nunique().gt(1).any(axis=1)
    print(f"{file}: {len(rows.text)} rows, {len(rows.label_names)} labels")
    for name, count in zip(rows.label_names, rows.matrix.sum(axis=0), strict=True):
        print(f"  {name:<24}{int(count):>8}")
    print(f"  {'without any label':<24}{int((~rows.matrix.any(axis=1)).sum()):>8}")
    rarest = min(len(np.unique(near[column == 1])) for column in rows.matrix.T if column.any())
    notes = []
    if rows.split is None and rarest >= ENOUGH:
        shares = ", ".join(f"{share:.0%} {part}" for part, share in data.FRACTIONS.items())
        print(f"  no column split: the notebooks divide the rows, {shares}")
    else:
        split, notes = data.assign_splits(rows, equal, near)
        print("  " + ", ".join(f"{part} {(split == part).sum()}" for part in data.SPLITS))
    repeated, near_repeated = (len(groups) - len(np.unique(groups)) for groups in (equal, near))
    print(f"  repeated texts {repeated}, nearly repeated {near_repeated} (these included)")
    print(f"  texts that come with different labels {conflicts.sum()}")
    for note in rows.notes + notes:
        print(f"note: {note}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
