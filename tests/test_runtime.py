import json
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from helpers import runtime
from helpers.models import load_model, load_tokenizer
from helpers.runtime import PARAMETERS, ParameterError, show_error, start_run


def again(run, **changes):
    """Another run with the same parameters but for the changes."""
    names = ("dataset", "checkpoint", *PARAMETERS, "output_dir", "recipe")
    return start_run("test", "movies", **{**{name: getattr(run, name) for name in names}, **changes})


def test_the_key_changes_with_what_makes_the_model_and_with_nothing_else(small_run, small_csv, tmp_path, embedded):
    assert again(small_run).key == small_run.key
    copy = tmp_path / "copy.csv"
    copy.write_bytes(small_csv.read_bytes())
    assert again(small_run, dataset=str(copy)).key == small_run.key
    copy.write_bytes(small_csv.read_bytes().replace(b"text number 7", b"text number 777"))
    keys = {small_run.key, again(small_run, dataset=str(copy)).key}
    copy.write_bytes(small_csv.read_bytes().replace(b",good\n", b",bad\n", 1))
    keys.add(again(small_run, dataset=str(copy)).key)
    changes = [
        {"max_len": 31},
        {"train_batch_size": 9},
        {"epochs": 3},
        {"learning_rate": 2e-3},
        {"seed": 2},
        {"recipe": "loop"},
        {"checkpoint": str(embedded)},
    ]
    keys |= {again(small_run, **change).key for change in changes}
    assert len(keys) == 3 + len(changes)


def test_load_splits_withholds_the_test_split_and_a_second_look_warns(small_run):
    assert set(small_run.load_splits()) == {"train", "validation"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert small_run.final_test().num_rows > 0
    with pytest.warns(UserWarning, match="already read"):
        small_run.final_test()


def test_writing_keeps_the_old_file_until_the_new_one_is_whole(small_run):
    with small_run.writing("note.txt") as path:
        path.write_text("first")

    def interrupted():
        with small_run.writing("note.txt") as path:
            path.write_text("half of the sec")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [p.name for p in small_run.folder.iterdir()] == ["note.txt"]
    assert (small_run.folder / "note.txt").read_text() == "first"
    for content in ("a", "b"):
        with small_run.writing("folder") as path:
            path.mkdir()
            (path / content).write_text(content)
    assert [p.name for p in (small_run.folder / "folder").iterdir()] == ["b"]


def test_an_unwritable_output_dir_is_one_clear_error(small_run, tmp_path):
    (tmp_path / "file").write_text("")
    run = again(small_run, output_dir=str(tmp_path / "file"))
    with pytest.raises(ParameterError, match="OUTPUT_DIR"), run.writing("x"):
        pass


def test_scores_are_replaced_not_repeated(small_run):
    small_run.record("model", "validation", {"macro-AP": 0.5, "F1": 0.4}, seconds=2)
    small_run.record("model", "validation", {"macro-AP": 0.6})
    small_run.record("model", "test", {"macro-AP": 0.3})
    table = pd.read_csv(small_run.folder / "scores.csv")
    assert list(table.columns) == ["notebook", "dataset", "split", "model", "metric", "value", "seed", "seconds"]
    assert table.set_index(["split", "metric"])["value"].to_dict() == {
        ("validation", "F1"): 0.4,
        ("validation", "macro-AP"): 0.6,
        ("test", "macro-AP"): 0.3,
    }


def test_predictions_come_back_as_they_were(small_run):
    valid = small_run.load_splits()["validation"]
    y_prob = np.random.default_rng(0).random((len(valid), 3)).astype(np.float32)
    small_run.save_predictions("validation", valid, y_prob / 2)
    small_run.save_predictions("test", small_run.final_test(), np.zeros((small_run.final_test().num_rows, 3)))
    small_run.save_predictions("validation", valid, y_prob)
    y_true, back = small_run.predictions("validation")
    assert np.array_equal(back.astype(np.float32), y_prob)
    assert y_true.shape == y_prob.shape
    table = pd.read_parquet(small_run.folder / "predictions.parquet")
    assert list(table.columns) == ["id", "split", "label", "y_true", "y_prob"]
    assert not table.duplicated(["id", "split", "label"]).any()


def test_a_saved_model_has_its_names_thresholds_and_facts(small_run, small_checkpoint):
    model = load_model(small_checkpoint, small_run.label_names)
    small_run.save_model(model, load_tokenizer(small_checkpoint), np.array([0.1, 0.2, 0.3], dtype=np.float32))
    config = json.loads((small_run.model_folder / "config.json").read_text())
    assert list(config["id2label"].values()) == ["bad", "good", "ugly"]
    assert set(config["thresholds"]) == {"bad", "good", "ugly"}
    assert config["thresholds"]["good"] == pytest.approx(0.2)
    assert {"model.safetensors", "tokenizer.json"} <= {p.name for p in small_run.model_folder.iterdir()}
    facts = json.loads((small_run.folder / "run.json").read_text())
    assert facts["parameters"]["max_len"] == 32
    assert facts["versions"]["torch"].startswith(torch.__version__.split("+")[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"profile": "huge"}, "PROFILE is 'huge'; it takes 'tiny' or 'full'"),
        ({"max_len": 0}, "MAX_LEN is 0"),
        ({"train_batch_size": 2.5}, "TRAIN_BATCH_SIZE is 2.5"),
        ({"learning_rate": -1.0}, "LEARNING_RATE is -1.0"),
        ({"epochs": 0}, "EPOCHS is 0"),
    ],
)
def test_parameters_that_cannot_be_used(changes, message):
    with pytest.raises(ParameterError, match=message):
        start_run("test", "movies", **changes)


