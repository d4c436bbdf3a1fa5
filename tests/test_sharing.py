import json
import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, tiny_checkpoint
from safetensors.torch import load_file

from helpers import __main__ as command
from helpers import files, sharing, trainer
from helpers.data import label_matrix
from helpers.runtime import start_run
from helpers.settings import ParameterError

OPTIONS = {"max_len": 32, "train_batch_size": 8, "epochs": 4, "learning_rate": 5e-3, "seed": 1}


@pytest.fixture
def start(small_csv, small_checkpoint, tmp_path):
    """A function: the name of an output folder -> a Run, with random numbers as in a new process."""
    sharing.join(cpu=True)

    def make(name, **options):
        options = {"dataset": str(small_csv), "checkpoint": str(small_checkpoint), **OPTIONS, **options}
        return start_run("test", "movies", output_dir=tmp_path / name, **options)

    return make


def weights(run):
    return load_file(run.folder.model / "model.safetensors")


def equal(some, other):
    assert some.keys() == other.keys()
    return all(torch.equal(some[name], other[name]) for name in some)


def test_the_model_is_that_of_fine_tune_and_is_found_there(start, monkeypatch):
    run, other = start("a"), start("b")
    assert run.folder.path.name == other.folder.path.name
    trainer.fine_tune(start("b"))
    run = start("a")
    assert sharing.train_together(run)
    assert equal(weights(run), weights(other))
    y_true, y_prob = run.folder.predictions("validation")
    assert np.array_equal(y_prob, other.folder.predictions("validation")[1])
    assert np.array_equal(y_true, label_matrix(run.splits["validation"]))
    assert not (run.folder.path / "checkpoints").exists()
    monkeypatch.setattr(sharing, "build_trainer", lambda *_: pytest.fail("trained again"))
    assert not sharing.train_together(start("a"))


def test_a_batch_that_cannot_be_shared_out_is_refused():
    sharing.check_shares(12, 4)
    with pytest.raises(ParameterError, match=r"^TRAIN_BATCH_SIZE is 13, that of all 4 processes .* equally; 12 can$"):
        sharing.check_shares(13, 4)
    with pytest.raises(ParameterError, match="; 8 can$"):
        sharing.check_shares(2, 8)


def test_one_training_at_a_time_in_a_folder(start):
    run = start("a")
    with run.folder.alone(), pytest.raises(ParameterError, match="another process is at work on this run there"):
        sharing.train_together(start("a"))


# After a cut ----------------------------------------------------------------------------------------------------------


class Cut(BaseException):
    """As if the process had ended."""


def cut_at(monkeypatch, moment):
    """Let training end at a moment: at a step, while a checkpoint is written, after the last one."""
    if moment == "seal":
        sealed, seal = [], files.seal

        def broken(folder):
            sealed.append(folder)
            if len(sealed) == 3:
                raise Cut
            seal(folder)

        monkeypatch.setattr(files, "seal", broken)
    elif moment == "end":
        monkeypatch.setattr(sharing, "save_results", lambda *_: (_ for _ in ()).throw(Cut))
    else:

        def stop(self, args, state, control, **kwargs):
            if state.global_step == moment:
                raise Cut

        monkeypatch.setattr(sharing.EpochKeeper, "on_step_end", stop, raising=False)


@pytest.mark.parametrize(
    ("moment", "scores", "after"),
    [
        (3, [0.1, 0.2, 0.3, 0.4], None),
        (18, [0.4, 0.1, 0.2, 0.3], 3),
        ("seal", [0.1, 0.2, 0.3, 0.4], 2),
        ("end", [0.1, 0.4, 0.3, 0.2], 4),
    ],
)
def test_training_that_was_cut_off_ends_with_the_same_weights(start, monkeypatch, capsys, moment, scores, after):
    """5 steps an epoch; the best epoch comes after the cut, or long before it."""

    def train(name, scores):
        given = iter(scores)
        monkeypatch.setattr(trainer, "macro_average_precision", lambda *_: next(given, 0.5))
        run = start(name)
        sharing.train_together(run)
        return run

    whole = train("whole", scores)
    with monkeypatch.context() as patch:
        cut_at(patch, moment)
        with pytest.raises(Cut):
            train("broken", scores)
    left = start("broken").folder.path / "checkpoints"
    assert len(list(left.glob("checkpoint-*"))) <= 3, "the best, the last, the one that is being written"
    capsys.readouterr()
    broken = train("broken", scores[after or 0 :])
    assert equal(weights(whole), weights(broken))
    assert np.array_equal(*(run.folder.predictions("validation")[1] for run in (whole, broken)))
    told = capsys.readouterr().out
    assert (f"going on after epoch {after}, where an earlier training was cut off" in told) == (after is not None)
    assert not left.exists()


def test_the_best_epoch_is_found_where_the_folder_was_moved(start, monkeypatch, tmp_path):
    def scores():
        given = iter([0.4, 0.1, 0.1, 0.1])
        monkeypatch.setattr(trainer, "macro_average_precision", lambda *_: next(given, 0.5))

    scores()
    sharing.train_together(whole := start("whole"))
    scores()
    with monkeypatch.context() as patch:
        cut_at(patch, "end")
        with pytest.raises(Cut):
            sharing.train_together(start("here"))
    (tmp_path / "here").rename(tmp_path / "there")
    sharing.train_together(moved := start("there"))
    assert equal(weights(whole), weights(moved))


