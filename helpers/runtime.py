"""One place for a run's parameters, device, precision, seed and artefacts.

A run keeps everything it makes in one folder, `<output_dir>/<data set>-<key>/`. The key is a hash of the data's rows, the
checkpoint, the parameters and the training code, so that another data set or another setting never meets a stale model.
"""

import hashlib
import json
import os
import platform
import random
import re
import shutil
import tempfile
import time
import warnings
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, fields
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import __version__, checkpoints, data

PROFILES = {
    "tiny": {
        "checkpoint": "embedded",
        "max_len": 128,
        "train_batch_size": 16,
        "valid_batch_size": 16,
        "epochs": None,
        "learning_rate": 3e-4,
        "seed": 42,
        "freeze": True,
    },
    "full": {
        "dataset": "google-research-datasets/go_emotions",
        "checkpoint": "distilbert/distilbert-base-uncased",
        "max_len": 128,
        "train_batch_size": 32,
        "valid_batch_size": 128,
        "epochs": None,
        "learning_rate": 5e-5,
        "seed": 42,
        "freeze": False,
    },
}
MIN_STEPS = 150  # with EPOCHS None: as many epochs as these steps take, from 3 to 20
PARAMETERS = ("max_len", "train_batch_size", "valid_batch_size", "epochs", "learning_rate", "seed")
SCORE_COLUMNS = ["notebook", "dataset", "split", "model", "metric", "value", "seed", "seconds"]
CODE_THAT_TRAINS = ("checkpoints", "data", "models", "reading", "tokenization", "training")


class ParameterError(ValueError):
    """A parameter of a notebook that cannot be used; the message says which and what it may be."""


@contextmanager
def show_error():
    """Print the error that the block raises, and go on: for mistakes that a notebook shows on purpose."""
    try:
        yield
    except Exception as error:  # whatever it is, it is what the reader should see
        print(f"{type(error).__name__}: {error}")
    else:
        raise AssertionError("this block was meant to fail and did not")


def quiet_libraries():
    """No progress bars from transformers and datasets: in a stored notebook they are noise that differs each time."""
    import datasets
    from transformers.utils import logging

    datasets.disable_progress_bars()
    logging.disable_progress_bar()


