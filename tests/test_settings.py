from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from conftest import tiny_checkpoint

from helpers import checkpoints
from helpers.reading import EMBEDDED, LABELS
from helpers.settings import (
    FULL_COMMENTS,
    PROFILES,
    ParameterError,
    Settings,
    choose,
    enough_epochs,
    origin,
    pooling,
    writable,
)


def chosen(**given):
    return choose("movies", "build", **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"profile": "huge"}, "PROFILE is 'huge'; it takes 'tiny' or 'full'"),
        ({"profile": ["tiny"]}, r"PROFILE is \['tiny'\]; it takes"),
        ({"recipe": "none"}, "recipe is 'none'; it takes 'trainer' or 'loop'"),
        ({"dataset": 5}, "DATASET is 5; it takes a text: a name or a path"),
        ({"dataset": " "}, "DATASET is ' '; it takes a text"),
        ({"checkpoint": ["a"]}, r"CHECKPOINT is \['a'\]; it takes a text"),
        ({"output_dir": 0}, "OUTPUT_DIR is 0; it takes a text"),
        ({"max_len": 0}, "MAX_LEN is 0; it takes a whole number from 3 up"),
        ({"max_len": 2}, "MAX_LEN is 2; it takes a whole number from 3 up"),
        ({"max_len": 513}, "MAX_LEN is 513, and embedded reads at most 512 tokens; lower it"),
        ({"max_len": "128"}, "MAX_LEN is '128'; it takes a whole number"),
        ({"train_batch_size": 2.5}, "TRAIN_BATCH_SIZE is 2.5; it takes a whole number from 1 up"),
        ({"valid_batch_size": True}, "VALID_BATCH_SIZE is True; it takes a whole number"),
        ({"epochs": 0}, "EPOCHS is 0; it takes a whole number from 1 up"),
        ({"learning_rate": -1.0}, "LEARNING_RATE is -1.0; it takes a number above 0"),
        ({"learning_rate": "3e-4"}, "LEARNING_RATE is '3e-4'; it takes a number above 0, as 3e-4 without quotes"),
        ({"learning_rate": float("nan")}, "LEARNING_RATE is nan; it takes a number above 0"),
        ({"learning_rate": float("inf")}, "LEARNING_RATE is inf; it takes a number above 0"),
        ({"seed": -1}, "SEED is -1; it takes a whole number from 0 to 4294967295"),
        ({"seed": 2**32}, "SEED is 4294967296; it takes a whole number"),
        ({"seed": "42"}, "SEED is '42'; it takes a whole number"),
        (
            {"checkpoint": "/no/such/folder"},
            "CHECKPOINT: /no/such/folder is not there, seen from .*; give a folder that",
        ),
    ],
)
def test_a_value_that_cannot_be_used_is_one_sentence(given, message):
    with pytest.raises(ParameterError, match=message) as error:
        chosen(**given)
    assert "\n" not in str(error.value)


def test_the_largest_and_smallest_values_pass():
    chosen(max_len=512, seed=2**32 - 1, epochs=1, learning_rate=1)
    chosen(max_len=3, seed=0)
    np.random.seed(2**32 - 1)  # the limit is NumPy's


def test_settings_are_frozen_and_checked_again_when_replaced():
    settings = chosen()
    with pytest.raises(FrozenInstanceError):
        settings.seed = 3
    with pytest.raises(ParameterError, match="SEED is -3"):
        replace(settings, seed=-3)
    assert (settings.seed, replace(settings, seed=3).seed) == (42, 3)


def test_where_each_value_came_from():
    settings = chosen(max_len=128, seed=7)
    assert {name: origin(settings, name) for name in ("max_len", "seed", "epochs", "dataset", "output_dir")} == {
        "max_len": "given",  # though it is the profile's value
        "seed": "given",
        "epochs": "profile",
        "dataset": "notebook",
        "output_dir": "notebook",
    }
    settings = replace(settings, epochs=5, learning_rate=1e-3)
    assert origin(settings, "epochs") == "from the data"
    assert origin(settings, "learning_rate") == "given"
    assert origin(chosen(epochs=4), "epochs") == "given"
    full = Settings(**PROFILES["full"] | {"profile": "full", "output_dir": "build", "checkpoint": "embedded"})
    assert (origin(full, "dataset"), origin(full, "checkpoint")) == ("profile", "given")


