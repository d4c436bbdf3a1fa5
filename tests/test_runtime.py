import json
import re
import shutil
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, changed, with_unknown
from test_files import at_once, names
from test_repository import imports

from helpers import runtime
from helpers.data import UNKNOWN, label_matrix, read_splits
from helpers.device import Compute
from helpers.models import load_model, load_tokenizer
from helpers.runtime import start_run
from helpers.settings import ParameterError
from helpers.tokenization import tokenize_splits

GIVEN = ("checkpoint", "max_len", "train_batch_size", "valid_batch_size", "epochs", "learning_rate", "seed", "dataset")


def again(run, **changes):
    """Another run with the same parameters but for the changes."""
    parameters = {name: getattr(run.settings, name) for name in (*GIVEN, "output_dir", "recipe")}
    return start_run("test", "movies", **parameters | changes)


def key(run):
    return run.folder.path.name


def test_the_key_changes_with_what_makes_the_model_and_with_nothing_else(small_run, small_csv, tmp_path, embedded):
    assert key(again(small_run)) == key(small_run)
    copy = tmp_path / "small.csv"
    copy.write_bytes(small_csv.read_bytes())
    assert key(again(small_run, dataset=str(copy), output_dir=str(tmp_path / "elsewhere"))) == key(small_run)
    copy.write_bytes(small_csv.read_bytes().replace(b"text number 7", b"text number 777"))
    keys = {key(small_run), key(again(small_run, dataset=str(copy)))}
    copy.write_bytes(small_csv.read_bytes().replace(b",good\n", b",bad\n", 1))
    keys.add(key(again(small_run, dataset=str(copy))))
    frame = pd.read_csv(small_csv, keep_default_na=False)
    frame.assign(id=range(100, 100 + len(frame))).to_csv(copy, index=False)
    keys.add(key(again(small_run, dataset=str(copy))))
    changes = [
        {"max_len": 31},
        {"train_batch_size": 9},
        {"valid_batch_size": 9},
        {"epochs": 3},
        {"learning_rate": 2e-3},
        {"seed": 2},
        {"recipe": "loop"},
        {"checkpoint": str(embedded)},
        {"checkpoint": "embedded"},  # the same files, but the head reads the mean
    ]
    keys |= {key(again(small_run, **change)) for change in changes}
    assert len(keys) == 4 + len(changes)


def of_code(run, compute):
    splits = {**run.splits, "test": run._test}
    return runtime.run_key(run.settings, compute, splits, run.label_names)


def test_the_key_changes_with_precision_and_the_checkpoints_files(small_run, small_checkpoint, tmp_path):
    keys = {of_code(small_run, Compute(torch.device("cpu"), precision)) for precision in ("fp32", "bf16")}
    copy = tmp_path / "copy"
    shutil.copytree(small_checkpoint, copy)
    same = of_code(changed(small_run, checkpoint=str(copy)), small_run.compute)
    assert same in keys
    tokenizer = copy / "tokenizer.json"  # the same weights, read with other pieces
    tokenizer.write_text(tokenizer.read_text().replace('"good"', '"gut"'))
    assert of_code(changed(small_run, checkpoint=str(copy)), small_run.compute) not in keys
    assert len(keys) == 2


