"""The settings of a run: what a notebook's parameters may be, their values by default, and where each came from."""

import math
import statistics
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from helpers.checkpoints import CheckpointError, examine

PROFILES = {
    "tiny": {
        "checkpoint": "embedded",
        "max_len": 128,
        "train_batch_size": 16,
        "valid_batch_size": 32,
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
# What "full" takes where the built-in comments are the default: data and model of the notebook that notebook 4 mends.
FULL_COMMENTS = {"dataset": "zcamz/toxic", "checkpoint": "google-bert/bert-base-uncased"}
RECIPES = ("trainer", "loop")
MIN_LENGTH = 3  # one token of text between the two special ones
MAX_SEED = 2**32 - 1  # NumPy's
MIN_STEPS = 150  # with EPOCHS None: as many epochs as these steps take,
MIN_MEETINGS = 150  # and until a label of median rarity has been met as often as this, from 3 to 20


class ParameterError(ValueError):
    """A parameter of a notebook that cannot be used; the message says which and what it may be."""


@dataclass(frozen=True)
class Settings:
    """What shapes a run. Made by `choose`, checked whenever it is made, changed by `dataclasses.replace` only.

    Attributes
    ----------
    profile : str
        "tiny" (embedded data and model, for a CPU) or "full" (from the hub, for a GPU).
    dataset : str
        "movies", "comments", a file or a hub name.
    checkpoint : str
        "embedded", a folder or a hub name.
    max_len : int
        Tokens after which a text is cut, special tokens included.
    train_batch_size, valid_batch_size : int
    epochs : int or None
        None until the data are known: `enough_epochs`.
    learning_rate : float
        The encoder's; the head's is a multiple of it.
    seed : int
    output_dir : path
        Holds a folder a run.
    freeze : bool
        Whether the embeddings and the lower two thirds of the layers stay as they are.
    recipe : str
        "trainer" (notebooks 04 to 06 share one model) or "loop" (notebook 03).

    Raises
    ------
    ParameterError
        For the first value that cannot be used.
    """

    profile: str
    dataset: str
    checkpoint: str
    max_len: int
    train_batch_size: int
    valid_batch_size: int
    epochs: int | None
    learning_rate: float
    seed: int
    output_dir: str | Path
    freeze: bool = True
    recipe: str = "trainer"
    _given: frozenset = field(default=frozenset(), repr=False, compare=False)

    def __post_init__(self):
        _one_of("PROFILE", self.profile, tuple(PROFILES))
        _one_of("recipe", self.recipe, RECIPES)
        for name in ("dataset", "checkpoint", "output_dir"):
            value = getattr(self, name)
            if not isinstance(value, (str, Path)) or not str(value).strip():
                raise ParameterError(f"{name.upper()} is {value!r}; it takes a text: a name or a path")
        _whole("MAX_LEN", self.max_len, MIN_LENGTH)
        for name in ("train_batch_size", "valid_batch_size", "epochs"):
            if getattr(self, name) is not None or name != "epochs":
                _whole(name.upper(), getattr(self, name), 1)
        _whole("SEED", self.seed, 0, MAX_SEED)
        rate = self.learning_rate
        if not isinstance(rate, (int, float)) or isinstance(rate, bool) or not 0 < rate < math.inf:
            raise ParameterError(f"LEARNING_RATE is {rate!r}; it takes a number above 0, as 3e-4 without quotes")
        try:
            limit = examine(self.checkpoint).longest_input
        except CheckpointError as error:
            raise ParameterError(f"CHECKPOINT: {error}") from error
        if limit and self.max_len > limit:
            raise ParameterError(
                f"MAX_LEN is {self.max_len}, and {self.checkpoint} reads at most {limit} tokens; lower it"
            )


def _one_of(name, value, allowed):
    if not isinstance(value, str) or value not in allowed:
        raise ParameterError(f"{name} is {value!r}; it takes {' or '.join(map(repr, allowed))}")


def _whole(name, value, low, high=None):
    if not isinstance(value, int) or isinstance(value, bool) or value < low or (high and value > high):
        span = f"from {low} up" if high is None else f"from {low} to {high}"
        raise ParameterError(f"{name} is {value!r}; it takes a whole number {span}")


def choose(default_dataset, default_output_dir, profile="tiny", recipe="trainer", **given):
    """The Settings of a notebook's parameters; None means the profile's value.

    Parameters
    ----------
    default_dataset : str
        What DATASET = None means in the profile "tiny"; "comments" also changes what the profile "full" takes.
    default_output_dir : path
        What OUTPUT_DIR = None means.
    profile, recipe : str
    **given : the other attributes of Settings

    Raises
    ------
    ParameterError
    """
    _one_of("PROFILE", profile, tuple(PROFILES))
    told = {name: value for name, value in given.items() if value is not None}
    values = {"dataset": default_dataset, "output_dir": default_output_dir, **PROFILES[profile]}
    if profile == "full" and default_dataset == "comments":
        values |= FULL_COMMENTS
    values |= told
    return Settings(profile=profile, recipe=recipe, **values, _given=frozenset(told))


def pooling(settings):
    """What of a text's states the head reads: "mean" for the embedded model, which was trained so, else "first".

    "mean" also for what was fine-tuned from it and saved by the course.
    """
    return examine(settings.checkpoint).pooling


def origin(settings, name):
    """Where a value came from: "given", "profile", "notebook" or "from the data"."""
    value, profiles = getattr(settings, name), PROFILES[settings.profile]
    if name in settings._given:
        return "given"
    if name not in profiles:
        return "notebook"
    if value == profiles[name] or (settings.profile == "full" and value == FULL_COMMENTS.get(name)):
        return "profile"
    return "from the data" if profiles[name] is None else "given"


def enough_epochs(positives, n_rows, batch_size):
    """Epochs where none are given: enough for some 150 steps, and for the median label to be met as often.

    Few rows are passed over more often, and so are rows with many or rare labels. 3 at least, 20 at most.

    Parameters
    ----------
    positives : sequence of int, length n_labels
        Each label's in the training split.
    n_rows, batch_size : int
    """
    batches = max(1, -(-n_rows // batch_size))
    present = [n for n in positives if n]
    meetings = math.ceil(MIN_MEETINGS / statistics.median(present)) if present else 0
    return min(max(3, -(-MIN_STEPS // batches), meetings), 20)


@contextmanager
def writable(folder):
    """Say in one sentence that OUTPUT_DIR cannot be written, where the block finds out.

    Raises ParameterError.
    """
    try:
        yield
    except TimeoutError as error:
        remedy = "wait until it has finished, or choose another folder"
        raise ParameterError(f"OUTPUT_DIR {folder}: another process is at work on this run there; {remedy}") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise ParameterError(f"OUTPUT_DIR {folder} cannot be written ({reason}); choose another folder") from error
