"""A run: its settings, its data, what computes it, and the folder of what it makes.

A run keeps everything it makes in one folder, `<output_dir>/<data set>-<key>/`. The key is a hash of all that shapes
the saved model (data, checkpoint, settings, precision, code), so that another data set or another setting never meets a
stale model.
"""

import ast
import hashlib
import json
import platform
import re
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import __version__, data, files, quiet
from helpers.checkpoints import checkpoint_path, fingerprint
from helpers.device import Compute, pick_compute, seed_everything
from helpers.metrics import MIN_POSITIVES
from helpers.reading import EMBEDDED
from helpers.settings import Settings, choose, enough_epochs, origin, pooling, writable

SCORE_COLUMNS = ["notebook", "dataset", "split", "model", "metric", "value", "seed", "seconds"]
LIBRARIES = ("torch", "transformers", "datasets", "accelerate", "scikit-learn", "numpy", "pandas")
# What reading, splitting and the settings make is in the key itself; a comment or a message there changes nothing.
CODE_THAT_SHAPES = (
    "checkpoints",
    "device",
    "labels",
    "metrics",
    "models",
    "sharing",
    "thresholds",
    "tokenization",
    "trainer",
    "training",
)
LIBRARIES_THAT_SHAPE = ("torch", "transformers", "tokenizers")
# Names and places: what is found there is in the key.
WHERE_IT_COMES_FROM = ("profile", "dataset", "checkpoint", "output_dir")


def start_run(
    notebook,
    default_dataset,
    *,
    profile="tiny",
    dataset=None,
    label_names=None,
    unknown=None,
    checkpoint=None,
    max_len=None,
    train_batch_size=None,
    valid_batch_size=None,
    epochs=None,
    learning_rate=None,
    seed=None,
    output_dir=None,
    recipe="trainer",
):
    """Check a notebook's parameters, read its data, and seed everything.

    Parameters
    ----------
    notebook : str
        Its name, for the score table.
    default_dataset : str
        What DATASET = None means in the profile "tiny".
    label_names, unknown : list of str and bool, optional
        Which labels, and whether some may be unknown: `helpers.reading.read_rows`.
    profile ... output_dir : the other parameters of a notebook, see `helpers.settings.Settings`
        None means the profile's value. Without EPOCHS they follow from the rows and labels:
        `helpers.settings.enough_epochs`.
    recipe : str
        "trainer" (notebooks 04 to 06 share one model) or "loop" (notebook 03).

    Returns
    -------
    Run
        `print(run)` shows every setting and where it came from.

    Raises
    ------
    helpers.settings.ParameterError
        A parameter cannot be used, or the output folder cannot be written.
    helpers.reading.DataError
        The data set has faults.
    """
    quiet.quiet_libraries()
    settings = choose(
        default_dataset,
        (files.find_clone() or Path.cwd()) / "build",
        profile,
        recipe,
        dataset=dataset,
        checkpoint=checkpoint,
        max_len=max_len,
        train_batch_size=train_batch_size,
        valid_batch_size=valid_batch_size,
        epochs=epochs,
        learning_rate=learning_rate,
        seed=seed,
        output_dir=output_dir,
    )
    with writable(settings.output_dir):
        files.check_writable(settings.output_dir)
    splits = data.read_splits(settings.dataset, label_names=label_names, unknown=bool(unknown))
    label_names = data.label_names(splits)
    if settings.epochs is None:
        positives = data.count_positives(data.label_matrix(splits["train"])).tolist()
        epochs = enough_epochs(positives, len(splits["train"]), settings.train_batch_size)
        settings = replace(settings, epochs=epochs)
    splits = type(splits)({name: part if name == "train" else by_length(part) for name, part in splits.items()})
    compute = pick_compute()
    name = short_name(settings.dataset)
    place = Path(settings.output_dir) / f"{name}-{run_key(settings, compute, splits, label_names)}"
    seed_everything(settings.seed)
    return Run(
        settings,
        type(splits)({name: splits[name] for name in ("train", "validation")}),
        label_names,
        compute,
        RunFolder(place, notebook, name, settings, compute, label_names),
        splits["test"],
    )