@pytest.mark.parametrize("damage", ["shorter", "no state", "no seal", "best"])
def test_a_checkpoint_that_is_not_whole_is_not_taken(tmp_path, damage):
    for step, best in ((5, 5), (10, 5), (15, 10)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "trainer_state.json").write_text(json.dumps({"best_global_step": best, "epoch": step / 5}))
        (folder / "optimizer.pt").write_bytes(bytes(100))
        files.seal(folder)
    assert sharing.last_whole(tmp_path) == tmp_path / "checkpoint-15"
    last = tmp_path / "checkpoint-15"
    if damage == "shorter":
        (last / "optimizer.pt").write_bytes(bytes(99))
    elif damage == "no state":
        (last / "trainer_state.json").unlink()
    elif damage == "no seal":
        (last / files.SEAL).unlink()
    else:
        (tmp_path / "checkpoint-10" / "optimizer.pt").unlink()
    expected = tmp_path / ("checkpoint-5" if damage == "best" else "checkpoint-10")
    assert sharing.last_whole(tmp_path) == expected
    assert sharing.last_whole(tmp_path / "none") is None


KILLED = """
import os, sys
sys.path[:0] = [{root!r}]
import torch
from helpers.__main__ import main

saved, save = [], torch.save

def half(thing, path):
    save(thing, path)
    saved.append(path)
    if "optimizer" in str(path) and str(path).count("checkpoint-15"):
        os.truncate(path, os.path.getsize(path) // 2)
        os._exit(9)

torch.save = half
main(sys.argv[1:])
"""


def arguments(run, output):
    options = {**OPTIONS, "batch_size": OPTIONS["train_batch_size"], "output_dir": output}
    del options["train_batch_size"]
    options |= {"dataset": run.settings.dataset, "checkpoint": run.settings.checkpoint}
    return ["train", *(f"--{name.replace('_', '-')}={value}" for name, value in options.items())]


@pytest.mark.all  # takes a while
def test_the_command_that_is_killed_while_it_saves_goes_on_when_it_is_given_again(start, tmp_path, capsys):
    whole, broken = start("whole"), start("broken")
    sharing.train_together(start("whole"))
    given = arguments(broken, tmp_path / "broken")
    script = [sys.executable, "-c", KILLED.format(root=str(ROOT)), *given]
    killed = subprocess.run(script, capture_output=True, text=True, check=False)
    assert killed.returncode == 9, killed.stderr
    assert (broken.folder.path / "checkpoints" / "checkpoint-15" / "model.safetensors").exists()
    assert command.main(given) == 0
    assert "going on after epoch 2, where" in capsys.readouterr().out
    assert equal(weights(whole), weights(broken))


def test_a_loss_that_is_not_finite_leaves_no_checkpoint(start, capsys, tmp_path):
    run = start("a", learning_rate=1e30)
    assert command.main([*arguments(run, tmp_path / "a"), "--learning-rate=1e30"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].endswith("lower LEARNING_RATE")
    assert not (run.folder.path / "checkpoints").exists()


# Two processes --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="torchrun fails on Windows, and on a Mac the GPU would be taken")
def test_the_command_in_two_processes_trains_the_model_of_one(start, small_csv, tmp_path, capfd):
    """43 and 7 rows, which neither 8 nor 2 divides; unknown cells, more of them in one half of a batch."""
    table = pd.read_csv(small_csv, keep_default_na=False)
    rows = {name: table["labels"].str.contains(name).astype(int).astype(str) for name in ("good", "bad", "ugly")}
    rows["good"][table.index % 3 == 0] = ""
    parts = ["train"] * 43 + ["validation"] * 7 + ["test"] * 10
    data = tmp_path / "partly.csv"
    pd.DataFrame({"text": table["text"], **rows, "split": parts}).to_csv(data, index=False)
    none = dict.fromkeys(("dropout", "attention_dropout", "seq_classif_dropout"), 0.0)
    checkpoint = tiny_checkpoint(tmp_path / "tiny", initializer_range=0.5, **none)
    options = {"dataset": str(data), "checkpoint": str(checkpoint), "unknown": True}
    alone, several = start("alone", **options), start("several", **options)
    assert command.main([*arguments(alone, tmp_path / "alone"), "--unknown"]) == 0
    one = capfd.readouterr().out
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    given = [*arguments(several, tmp_path / "several"), "--unknown"]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*torchrun, "-m", "helpers", *given], env=environment, capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r"^processes +2$", done.stdout, re.MULTILINE)
    epochs = [[line for line in text.splitlines() if re.match(r"epoch \d", line)] for text in (one, done.stdout)]
    assert len(epochs[0]) == 4
    assert epochs[0] == epochs[1], "losses and scores, to three digits, each printed once"
    ids = [run.folder.predictions()["id"].tolist() for run in (alone, several)]
    assert ids[0] == ids[1] == np.repeat(alone.splits["validation"]["id"][:], 3).tolist()
    y_prob = [run.folder.predictions("validation")[1] for run in (alone, several)]
    assert y_prob[0].std(axis=0).min() > 1e-3
    assert np.abs(y_prob[0] - y_prob[1]).max() < 1e-5
    one, two = weights(alone), weights(several)
    for name in one:
        if not name.endswith("k_lin.bias"):  # its gradient is 0 but for rounding, of which Adam makes whole steps
            assert torch.allclose(one[name], two[name], atol=1e-4), name
    assert several.folder.scores()["metric"].is_unique
    assert not (several.folder.path / "checkpoints").exists()