def seed_everything(seed):
    """Seed Python, NumPy and PyTorch."""
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def pick_device():
    """The torch.device to use: cuda, else mps, else cpu."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def pick_precision(device):
    """bf16 where the hardware computes in it, fp16 on other CUDA cards, else fp32.

    $MULTILABEL_COURSE_PRECISION overrides. Emulated bf16 (a T4, a CPU without the instructions) is slower than what it replaces.
    """
    import torch

    forced = os.environ.get("MULTILABEL_COURSE_PRECISION")
    if forced:
        if forced not in ("fp32", "bf16", "fp16"):
            raise ParameterError(f"MULTILABEL_COURSE_PRECISION is {forced!r}; it takes fp32, bf16 or fp16")
        return forced
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu" and _cpu_has_bf16():
        return "bf16"
    return "fp32"


def _cpu_has_bf16():
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return bool(re.search(r"\b(avx512_bf16|amx_bf16)\b", flags))


def find_clone(start="."):
    """Root folder of the clone of the course that holds `start`, or None."""
    for folder in (Path(start).resolve(), *Path(start).resolve().parents):
        project = folder / "pyproject.toml"
        if project.exists() and 'name = "multilabel-course"' in project.read_text(encoding="utf-8"):
            return folder
    return None


def benchmark_results(name):
    """What a benchmark measured, with date, machine and versions: benchmarks/results/<name>.csv as a DataFrame.

    Raises
    ------
    FileNotFoundError
        When there is no such file in the clone or the installed course.
    """
    here = Path(__file__).resolve().parent
    for folder in (here.parent / "benchmarks" / "results", here / "_results"):
        if (folder / f"{name}.csv").exists():
            return pd.read_csv(folder / f"{name}.csv")
    raise FileNotFoundError(f"there is no benchmarks/results/{name}.csv; make it with python benchmarks/{name}.py")


def start_run(
    notebook,
    default_dataset,
    profile="tiny",
    dataset=None,
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
    """Resolve a notebook's parameters, seed everything and read the data.

    Parameters
    ----------
    notebook : str
        Its name, for the score table.
    default_dataset : str
        What DATASET = None means in the profile "tiny".
    profile ... output_dir : the notebook's parameters; None means the profile's value. Without EPOCHS, few rows are passed over
        more often than many, so that the optimizer takes some 150 steps: 3 epochs at least, 20 at most.
    recipe : str
        "trainer" (notebooks 04 to 06 share one model) or "loop" (notebook 03).

    Returns
    -------
    Run

    Raises
    ------
    ParameterError, helpers.data.DataError, helpers.checkpoints.CheckpointError
    """
    if profile not in PROFILES:
        raise ParameterError(f"PROFILE is {profile!r}; it takes {' or '.join(map(repr, PROFILES))}")
    chosen = {"dataset": default_dataset, **PROFILES[profile]}
    given = {
        "dataset": dataset,
        "checkpoint": checkpoint,
        "max_len": max_len,
        "train_batch_size": train_batch_size,
        "valid_batch_size": valid_batch_size,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "seed": seed,
    }
    chosen.update({name: value for name, value in given.items() if value is not None})
    for name in ("max_len", "train_batch_size", "valid_batch_size", "epochs"):
        if chosen[name] is not None and (not isinstance(chosen[name], int) or chosen[name] < 1):
            raise ParameterError(f"{name.upper()} is {chosen[name]!r}; it takes a whole number from 1 up")
    if not chosen["learning_rate"] > 0:
        raise ParameterError(f"LEARNING_RATE is {chosen['learning_rate']!r}; it takes a number above 0")
    root = Path(output_dir) if output_dir else (find_clone() or Path.cwd()) / "build"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    return Run(notebook=notebook, profile=profile, output_dir=root, recipe=recipe, **chosen)


@dataclass
class Run:
    """The parameters of a run, its data, and the folder of its artefacts. Made by `start_run`."""

    notebook: str
    profile: str
    dataset: str
    checkpoint: str
    max_len: int
    train_batch_size: int
    valid_batch_size: int
    epochs: int | None
    learning_rate: float
    seed: int
    output_dir: Path
    freeze: bool
    recipe: str
    tests_read: int = field(default=0, init=False)

    def __post_init__(self):
        import torch

        quiet_libraries()
        seed_everything(self.seed)
        self.device = pick_device()
        self.precision = pick_precision(self.device)
        # on a CPU the written-out attention trains faster than the fused one (benchmarks/attention.py); None: the library's choice
        self.attention = "eager" if self.device.type == "cpu" else None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self.dataset_name = (
            self.dataset if self.built_in else re.sub(r"\W+", "-", Path(str(self.dataset)).stem).strip("-") or "data"
        )
        self._splits = data.read_splits(self.dataset)
        self.label_names = data.label_names(self._splits)
        if self.epochs is None:
            batches = -(-len(self._splits["train"]) // self.train_batch_size)
            self.epochs = min(max(3, -(-MIN_STEPS // max(1, batches))), 20)
        self.key = self._key()
        self.folder = Path(self.output_dir) / f"{self.dataset_name}-{self.key}"

    @property
    def built_in(self):
        """Whether the data set is one of the embedded two."""
        return self.dataset in data.EMBEDDED

    # Data ----------------------------------------------------------------------------------------------------------

    def load_splits(self):
        """DatasetDict with train and validation: all that may be looked at while anything is chosen."""
        return type(self._splits)({name: self._splits[name] for name in ("train", "validation")})

    def final_test(self):
        """The test split, for the end, once. A second call in one run warns: scores seen twice invite choosing by them."""
        self.tests_read += 1
        if self.tests_read > 1:
            warnings.warn("the test split was already read in this run; choose nothing by it", stacklevel=2)
        return self._splits["test"]

    # Model ---------------------------------------------------------------------------------------------------------

    @property
    def checkpoint_path(self):
        """The checkpoint as transformers takes it: a local folder, or a hub name."""
        if self.checkpoint == "embedded":
            return str(checkpoints.embedded_checkpoint(allow_hub=self.profile == "full"))
        return str(self.checkpoint)

    @property
    def model_folder(self):
        """Where the run's fine-tuned model is, or will be: a plain transformers folder."""
        return self.folder / "model"

    def autocast(self):
        """Context in which the forward pass runs in the chosen precision."""
        import torch

        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16 if self.precision == "bf16" else torch.float16)

    # Artefacts -----------------------------------------------------------------------------------------------------

    def _key(self):
        content = hashlib.sha256()
        for name, part in self._splits.items():
            content.update(name.encode())
            content.update(
                pd.util.hash_pandas_object(pd.Series(part["text"][:], dtype=str), index=False).to_numpy().tobytes()
            )
            content.update(data.label_matrix(part).tobytes())
        content.update(json.dumps(self.label_names).encode())
        parameters = {name: getattr(self, name) for name in (*PARAMETERS, "freeze", "recipe", "precision")}
        content.update(json.dumps(parameters, sort_keys=True).encode())
        weights = Path(str(self.checkpoint)) / "model.safetensors"
        content.update((checkpoints.sha256(weights) if weights.exists() else str(self.checkpoint)).encode())
        for module in CODE_THAT_TRAINS:
            content.update((Path(__file__).parent / f"{module}.py").read_bytes())
        return content.hexdigest()[:10]

    @contextmanager
    def writing(self, name):
        """Yield a temporary path to write to; renamed to `name` in the run's folder only if the block succeeds.

        What was there before is kept until then.

        Raises
        ------
        ParameterError
            When OUTPUT_DIR cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            work = Path(tempfile.mkdtemp(dir=self.folder, prefix=".writing-"))
        except OSError as error:
            raise ParameterError(
                f"OUTPUT_DIR {self.output_dir} cannot be written ({error.strerror}); choose another folder"
            ) from error
        try:
            yield work / name
            if (work / name).is_dir():
                checkpoints.replace_folder(work / name, self.folder / name)
            else:
                os.replace(work / name, self.folder / name)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def save_model(self, model, tokenizer, thresholds=None):
        """Save a classifier and its tokenizer as `model/`, with the thresholds (one a label) in its config."""
        if thresholds is not None:
            model.config.thresholds = {name: float(t) for name, t in zip(self.label_names, thresholds, strict=True)}
        with self.writing("model") as folder:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        self.save_facts()

    def save_facts(self):
        """Write run.json: parameters, versions, device."""
        parameters = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        libraries = ("torch", "transformers", "datasets", "accelerate", "scikit-learn", "numpy", "pandas")
        facts = {
            "parameters": {
                name: value.as_posix() if isinstance(value, Path) else value for name, value in parameters.items()
            },
            "labels": self.label_names,
            "precision": self.precision,
            "device": describe_device(self.device),
            "versions": {
                "multilabel-course": __version__,
                "python": platform.python_version(),
                **{name: version(name) for name in libraries},
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
        new = pd.DataFrame(
            [
                [self.notebook, self.dataset_name, split, model, metric, float(value), self.seed, float(seconds)]
                for metric, value in scores.items()
            ],
            columns=SCORE_COLUMNS,
        )
        same = ["notebook", "dataset", "split", "model", "metric", "seed"]
        old = self.scores()
        rows = new if old.empty else pd.concat([old, new]).drop_duplicates(same, keep="last")
        with self.writing("scores.csv") as path:
            rows.to_csv(path, index=False)

    def scores(self):
        """The score table of this run, a DataFrame with the columns SCORE_COLUMNS."""
        path = self.folder / "scores.csv"
        return pd.read_csv(path) if path.exists() else pd.DataFrame(columns=SCORE_COLUMNS)

    def save_predictions(self, split, part, y_prob):
        """Add the probabilities of a split to predictions.parquet: a row an example and label."""
        y_true = data.label_matrix(part)
        n_labels = len(self.label_names)
        new = pd.DataFrame(
            {
                "id": np.repeat(np.asarray(part["id"][:], dtype=object), n_labels),
                "split": split,
                "label": np.tile(np.asarray(self.label_names, dtype=object), len(part)),
                "y_true": y_true.ravel().astype("int8"),
                "y_prob": np.asarray(y_prob, dtype="float32").ravel(),
            }
        )
        old = self.predictions()
        rows = new if old is None else pd.concat([old[old["split"] != split], new])
        with self.writing("predictions.parquet") as path:
            rows.to_parquet(path, index=False)

    def predictions(self, split=None):
        """The saved predictions: the long table, or for one split the pair (y_true, y_prob) of shape (n_examples, n_labels).

        None when there are none yet.
        """
        path = self.folder / "predictions.parquet"
        if not path.exists():
            return None
        table = pd.read_parquet(path)
        if split is None:
            return table
        rows = table[table["split"] == split]
        shape = (-1, len(self.label_names))
        return rows["y_true"].to_numpy().reshape(shape), rows["y_prob"].to_numpy(dtype=float).reshape(shape)

    def expect(self, condition, message):
        """On the built-in data stop when an expectation about scores fails; on other data only say so."""
        if condition:
            return
        if self.built_in:
            raise AssertionError(f"expected on {self.dataset}: {message}")
        print(f"On the built-in data one sees that {message}; on these data it is not so.")

    def describe(self):
        """Print the run's data set and parameters, a line each."""
        rows = {
            "data set": f"{self.dataset} ({len(self.label_names)} labels)",
            "checkpoint": self.checkpoint,
            **{name: getattr(self, name) for name in PARAMETERS},
        }
        for name, value in rows.items():
            print(f"{name:<18}{value}")


def describe_device(device):
    """Name of the GPU, or the number of CPU threads."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"