@dataclass(frozen=True)
class Run:
    """What a notebook works with. Made by `start_run`.

    Attributes
    ----------
    settings : helpers.settings.Settings
    splits : datasets.DatasetDict
        train and validation: all that may be looked at while anything is chosen. Validation (and test) rows are in the
        order of their lengths.
    label_names : list of str
        In the order of the columns of `labels`.
    compute : helpers.device.Compute
    folder : RunFolder
    """

    settings: Settings
    splits: dict
    label_names: list
    compute: Compute
    folder: "RunFolder"
    _test: object = field(repr=False)
    _tests_read: list = field(default_factory=list, init=False, repr=False)

    @property
    def checkpoint(self):
        """The checkpoint as transformers takes it: a local folder, or a hub name."""
        return checkpoint_path(self.settings)

    @property
    def pooling(self):
        """What of a text's states the head reads: "mean" or "first" (token), see `helpers.settings.pooling`."""
        return pooling(self.settings)

    def final_test(self):
        """The test split, for the end, once. A second call warns: scores seen twice invite choosing by them."""
        if self._tests_read:
            warnings.warn("the test split was already read in this run; choose nothing by it", stacklevel=2)
        self._tests_read.append(True)
        return self._test

    def __str__(self):
        settings, compute = self.settings, self.compute
        positives = data.count_positives(data.label_matrix(self.splits["validation"]))
        support = dict(zip(self.label_names, positives, strict=True))
        rare = [f"{name} ({n})" for name, n in support.items() if n < MIN_POSITIVES]
        rare_text = ", ".join(rare[:3]) + (f" and {len(rare) - 3} more" if len(rare) > 3 else "")
        if len(rare) == len(support):
            rare_text = "every label, so the micro average decides"
        frozen = "embeddings and the lower two thirds of the layers" if settings.freeze else "nothing"
        shown = ("checkpoint", "max_len", "train_batch_size", "valid_batch_size", "epochs", "learning_rate", "seed")
        rows = [
            ("data set", f"{settings.dataset}, {len(self.label_names)} labels", origin(settings, "dataset")),
            *((name, getattr(settings, name), origin(settings, name)) for name in shown),
            ("frozen", frozen, origin(settings, "freeze")),
            ("read by the head", f"{self.pooling} of the tokens' states", "the checkpoint"),
            ("too rare to count", rare_text or "no label", f"under {MIN_POSITIVES} in validation"),
            ("device", compute, "this machine"),
            ("precision", compute.precision, "this machine"),
            ("attention", compute.attention or "the library's choice", "this machine"),
            ("folder", self.folder.path.name, origin(settings, "output_dir")),
        ]
        return "\n".join(f"{name:<18}{value!s:<51} {source}" for name, value, source in rows)


def by_length(part):
    """A split in the order of its texts' lengths: batches of it waste little on padding, without a sampler."""
    return part.select(np.argsort([len(text) for text in part["text"]], kind="stable"))


def short_name(dataset):
    """A data set's name as it stands in folders and tables: the file's, or the part behind the owner."""
    if dataset in EMBEDDED:
        return dataset
    return re.sub(r"\W+", "-", Path(str(dataset)).stem).strip("-") or "data"


# The key --------------------------------------------------------------------------------------------------------------


def run_key(settings, compute, splits, label_names):
    """Ten hexadecimal digits that change when anything that shapes the saved model or its predictions changes."""
    content = hashlib.sha256()
    for name, part in splits.items():
        content.update(name.encode())
        for column in ("id", "text"):
            values = pd.Series(part[column][:], dtype=str)
            content.update(pd.util.hash_pandas_object(values, index=False).to_numpy().tobytes())
        content.update(data.label_matrix(part).tobytes())
    facts = {
        "labels": label_names,
        "settings": {name: value for name, value in _public(settings).items() if name not in WHERE_IT_COMES_FROM},
        "pooling": pooling(settings),
        "precision": compute.precision,
        "attention": compute.attention,
        "checkpoint": fingerprint(settings.checkpoint),
        "code": code_fingerprint(Path(__file__).parent, CODE_THAT_SHAPES),
        "libraries": [version(name) for name in LIBRARIES_THAT_SHAPE],
    }
    content.update(json.dumps(facts, sort_keys=True).encode())
    return content.hexdigest()[:10]