@pytest.fixture
def code(tmp_path):
    """A copy of the helpers' code, and a function that replaces something in a module and returns the fingerprint."""
    shutil.copytree(ROOT / "helpers", tmp_path / "helpers", ignore=shutil.ignore_patterns("__pycache__"))

    def fingerprint(module=None, old="", new=""):
        if module:
            path = tmp_path / "helpers" / f"{module}.py"
            text = path.read_text(encoding="utf-8")
            assert old in text
            path.write_text(text.replace(old, new, 1), encoding="utf-8")
        return runtime.code_fingerprint(tmp_path / "helpers", runtime.CODE_THAT_SHAPES)

    return fingerprint


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("thresholds", "default=0.5", "default=0.6"),
        ("metrics", "y_prob) >= np.asarray(thresholds)", "y_prob) > np.asarray(thresholds)"),
        ("training", "HEAD_RATE = 10", "HEAD_RATE = 11"),
        ("trainer", "warmup_steps=0.1", "warmup_steps=0.2"),
        ("models", "dropout=0.2", "dropout=0.1"),
        ("checkpoints", "attention_dropout=0.0", "attention_dropout=0.1"),
    ],
)
def test_the_key_changes_with_code_that_shapes_the_model(code, module, old, new):
    before = code()
    assert code(module, old, new) != before


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("reading", "# Reading ---", "# Reading and more ---"),
        ("reading", "the file has no rows", "the file holds no rows"),
        ("thresholds", '"""Where to cut', '"""How to cut'),
        ("training", "HEAD_RATE = 10  # the head starts", "HEAD_RATE = 10  # a head starts"),
        ("metrics", "\n\n\ndef interval", "\n\n\n\ndef interval"),
    ],
)
def test_the_key_does_not_change_for_a_comment_a_docstring_or_a_message_of_the_reader(code, module, old, new):
    before = code()
    assert code(module, old, new) == before


def test_all_code_below_the_trainings_is_in_the_key_or_what_it_makes_is():
    reached, found = {"sharing", "training"}, set()
    while reached:
        found |= reached
        reached = {name for module in reached for name in imports(module)} - found
    made_is_in_the_key = {"reading", "data", "settings"}
    shapes_nothing = {"files", "quiet"}
    assert found - made_is_in_the_key - shapes_nothing == set(runtime.CODE_THAT_SHAPES)


