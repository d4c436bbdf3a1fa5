"""Commands: `python -m helpers check FILE` and `python -m helpers run`."""

import argparse
import sys

import numpy as np
import pandas as pd

from helpers import data, notebooks, reading
from helpers.labels import UNKNOWN
from helpers.settings import ParameterError

ENOUGH = 100  # groups of texts with a label, of which a stratified split surely gives some to each part


def main(arguments=None):
    """Parse the command line and run a command; the value returned is the exit status."""
    parser = argparse.ArgumentParser(prog="python -m helpers", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="read a data set as the notebooks do and say what is wrong with it")
    check.add_argument("file", help=f"{reading.A_FILE}, movies, comments or a hub name")
    run = commands.add_parser("run", help="execute the notebooks")
    run.add_argument(
        "notebooks", nargs="*", help="which ones, by the start of their names (01 04 A1); default: the six"
    )
    run.add_argument("--all", action="store_true", help="the six and the appendix")
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
    for command in (check, run):
        command.add_argument(
            "--labels",
            dest="label_names",
            type=lambda text: [name.strip() for name in text.split(",")],
            help="LABEL_NAMES: which labels, by commas, in this order; --labels=-a,-b takes all but a and b",
        )
        command.add_argument(
            "--unknown",
            action="store_true",
            default=None,
            help="UNKNOWN: -1 and nothing in the place of a label mean that nobody looked",
        )
    options = parser.parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a console that cannot write a label's letters still shows the rest
            stream.reconfigure(errors="backslashreplace")
    try:
        return check_file(options) if options.command == "check" else notebooks.run_notebooks(options)
    except (data.DataError, ParameterError, notebooks.CommandError) as error:
        print(error, file=sys.stderr)
        if isinstance(error, data.DataError):
            print(f"Every form that is read, with examples: {reading.FORMS}", file=sys.stderr)
        return 1


def check_file(options):
    """Print what a data set holds; 0."""
    file = options.file
    rows = reading.read_rows(file, label_names=options.label_names, unknown=bool(options.unknown))
    equal = data.equal_texts(rows.text)
    near = data.near_duplicates(rows.text, equal=equal)
    again = np.bincount(equal)[equal] > 1
    present = rows.matrix == 1
    conflicts = pd.DataFrame(rows.matrix[again]).groupby(equal[again]).nunique().gt(1).any(axis=1)
    print(f"{file}: {len(rows.text)} rows, {len(rows.label_names)} labels")
    for name, count in zip(rows.label_names, present.sum(axis=0), strict=True):
        print(f"  {name:<24}{int(count):>8}")
    print(f"  {'without any label':<24}{int((~present.any(axis=1)).sum()):>8}")
    if silent := int((rows.matrix == UNKNOWN).sum()):
        print(f"  {'unknown cells':<24}{silent:>8}")
    rarest = min(len(np.unique(near[column])) for column in present.T if column.any())
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
