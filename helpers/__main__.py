"""Commands: `python -m helpers check FILE`, `python -m helpers run` and `python -m helpers train`."""

import argparse
import json
import os
import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import data, notebooks, reading
from helpers.labels import UNKNOWN
from helpers.settings import ParameterError

ENOUGH = 100  # groups of texts with a label, of which a stratified split surely gives some to each part
FIRST = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun started, the one that writes and prints


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
    train = commands.add_parser(
        "train", help="train and save notebook 4's model, also in several processes by torchrun"
    )
    for command, default in ((run, "the notebook's"), (train, "comments, or the profile's")):
        command.add_argument("--profile", default=None, choices=("tiny", "full"))
        command.add_argument(
            "--dataset", default=None, help=f"DATASET: a file, movies, comments or a hub name; default: {default}"
        )
        command.add_argument("--checkpoint", default=None, help="CHECKPOINT: a folder or a hub name")
        command.add_argument("--epochs", default=None, type=int)
        command.add_argument("--output-dir", default=None, help="where what is made goes; default: build")
    train.add_argument("--max-len", default=None, type=int, help="MAX_LEN: tokens after which a text is cut")
    train.add_argument(
        "--batch-size",
        dest="train_batch_size",
        default=None,
        type=int,
        help="TRAIN_BATCH_SIZE, that of all processes together",
    )
    train.add_argument("--learning-rate", default=None, type=float)
    train.add_argument("--seed", default=None, type=int)
    run.add_argument(
        "--in-place",
        action="store_true",
        help="make the notebooks from notebooks/text/, execute them, and store them in notebooks/, as they are committed",
    )
    for command in (check, run, train):
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
        return {"check": check_file, "run": notebooks.run_notebooks, "train": train_model}[options.command](options)
    except (data.DataError, ParameterError, notebooks.CommandError, FloatingPointError) as error:
        if FIRST or isinstance(error, FloatingPointError):  # the others have the same to say of all else
            print(error, file=sys.stderr)
        if FIRST and isinstance(error, data.DataError):
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


PARAMETERS = (
    "profile dataset label_names unknown checkpoint max_len train_batch_size epochs learning_rate seed output_dir"
)


def train_model(options):
    """Train notebook 4's model, or find it there, and print its scores; 0."""
    if "RANK" not in os.environ:  # a single process with several GPUs would multiply the batch size by their number
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    with nullcontext() if FIRST else open(os.devnull, "w") as nowhere, redirect_stdout(nowhere or sys.stdout):
        from helpers import sharing
        from helpers.device import pick_device
        from helpers.runtime import start_run

        given = {name: getattr(options, name) for name in PARAMETERS.split()}
        given = {name: value for name, value in given.items() if value is not None}
        processes = sharing.join(cpu=pick_device().type == "cpu").num_processes

        def start():
            return start_run("train", "comments", **given)

        run = sharing.in_the_first(start) or start()  # the first one fills the caches that the others read
        print(run)
        print(f"{'processes':<18}{processes}\n")
        if not sharing.train_together(run):
            print("the model of these parameters and data is there already: nothing was trained")
        sharing.leave()
        if FIRST:
            print_scores(run)
    return 0


def print_scores(run):
    """Print a trained model's validation scores beside simple ones, those of its labels, and where it is."""
    from helpers import metrics, models, plots

    train, valid = run.splits["train"], run.splits["validation"]
    y_train = data.label_matrix(train)
    y_true, y_prob = run.folder.predictions("validation")
    texts = train["text"][:], y_train, valid["text"][:]
    predictions = {"label prior": models.label_prior(*texts), "linear SVM": models.linear_svm(*texts)}
    table = metrics.compare(y_true, {**predictions, "fine-tuned": y_prob})
    print("\nOn the validation texts, at 0.5:")
    print(table[["macro-AP", "low", "high", "subset accuracy", "F1 micro", "F1 macro"]].round(3).to_string())
    saved = json.loads((run.folder.model / "config.json").read_text(encoding="utf-8"))["thresholds"]
    labels = metrics.per_label_table(y_true, y_prob, run.label_names, [saved[name] for name in run.label_names])
    print("\nThe fine-tuned model, at the thresholds that were saved with it, which these texts chose:")
    print(plots.commonest(labels, data.count_positives(y_train)).round(2).to_string())
    here, place = Path.cwd(), Path(run.folder.model).resolve()
    print(f"\nThe model is in {place.relative_to(here) if place.is_relative_to(here) else place}")


if __name__ == "__main__":
    sys.exit(main())