def test_few_rows_are_passed_over_more_often(small_run):
    rows = len(small_run.load_splits()["train"])
    epochs = {size: again(small_run, epochs=None, train_batch_size=size).epochs for size in (rows // 10, 1, rows)}
    assert 150 <= epochs[rows // 10] * (rows / (rows // 10)) < 180
    assert epochs[1] * rows >= 150
    assert epochs[rows] == 20
    assert start_run("test", "movies").epochs == start_run("test", "comments").epochs == 3
    assert again(small_run, epochs=1).epochs == 1


def test_expectations_stop_on_built_in_data_only(small_run, capsys, monkeypatch):
    small_run.expect(True, "all is well")
    small_run.expect(False, "the model leads")
    assert "not so" in capsys.readouterr().out
    monkeypatch.setattr(small_run, "dataset", "movies")
    with pytest.raises(AssertionError, match="the model leads"):
        small_run.expect(False, "the model leads")


def test_show_error_shows_and_insists(capsys):
    with show_error():
        raise ValueError("as planned")
    assert capsys.readouterr().out == "ValueError: as planned\n"
    with pytest.raises(AssertionError, match="meant to fail"), show_error():
        pass


def test_precision_follows_device_and_override(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setenv("MULTILABEL_COURSE_PRECISION", "fp32")
    assert runtime.pick_precision(cpu) == "fp32"
    monkeypatch.setenv("MULTILABEL_COURSE_PRECISION", "half")
    with pytest.raises(ParameterError, match="'half'"):
        runtime.pick_precision(cpu)
    monkeypatch.delenv("MULTILABEL_COURSE_PRECISION")
    for has, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(runtime, "_cpu_has_bf16", lambda has=has: has)
        assert runtime.pick_precision(cpu) == expected
    for has, expected in ((True, "bf16"), (False, "fp16")):
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True, has=has: has or including_emulation
        )
        assert runtime.pick_precision(torch.device("cuda")) == expected


def test_seeding_reaches_all_three(capsys):
    def draw():
        import random

        return random.random(), np.random.random(), torch.rand(1).item()

    runtime.seed_everything(5)
    first = draw()
    runtime.seed_everything(5)
    assert draw() == first