def test_the_test_split_is_withheld_and_a_second_look_warns(small_run):
    assert set(small_run.splits) == {"train", "validation"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert small_run.final_test().num_rows > 0
    with pytest.warns(UserWarning, match="already read"):
        small_run.final_test()


def test_a_run_prints_every_setting_and_where_it_came_from(small_run, small_csv):
    lines = str(again(small_run, epochs=None, seed=None)).splitlines()
    table = {line[:18].strip(): (line[18:70].strip(), line[70:]) for line in lines}
    assert re.fullmatch(rf"data set +{re.escape(str(small_csv))}, 3 labels *given", lines[0])
    assert table["seed"] == ("42", "profile")
    assert table["max_len"] == ("32", "given")
    assert table["epochs"] == ("20", "from the data")
    assert table["precision"] == ("fp32", "this machine")
    assert table["attention"][0] in ("eager", "the library's choice")
    assert table["frozen"][0].startswith("embeddings and the lower two thirds")
    assert re.fullmatch(r"small-[0-9a-f]{10}", table["folder"][0])
    assert {"checkpoint", "train_batch_size", "valid_batch_size", "learning_rate", "device"} <= set(table)
    whole = str(start_run("test", "movies", profile="full", dataset="movies", checkpoint="embedded"))
    assert re.search(r"^frozen +nothing +profile$", whole, re.MULTILINE)
    assert re.search(r"^read by the head +mean of the tokens' states", whole, re.MULTILINE)
    assert table["read by the head"] == ("first of the tokens' states", "the checkpoint")
    assert re.search(r"^too rare to count +no label +under 10 in validation$", whole, re.MULTILINE)
    support = label_matrix(small_run.splits["validation"]).sum(axis=0)
    assert support.max() < 10
    assert table["too rare to count"] == ("every label, so the micro average decides", "under 10 in validation")


def test_unknown_cells_count_for_no_label_when_a_run_is_set_up_and_printed(small_run, small_csv, monkeypatch):
    asked = []
    monkeypatch.setattr(runtime, "enough_epochs", lambda positives, *_: asked.extend(positives) or 1)
    splits = with_unknown(small_run).splits
    monkeypatch.setattr(runtime.data, "read_splits", lambda *_, **__: type(splits)({**splits, "test": small_run._test}))
    run = again(small_run, epochs=None)
    assert asked == (label_matrix(splits["train"]) == 1).sum(axis=0).tolist()
    assert (label_matrix(splits["train"]) == UNKNOWN).any()
    counts = (label_matrix(splits["validation"]) == 1).sum(axis=0)
    monkeypatch.setattr(runtime, "MIN_POSITIVES", counts.max())
    rare = [f"{name} ({n})" for name, n in zip(run.label_names, counts, strict=True) if n < counts.max()]
    assert f"too rare to count {', '.join(rare)} " in str(run)


def test_unknown_cells_are_saved_with_the_predictions(small_run):
    valid = with_unknown(small_run).splits["validation"]
    y_true = label_matrix(valid)
    small_run.folder.save_predictions("validation", valid["id"], y_true, np.zeros_like(y_true))
    assert (y_true == UNKNOWN).any()
    assert np.array_equal(small_run.folder.predictions("validation")[0], y_true)


def test_of_many_rare_labels_three_are_named(tmp_path):
    split = ["train", "validation", "test"] * 60
    rows = pd.DataFrame({"text": [f"text number {i}" for i in range(180)], "split": split, "common": 1})
    for k in range(6):
        rows[f"label{k}"] = [int(i // 3 % 10 == k) for i in range(180)]
    rows.to_csv(tmp_path / "many.csv", index=False)
    run = start_run("test", "movies", dataset=str(tmp_path / "many.csv"), output_dir=str(tmp_path))
    assert re.search(
        r"^too rare to count +label0 \(\d\), label1 \(\d\), label2 \(\d\) and 3 more +under", str(run), re.M
    )


def test_what_is_only_read_is_in_the_order_of_its_lengths(small_run):
    for part in (small_run.splits["validation"], small_run.final_test()):
        length = [len(text) for text in part["text"]]
        assert length == sorted(length)
        assert len(set(length)) > 1
    given = read_splits(small_run.settings.dataset)
    assert small_run.splits["train"]["id"][:] == given["train"]["id"][:]
    assert sorted(small_run.splits["validation"]["id"]) == sorted(given["validation"]["id"])


def test_a_run_starts_from_its_seed(small_run):
    draws = []
    for seed in (5, 5, 6):
        again(small_run, seed=seed)
        draws.append((torch.rand(1).item(), np.random.random()))
    assert draws[0] == draws[1] != draws[2]


def test_epochs_follow_the_rows(small_run):
    rows = len(small_run.splits["train"])
    few = again(small_run, epochs=None, train_batch_size=rows // 10).settings.epochs
    assert 150 <= few * 10 < 180
    assert start_run("test", "movies").settings.epochs == start_run("test", "comments").settings.epochs == 3


def test_a_folder_that_cannot_be_written_is_refused_at_once(small_run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ParameterError, match=r"OUTPUT_DIR .*file cannot be written \(.*\); choose another folder"):
        again(small_run, output_dir=str(tmp_path / "file"))
    assert not small_run.folder.path.exists(), "nothing is made before there is something to write"


def test_scores_are_replaced_not_repeated(small_run):
    folder = small_run.folder
    folder.record("model", "validation", {"macro-AP": 0.5, "F1": 0.4}, seconds=2)
    folder.record("model", "validation", {"macro-AP": 0.6})
    folder.record("model", "test", {"macro-AP": 0.3})
    table = pd.read_csv(folder.path / "scores.csv")
    assert list(table.columns) == ["notebook", "dataset", "split", "model", "metric", "value", "seed", "seconds"]
    assert table.set_index(["split", "metric"])["value"].to_dict() == {
        ("validation", "F1"): 0.4,
        ("validation", "macro-AP"): 0.6,
        ("test", "macro-AP"): 0.3,
    }


RECORD = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from helpers.device import CPU
from helpers.runtime import RunFolder
from helpers.settings import choose
shared, me = Path(sys.argv[1]), sys.argv[2]
folder = RunFolder(shared, me, "data", choose("movies", shared), CPU, ["x", "y"])
(shared / me).touch()
while len(list(shared.glob("[ab]"))) < 2:
    pass
for number in range(60):
    folder.record(f"model {{number}}", "validation", {{"macro-AP": number}})
folder.save_predictions(f"split of {{me}}", ["1"], [[0, 1]], [[0.25, 0.75]])
"""


def test_two_notebooks_that_write_at_once_lose_nothing(tmp_path):
    shared = at_once(tmp_path, RECORD.format(root=str(ROOT)))
    scores = pd.read_csv(shared / "scores.csv")
    assert len(scores) == 120
    assert scores.groupby("notebook")["value"].sum().to_dict() == {"a": 1770, "b": 1770}
    assert set(pd.read_parquet(shared / "predictions.parquet")["split"]) == {"split of a", "split of b"}
    assert names(shared) == ["a", "b", "predictions.parquet", "scores.csv"]


def test_only_one_process_trains_in_a_folder(small_run):
    with small_run.folder.alone():
        with (
            pytest.raises(ParameterError, match="another process is at work on this run there"),
            again(small_run).folder.alone(),
        ):
            pass
        with again(small_run, seed=9).folder.alone():
            small_run.folder.record("model", "test", {"macro-AP": 0.3})  # scores can be written meanwhile
    with small_run.folder.alone():
        pass


def test_an_error_of_a_training_stays_what_it_is(small_run):
    with pytest.raises(FileNotFoundError, match="weights"), small_run.folder.alone():
        raise FileNotFoundError("weights")


def test_predictions_come_back_as_they_were(small_run):
    valid, test, folder = small_run.splits["validation"], small_run.final_test(), small_run.folder
    y_prob = np.random.default_rng(0).random((len(valid), 3)).astype(np.float32)
    folder.save_predictions("validation", valid["id"], label_matrix(valid), y_prob / 2)
    folder.save_predictions("test", test["id"][:], label_matrix(test), np.zeros((len(test), 3)))
    folder.save_predictions("validation", valid["id"], label_matrix(valid), y_prob)
    y_true, back = folder.predictions("validation")
    assert np.array_equal(back.astype(np.float32), y_prob)
    assert np.array_equal(y_true, label_matrix(valid))
    table = pd.read_parquet(folder.path / "predictions.parquet")
    assert list(table.columns) == ["id", "split", "label", "y_true", "y_prob"]
    assert not table.duplicated(["id", "split", "label"]).any()
    assert table.loc[table["split"] == "validation", "id"].tolist() == list(np.repeat(valid["id"][:], 3))


def test_a_saved_model_has_its_names_thresholds_and_facts(small_run, small_checkpoint):
    model = load_model(small_checkpoint, small_run.label_names)
    folder = small_run.folder
    tokenizer = load_tokenizer(small_checkpoint)
    length = tokenizer.model_max_length
    folder.save_model(model, tokenizer, np.array([0.1, 0.2, 0.3], dtype=np.float32))
    assert load_tokenizer(folder.model).model_max_length == 32 != length == tokenizer.model_max_length
    config = json.loads((folder.model / "config.json").read_text())
    assert list(config["id2label"].values()) == ["bad", "good", "ugly"]
    assert set(config["thresholds"]) == {"bad", "good", "ugly"}
    assert config["thresholds"]["good"] == pytest.approx(0.2)
    assert {"model.safetensors", "tokenizer.json"} <= {p.name for p in folder.model.iterdir()}
    facts = json.loads((folder.path / "run.json").read_text())
    assert facts["parameters"]["max_len"] == 32
    assert facts["versions"]["torch"].startswith(torch.__version__.split("+")[0])


def test_a_changed_run_keeps_its_data_and_its_test_split(small_run):
    other = replace(small_run, settings=replace(small_run.settings, seed=9))
    assert other.splits is small_run.splits
    assert other.final_test().num_rows == small_run.final_test().num_rows
    assert tokenize_splits(other.splits, load_tokenizer(other.checkpoint), 16)["train"].num_rows