def test_the_full_profile_takes_other_data_where_the_comments_are_the_default():
    given = {"profile": "full", "checkpoint": "embedded"}
    comments, movies = (choose(name, "build", **given) for name in ("comments", "movies"))
    assert (comments.dataset, movies.dataset) == (FULL_COMMENTS["dataset"], PROFILES["full"]["dataset"])
    assert (origin(comments, "dataset"), origin(movies, "dataset")) == ("profile", "profile")
    assert choose("comments", "build", dataset="movies", **given).dataset == "movies"
    assert LABELS[comments.dataset] == EMBEDDED["comments"], "the names of its labels, which it comes without"


@pytest.mark.parametrize(("kind", "usable"), [("Roberta", 64), ("Bert", 66), ("DistilBert", 66)])
def test_max_len_ends_where_the_checkpoints_positions_end(kind, usable, tmp_path):
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(tiny_checkpoint(tmp_path, kind)).eval()
    assert chosen(checkpoint=str(tmp_path), max_len=usable).max_len == usable
    with pytest.raises(ParameterError, match=f"MAX_LEN is {usable + 1}, and .* reads at most {usable} tokens"):
        chosen(checkpoint=str(tmp_path), max_len=usable + 1)
    model(torch.full((1, usable), 5))
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.full((1, usable + 1), 5))


def test_the_embedded_models_length_is_its_configs(embedded):
    assert [checkpoints.examine(name).longest_input for name in (str(embedded), "embedded")] == [512, 512]


def test_a_checkpoint_that_cannot_be_used_is_a_parameter_error_when_the_settings_are_made(tmp_path):
    folder = tiny_checkpoint(tmp_path / "mine", tokenizer=False)
    with pytest.raises(
        ParameterError, match=r"^CHECKPOINT: .*mine has no tokenizer \(no tokenizer.json, no vocab.txt\)"
    ):
        chosen(checkpoint=str(folder))


def test_a_model_that_reads_the_mean_says_so_wherever_it_lies(tmp_path):
    first = tiny_checkpoint(tmp_path / "first")
    mean = tiny_checkpoint(tmp_path / "mean", mean_pooling=True)
    found = [pooling(chosen(checkpoint=str(name), max_len=32)) for name in ("embedded", first, mean)]
    assert found == ["mean", "first", "mean"]


def test_few_rows_are_passed_over_more_often():
    many = [10**4, 10**4]
    assert enough_epochs(many, 1000, 16) == enough_epochs(many, 10**6, 16) == 3
    assert enough_epochs(many, 160, 16) == 15
    assert enough_epochs(many, 16, 16) == enough_epochs(many, 1, 16) == 20


def test_rows_with_many_or_rare_labels_are_passed_over_more_often():
    assert enough_epochs([100, 15, 15, 2], 800, 16) == 10
    assert enough_epochs([100, 15, 15, 2, 0, 0], 800, 16) == 10, "a label without positives has nothing to meet"
    assert enough_epochs([100, 60, 40, 1], 800, 16) == 3
    assert enough_epochs([1, 1, 1], 800, 16) == 20
    assert enough_epochs([0, 0], 800, 16) == 3


def test_what_cannot_be_written_is_named():
    for error, message in (
        (PermissionError(13, "Permission denied"), r"OUTPUT_DIR x cannot be written \(Permission denied\)"),
        (TimeoutError(), "OUTPUT_DIR x: another process is at work on this run there; wait until it has finished"),
    ):
        with pytest.raises(ParameterError, match=message), writable("x"):
            raise error