def code_fingerprint(folder, modules):
    """SHA-256 of what modules do: of their code without comments, docstrings and layout."""
    content = hashlib.sha256()
    for module in modules:
        tree = ast.parse((Path(folder) / f"{module}.py").read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
                node.body = node.body[1:] or [ast.Pass()]
        content.update(ast.unparse(tree).encode())
    return content.hexdigest()


def _public(settings):
    return {f.name: getattr(settings, f.name) for f in fields(settings) if not f.name.startswith("_")}


# The folder -----------------------------------------------------------------------------------------------------------


class RunFolder:
    """What a run makes: `model/`, scores.csv, predictions.parquet and run.json. Several notebooks may write at once.

    Parameters
    ----------
    path : pathlib.Path
        Made when something is written.
    notebook, dataset : str
        For the score table.
    settings : helpers.settings.Settings
    compute : helpers.device.Compute
    label_names : list of str
    """

    def __init__(self, path, notebook, dataset, settings, compute, label_names):
        self.path, self._notebook, self._dataset = path, notebook, dataset
        self._settings, self._compute, self._label_names = settings, compute, label_names

    @property
    def model(self):
        """Path of the fine-tuned model, a plain transformers folder; it may not be there yet."""
        return self.path / "model"

    @contextmanager
    def writing(self, name):
        """Yield a temporary path to write to; renamed to `name` in the run's folder only if the block succeeds.

        Raises
        ------
        ParameterError
            When the folder cannot be written.
        """
        with writable(self._settings.output_dir), files.writing(self.path, name) as path:
            yield path

    def check(self):
        """Raise ParameterError, before any time is spent, where the folder cannot be written."""
        with writable(self._settings.output_dir):
            files.check_writable(self.path)

    @contextmanager
    def alone(self):
        """Within the block no other process trains in this folder.

        Raises
        ------
        ParameterError
            At once, when one does.
        """
        with writable(self._settings.output_dir):
            lock = files.lock(self.path, "training", patience=0)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def save_model(self, model, tokenizer, thresholds=None):
        """Save a classifier and its tokenizer as `model/`, with the thresholds (one a label) in its config.

        MAX_LEN goes with the tokenizer, as its model_max_length; the caller's tokenizer stays as it was.
        """
        if thresholds is not None:
            model.config.thresholds = {name: float(t) for name, t in zip(self._label_names, thresholds, strict=True)}
        length, tokenizer.model_max_length = tokenizer.model_max_length, self._settings.max_len
        try:
            with self.writing("model") as folder:
                model.save_pretrained(folder)
                tokenizer.save_pretrained(folder)
        finally:
            tokenizer.model_max_length = length
        self.save_facts()

    def save_facts(self):
        """Write run.json: settings, versions, device."""
        settings = _public(self._settings)
        facts = {
            "parameters": {
                name: value.as_posix() if isinstance(value, Path) else value for name, value in settings.items()
            },
            "labels": self._label_names,
            "precision": self._compute.precision,
            "device": str(self._compute),
            "versions": {
                "multilabel-course": __version__,
                "python": platform.python_version(),
                **{name: version(name) for name in LIBRARIES},
            },
            "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        with self.writing("run.json") as path:
            path.write_text(json.dumps(facts, indent=1, default=str), encoding="utf-8")

    def record(self, model, split, scores, seconds=float("nan")):
        """Add a model's scores to scores.csv, replacing those that this notebook wrote before.

        Parameters
        ----------
        model, split : str
        scores : dict
            From the metric's name to its value.
        seconds : float
            What it took to make the model and its predictions.
        """
        seed = self._settings.seed
        new = pd.DataFrame(
            [
                [self._notebook, self._dataset, split, model, metric, float(value), seed, float(seconds)]
                for metric, value in scores.items()
            ],
            columns=SCORE_COLUMNS,
        )
        same = ["notebook", "dataset", "split", "model", "metric", "seed"]
        with self._updating("scores.csv") as path:
            old = self.scores()
            rows = new if old.empty else pd.concat([old, new]).drop_duplicates(same, keep="last")
            rows.to_csv(path, index=False)

    def scores(self):
        """The score table of this run, a DataFrame with the columns SCORE_COLUMNS."""
        path = self.path / "scores.csv"
        return pd.read_csv(path) if path.exists() else pd.DataFrame(columns=SCORE_COLUMNS)

    def save_predictions(self, split, ids, y_true, y_prob):
        """Add the probabilities of a split to predictions.parquet: a row an example and label.

        Parameters
        ----------
        split : str
        ids : sequence of str, length n_examples
        y_true : 0/1 array of shape (n_examples, n_labels); UNKNOWN is kept as it is
        y_prob : float array of shape (n_examples, n_labels)
        """
        n_labels = len(self._label_names)
        new = pd.DataFrame(
            {
                "id": np.repeat(np.asarray(ids, dtype=object), n_labels),
                "split": split,
                "label": np.tile(np.asarray(self._label_names, dtype=object), len(y_true)),
                "y_true": np.asarray(y_true).ravel().astype("int8"),
                "y_prob": np.asarray(y_prob, dtype="float32").ravel(),
            }
        )
        with self._updating("predictions.parquet") as path:
            old = self.predictions()
            rows = new if old is None else pd.concat([old[old["split"] != split], new])
            rows.to_parquet(path, index=False)

    def predictions(self, split=None):
        """The saved predictions: the long table, or of a split (y_true, y_prob), each of shape (n_examples, n_labels).

        None when there are none yet.
        """
        path = self.path / "predictions.parquet"
        if not path.exists():
            return None
        table = pd.read_parquet(path)
        if split is None:
            return table
        rows = table[table["split"] == split]
        shape = (-1, len(self._label_names))
        return rows["y_true"].to_numpy().reshape(shape), rows["y_prob"].to_numpy(dtype=float).reshape(shape)

    @contextmanager
    def _updating(self, name):
        """As `writing`, for a file that is read, changed and written: no other process can do so meanwhile."""
        with writable(self._settings.output_dir), files.lock(self.path), files.writing(self.path, name) as path:
            yield path
