import json
import os
import random
import signal
import subprocess
import sys
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, changed, with_unknown
from safetensors.torch import load_file
from torch.nn.functional import binary_cross_entropy_with_logits

from helpers import models, trainer, training
from helpers.data import UNKNOWN, label_matrix
from helpers.device import seed_everything
from helpers.settings import ParameterError
from helpers.tokenization import MultiLabelCollator


def test_pos_weights_by_hand_capped_and_named(capsys):
    y = np.array([[1, 0, 1]] * 2 + [[0, 0, 1]] * 6)
    weights = training.pos_weights(y, ["a", "never", "always"], power=1, cap=50)
    assert weights.tolist() == [3.0, 50.0, 0.0]
    assert weights.dtype == torch.float32
    assert "label never: 0 positives" in capsys.readouterr().out
    assert training.pos_weights(y, power=0.5, cap=50)[0] == pytest.approx(3**0.5)


def test_pos_weights_count_known_cells(capsys):
    y = np.array([[1, 0, -100]] * 2 + [[0, -100, -100]] * 6 + [[-100, 1, -100]] * 2, dtype=np.float32)
    assert training.pos_weights(y, ["a", "b", "nowhere"], power=1).tolist() == [3.0, 1.0, 0.0]
    assert capsys.readouterr().out == ""


def some_cells(n_rows=7, n_labels=5):
    """logits, targets without and with unknown cells, and weights."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(n_rows, n_labels, generator=generator) * 4
    targets = (torch.rand(n_rows, n_labels, generator=generator) < 0.4).float()
    hidden = torch.rand(n_rows, n_labels, generator=generator) < 0.3
    assert hidden.any()
    return logits.requires_grad_(), targets, targets.masked_fill(hidden, UNKNOWN), torch.rand(n_labels) + 1


@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_is_the_mean_over_known_cells(weighted):
    logits, full, partly, pos_weight = some_cells()
    pos_weight = pos_weight if weighted else None
    for targets in (full, partly):
        known = targets != UNKNOWN
        cells = binary_cross_entropy_with_logits(logits, full, pos_weight=pos_weight, reduction="none")
        losses = training.loss_fn(logits, targets, pos_weight), cells[known].mean()
        gradients = [torch.autograd.grad(loss, logits)[0] for loss in losses]
        assert torch.allclose(*losses)
        assert torch.allclose(*gradients, atol=1e-7)
        assert (gradients[0][~known] == 0).all()
        assert (gradients[0][known] != 0).all()


@pytest.mark.parametrize("weighted", [False, True])
def test_without_unknown_cells_the_loss_is_the_librarys_bit_for_bit(weighted):
    logits, targets, _, pos_weight = some_cells()
    pos_weight = pos_weight if weighted else None
    losses = [f(logits, targets, pos_weight=pos_weight) for f in (training.loss_fn, binary_cross_entropy_with_logits)]
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in losses]
    assert torch.equal(*losses)
    assert torch.equal(*gradients)


def test_the_loss_of_nothing_known_is_0_and_so_is_its_gradient():
    logits = some_cells()[0]
    loss = training.loss_fn(logits, torch.full_like(logits, UNKNOWN))
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


def test_parameter_groups_hold_every_parameter_once(small_checkpoint):
    for model in (models.DistilBERTClass(small_checkpoint, 3), models.load_model(small_checkpoint, list("abc"))):
        groups = training.parameter_groups(model, 1e-4)
        inside = [id(p) for group in groups for p in group["params"]]
        assert len(inside) == len(set(inside)) == len(list(model.parameters()))
        head = {id(p) for p in [*model.classifier.parameters(), *model.pre_classifier.parameters()]}
        for group in groups:
            in_head = {id(p) in head for p in group["params"]}
            assert len(in_head) == 1
            assert group["lr"] == pytest.approx(1e-3 if in_head.pop() else 1e-4)
            assert all((p.ndim > 1) == (group["weight_decay"] > 0) for p in group["params"])


def test_a_recipe_is_varied_by_arguments(small_run):
    model = models.DistilBERTClass(small_run.checkpoint, 3)
    rates = {group["lr"] for group in training.parameter_groups(model, 1.0, head_rate=3)}
    assert rates == {1.0, 3.0}
    tokenizer, asked = models.load_tokenizer(small_run.checkpoint), []

    class Backwards(torch.utils.data.Sampler):
        def __init__(self, batch_size, lengths, generator):
            asked.append((batch_size, len(lengths), generator.initial_seed()))
            self.rows = range(len(lengths) - 1, -1, -1)

        def __iter__(self):
            return iter(self.rows)

    part = small_run.splits["train"]
    loader = training.make_loader(part, tokenizer, small_run.settings, True, sampler=Backwards)
    assert torch.equal(next(iter(loader))["labels"][0], torch.tensor(label_matrix(part)[-1]))
    assert asked == [(8, len(part), 1)]
    moved = {}
    for max_norm in (0.0, 1e-3, float("inf")):
        model = without_dropout(small_run)
        before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
        one_batch = [next(iter(loader))]
        training.train_one_epoch(model, one_batch, optimizer, scheduler, None, small_run.compute, max_norm=max_norm)
        moved[max_norm] = (torch.cat([p.detach().flatten() for p in model.parameters()]) - before).norm().item()
    assert moved[0.0] == 0
    assert moved[1e-3] == pytest.approx(1e-3, rel=0.01)
    assert moved[float("inf")] > 0.1


def fit_once(run):
    seed_everything(run.settings.seed)
    splits = run.splits
    tokenizer = models.load_tokenizer(run.checkpoint)
    model = models.DistilBERTClass(run.checkpoint, len(run.label_names))
    train, valid = (
        training.make_loader(splits["train"], tokenizer, run.settings, True),
        training.make_loader(splits["validation"], tokenizer, run.settings, False),
    )
    history = training.fit(model, train, valid, run, training.pos_weights(label_matrix(splits["train"])))
    return model, history, training.validation(model, valid, run.compute)


def test_fit_learns_keeps_the_best_epoch_and_repeats_bit_for_bit(small_run):
    small_run = changed(small_run, epochs=12, learning_rate=5e-3)
    model, history, (y_true, y_prob) = fit_once(small_run)
    scores = [row["validation macro-AP"] for row in history]
    assert history[-1]["training loss"] < history[0]["training loss"]
    assert max(scores) > y_true.mean() + 0.2
    assert training.macro_average_precision(y_true, y_prob) == pytest.approx(max(scores))
    assert np.array_equal(y_true, label_matrix(small_run.splits["validation"]))
    again, _, _ = fit_once(small_run)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))


def test_a_loss_that_is_not_finite_stops_the_loop(small_run):
    splits = small_run.splits
    model = models.DistilBERTClass(small_run.checkpoint, 3)
    with torch.no_grad():
        model.classifier.weight.fill_(float("nan"))
    loader = training.make_loader(
        splits["train"], models.load_tokenizer(small_run.checkpoint), small_run.settings, True
    )
    with pytest.raises(FloatingPointError, match="the loss of batch 1 is nan: lower LEARNING_RATE"):
        training.fit(model, loader, loader, small_run)


def test_the_lower_half_is_frozen_and_only_that(small_checkpoint):
    for model in (models.DistilBERTClass(small_checkpoint, 3), models.load_model(small_checkpoint, list("abc"))):
        assert training.freeze_lower_layers(model) == 1
        frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
        assert frozen == {name for name, _ in model.named_parameters() if ".embeddings." in name or ".layer.0." in name}
        encoder = getattr(model, getattr(model, "base_model_prefix", "encoder")).train()
        one, other = (encoder(torch.arange(5, 25)[None], output_hidden_states=True).hidden_states for _ in range(2))
        assert torch.equal(one[1], other[1]), "dropout in a layer that does not learn"
        assert not torch.equal(one[2], other[2]), "no dropout in a layer that learns"


def test_the_same_layers_are_trained_from_an_own_model_that_reads_the_mean(embedded, tmp_path):
    """As from the encoder without the block; the block is not taken for the top layer."""
    base = models.load_model(embedded, ["a", "b"])
    assert training.freeze_lower_layers(base) == 4
    expected = {name for name, p in models.add_mean_pooling(base).named_parameters() if p.requires_grad}
    assert {name.split(".")[3] for name in expected if ".layer." in name} == {"4", "5"}
    base.save_pretrained(tmp_path)
    again = models.load_model(tmp_path, ["a", "b"])
    assert training.freeze_lower_layers(again) == 4
    assert {name for name, p in models.add_mean_pooling(again).named_parameters() if p.requires_grad} == expected
    own = models.DistilBERTClass(tmp_path, 2)
    assert training.freeze_lower_layers(own) == 4
    trained = {name for name, p in models.add_mean_pooling(own).encoder.named_parameters() if p.requires_grad}
    assert {f"distilbert.{name}" for name in trained} == {name for name in expected if name.startswith("distilbert.")}


def test_batches_hold_similar_lengths_and_come_in_random_order():
    lengths = np.random.default_rng(0).integers(1, 100, 803).tolist()
    sampler = training.ShuffledLengthGroupedSampler(8, lengths=lengths, generator=torch.Generator().manual_seed(0))
    first, second = list(sampler), list(sampler)
    assert sorted(first) == sorted(second) == list(range(803)) != first != second
    assert len(sampler) == 803
    batches = [[lengths[row] for row in batch] for batch in training.in_groups(first, 8)]
    assert [len(batch) for batch in batches] == [8] * 100 + [3]
    assert np.mean([max(batch) - min(batch) for batch in batches]) < 10
    shorter = np.diff([np.mean(batch) for batch in batches[:-1]]) < 0
    assert 0.3 < shorter.mean() < 0.7, "batches run from long to short"


# The loop -------------------------------------------------------------------------------------------------------------


def without_dropout(run):
    seed_everything(run.settings.seed)
    model = models.DistilBERTClass(run.checkpoint, len(run.label_names), dropout=0.0)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def an_epoch(run, batch_size, accumulate, y=None):
    """Change of all weights in one epoch of plain gradient descent over 37 rows, in the order of the rows."""
    splits, tokenizer = run.splits, models.load_tokenizer(run.checkpoint)
    part = splits["train"].select(range(len(splits["train"]) // 8 * 8 - 3))  # the last group is short
    y = label_matrix(part) if y is None else y[: len(part)]
    data = training.MultiLabelDataset(part["text"], y, tokenizer, run.settings.max_len)
    loader = torch.utils.data.DataLoader(data, batch_size=batch_size, collate_fn=MultiLabelCollator(tokenizer))
    model = without_dropout(run)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    loss = training.train_one_epoch(model, loader, optimizer, scheduler, None, run.compute, accumulate)
    return torch.cat([p.detach().flatten() for p in model.parameters()]) - before, loss


def test_accumulated_batches_equal_whole_ones_also_when_the_last_is_short(small_run):
    whole, loss = an_epoch(small_run, 8, 1)
    parts, loss_in_parts = an_epoch(small_run, 2, 4)
    assert whole.norm() > 1e-2
    assert torch.allclose(whole, parts, rtol=0, atol=1e-6)
    assert loss == pytest.approx(loss_in_parts, abs=1e-6)


def test_accumulated_batches_equal_whole_ones_also_with_unknown_cells(small_run):
    """Half batches with 0, 1 and all of their cells known; a whole batch of which nothing is known."""
    y = label_matrix(small_run.splits["train"])
    y[np.random.default_rng(0).random(y.shape) < 0.3] = UNKNOWN
    y[:4] = y[8:16] = UNKNOWN
    y[4:6, 1:] = y[5] = UNKNOWN
    y[6:8] = 1
    whole, loss = an_epoch(small_run, 8, 1, y)
    parts, loss_in_parts = an_epoch(small_run, 2, 4, y)
    assert whole.norm() > 1e-2
    assert torch.allclose(whole, parts, rtol=0, atol=1e-6)
    assert loss == pytest.approx(loss_in_parts, abs=1e-6)
    assert 0.5 < loss < 1, "a mean over cells"


def test_a_first_batch_of_which_nothing_is_known_changes_no_weight(small_run):
    y = np.full_like(label_matrix(small_run.splits["train"]), UNKNOWN)
    change, loss = an_epoch(small_run, 8, 1, y)
    assert (change == 0).all()
    assert loss == 0


def test_an_epoch_with_unknown_cells_is_one_on_the_known_cells_alone(small_run):
    y = label_matrix(small_run.splits["train"])
    y[::2, 0] = y[1::2, 1] = UNKNOWN
    change, loss = an_epoch(small_run, 64, 1, y)
    part, tokenizer = small_run.splits["train"], models.load_tokenizer(small_run.checkpoint)
    n = len(part) // 8 * 8 - 3
    inputs = MultiLabelCollator(tokenizer)(
        [
            {**item, "labels": y[i]}
            for i, item in enumerate(training.MultiLabelDataset(part["text"][:n], y[:n], tokenizer, 32))
        ]
    )
    model = without_dropout(small_run).train()
    logits, known = model(inputs["input_ids"], inputs["attention_mask"]), inputs["labels"] != UNKNOWN
    by_hand = binary_cross_entropy_with_logits(logits[known], inputs["labels"][known])
    by_hand.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert loss == pytest.approx(by_hand.item(), abs=1e-6)
    assert torch.allclose(change, -0.5 * gradient, rtol=0, atol=1e-6)


def test_fit_learns_from_known_cells_and_its_scores_are_numbers(small_run):
    run = with_unknown(changed(small_run, epochs=12, learning_rate=5e-3))
    _, history, (y_true, y_prob) = fit_once(run)
    assert (y_true == UNKNOWN).any()
    assert np.isfinite(y_prob).all()
    values = [[row["training loss"], row["validation macro-AP"]] for row in history]
    assert np.isfinite(values).all()
    assert 0 < history[-1]["training loss"] < history[0]["training loss"] < 2
    assert max(score for _, score in values) > (y_true == 1).sum() / (y_true != UNKNOWN).sum() + 0.2


def test_fit_calls_the_epoch_it_is_given_and_takes_the_validation_loss(small_run):
    """The given one trains on nothing, so the model that is validated is the one that was passed."""
    tokenizer, splits = models.load_tokenizer(small_run.checkpoint), small_run.splits
    loaders = [
        training.make_loader(splits[n], tokenizer, small_run.settings, n == "train") for n in ("train", "validation")
    ]
    model, pos_weight = without_dropout(small_run), torch.tensor([1.0, 3.0, 9.0])
    called = []

    def no_epoch(*arguments):
        called.append([type(argument).__name__ for argument in arguments])
        return 0.25

    history = training.fit(model, *loaders, small_run, pos_weight, train_one_epoch=no_epoch)
    assert [row["training loss"] for row in history] == [0.25, 0.25]
    assert called[0][:4] == ["DistilBERTClass", "DataLoader", "AdamW", "LambdaLR"]
    whole = loaders[1].collate_fn([loaders[1].dataset[i] for i in range(len(loaders[1].dataset))])
    with torch.inference_mode():
        logits = model.eval()(whole["input_ids"], whole["attention_mask"])
    expected = training.loss_fn(logits, whole["labels"], pos_weight).item()
    assert history[-1]["validation loss"] == pytest.approx(expected, abs=1e-5)
    sure = np.array([[1.0, 0.0]], dtype=np.float32), np.array([[0.0, 1.0]], dtype=np.float32)
    assert training.loss_of_probabilities(*sure) == pytest.approx(-np.log(1e-7), abs=1e-3)


KILLED = """
import os, signal, sys
sys.path[:0] = [{root!r}, {tests!r}]
import torch
from helpers import models, training
from helpers.data import label_matrix
from helpers.device import seed_everything
from helpers.runtime import start_run

torch.set_num_threads(1)
run = start_run("test", "movies", dataset={data!r}, checkpoint={checkpoint!r}, max_len=32, train_batch_size=8,
                valid_batch_size=8, epochs=4, learning_rate=5e-3, seed=1, output_dir=sys.argv[1])
events, last = 0, int(sys.argv[2])

def counted(function):
    def call(*args, **kwargs):
        global events
        events += 1
        if events == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call

os.replace = counted(os.replace)
training.save_file = counted(training.save_file)
torch.nn.utils.clip_grad_norm_ = counted(torch.nn.utils.clip_grad_norm_)
seed_everything(run.settings.seed)
splits, tokenizer = run.splits, models.load_tokenizer(run.checkpoint)
model = models.DistilBERTClass(run.checkpoint, 3)
loaders = [training.make_loader(splits[name], tokenizer, run.settings, name == "train") for name in ("train", "validation")]
history = training.fit(model, *loaders, run, training.pos_weights(label_matrix(splits["train"])))
print("events", events)
training.save_file(model.state_dict(), sys.argv[1] + "/final.safetensors")
print([row["training loss"] for row in history], sorted(path.name for path in run.folder.path.iterdir() if path.suffix != ".lock"))
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signal that kills a process at once")
def test_training_that_is_killed_at_any_moment_ends_with_the_same_weights(small_csv, small_checkpoint, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        KILLED.format(root=str(ROOT), tests=str(ROOT / "tests"), data=str(small_csv), checkpoint=str(small_checkpoint))
    )

    def train(folder, last):
        (tmp_path / folder).mkdir(exist_ok=True)
        command = [sys.executable, str(script), str(tmp_path / folder), str(last)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    whole = train("whole", -1)
    assert whole.returncode == 0, whole.stderr
    events = int(whole.stdout.split("events ")[1].split()[0])
    # in the first epoch; then, each time going on from what is there, anywhere in what is left
    generator, moments = random.Random(0), [3]
    for moment in (moments[0], *(generator.randrange(4, events // 2) for _ in range(3))):
        killed = train("broken", moment)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    broken = train("broken", -1)
    assert broken.returncode == 0, broken.stderr
    assert "going on after epoch" in broken.stdout
    assert broken.stdout.splitlines()[-1] == whole.stdout.splitlines()[-1], "the same losses; nothing is left over"
    a, b = (load_file(tmp_path / folder / "final.safetensors") for folder in ("whole", "broken"))
    assert all(torch.equal(a[name], b[name]) for name in a)


TOGETHER = """
import sys
sys.path.insert(0, {root!r})
import torch
from accelerate import Accelerator, DataLoaderConfiguration
from helpers import models, training
from helpers.data import label_matrix
from helpers.device import seed_everything
from helpers.runtime import start_run

torch.set_num_threads(1)
several = sys.argv[2] == "several"
accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(split_batches=True)) if several else None
run = start_run("test", "movies", dataset={data!r}, checkpoint={checkpoint!r}, max_len=32, train_batch_size=8,
                valid_batch_size=8, epochs=4, learning_rate=1e-3, seed=1, output_dir=sys.argv[1])
seed_everything(run.settings.seed)
splits, tokenizer = run.splits, models.load_tokenizer(run.checkpoint)
model = models.DistilBERTClass(run.checkpoint, 3)
for module in model.modules():
    if isinstance(module, torch.nn.Dropout):
        module.p = 0.0
if several and not accelerator.is_main_process:
    run.folder.writing = None  # only the first process writes
rows = 0
model.register_forward_pre_hook(lambda model, inputs: globals().update(rows=rows + len(inputs[0]) * model.training))
loaders = [training.make_loader(splits[name], tokenizer, run.settings, name == "train") for name in ("train", "validation")]
history = training.fit(model, *loaders, run, training.pos_weights(label_matrix(splits["train"])), accelerator=accelerator)
if accelerator:
    accelerator.wait_for_everyone()
if not accelerator or accelerator.is_main_process:
    text = json.dumps([rows, history, [path.name for path in run.folder.path.iterdir() if path.suffix != ".lock"]])
    open(sys.argv[1] + "/result.json", "w").write(text)
    training.save_file(model.state_dict(), sys.argv[1] + "/final.safetensors")
""".replace("import sys", "import json, sys", 1)


@pytest.mark.skipif(os.name == "nt", reason="torchrun's rendezvous is not supported by PyTorch's Windows builds")
def test_two_processes_have_the_loss_curve_of_one(small_csv, small_checkpoint, tmp_path):
    table = pd.read_csv(small_csv, keep_default_na=False)
    data = tmp_path / "split.csv"
    table.assign(split=["train"] * 40 + ["validation"] * 10 + ["test"] * 10).to_csv(data, index=False)
    script = tmp_path / "train.py"
    script.write_text(TOGETHER.format(root=str(ROOT), data=str(data), checkpoint=str(small_checkpoint)))
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    results, weights = {}, {}
    for kind, launcher in (("alone", []), ("several", torchrun)):
        (tmp_path / kind).mkdir()
        command = [sys.executable, *launcher, str(script), str(tmp_path / kind), kind]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
        )
        assert done.returncode == 0, done.stderr[-3000:]
        results[kind] = json.loads((tmp_path / kind / "result.json").read_text())
        weights[kind] = load_file(tmp_path / kind / "final.safetensors")
    (rows, history, _), (half, shared, left) = results["alone"], results["several"]
    assert (rows, half) == (160, 80), "each process trains on half of every batch"
    assert left == [], "what was written on the way is gone"
    for name in ("training loss", "validation macro-AP"):
        assert [row[name] for row in shared] == pytest.approx([row[name] for row in history], abs=1e-4)
    assert history[-1]["training loss"] < history[0]["training loss"] - 0.01
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(*(w.values() for w in weights.values()), strict=True))


def test_training_stops_when_nothing_gets_better(small_run, monkeypatch):
    scores = iter([0.5, 0.6, 0.4, 0.6, 0.9])
    monkeypatch.setattr(training, "macro_average_precision", lambda *_: next(scores))
    small_run = changed(small_run, epochs=5)
    splits, tokenizer = small_run.splits, models.load_tokenizer(small_run.checkpoint)
    loaders = [
        training.make_loader(splits[n], tokenizer, small_run.settings, n == "train") for n in ("train", "validation")
    ]
    history = training.fit(models.DistilBERTClass(small_run.checkpoint, 3), *loaders, small_run, patience=2)
    assert len(history) == 4
    assert training.best_epoch(history) == 2


@pytest.mark.parametrize(
    ("scores", "hinted"),
    [([0.5, 0.6, 0.65], True), ([0.5, 0.645, 0.65], False), ([0.5, 0.7, 0.65], False), ([0.5], False), ([], False)],
)
def test_more_epochs_are_hinted_at_where_the_last_one_is_the_best_by_a_margin(scores, hinted, capsys):
    training.hint_at_more_epochs(scores)
    told = capsys.readouterr().out
    assert told == (
        "the last epoch is the best, by 0.050: a higher EPOCHS than 3 may give a better model\n" if hinted else ""
    )


def test_both_trainings_hint_at_more_epochs(small_run, monkeypatch, capsys):
    scores = iter([0.1, 0.5, 0.1, 0.5])
    for module in (training, trainer):
        monkeypatch.setattr(module, "macro_average_precision", lambda *_: next(scores, 0.5))
    small_run = changed(small_run, epochs=2)
    fit_once(small_run)
    trainer.fine_tune(small_run)
    assert capsys.readouterr().out.count("a higher EPOCHS than 2 may give a better model") == 2


def test_another_training_is_not_taken_up(small_run, monkeypatch):
    """What was cut off with one learning rate or one weighting is no start for another."""
    splits, tokenizer = small_run.splits, models.load_tokenizer(small_run.checkpoint)
    loaders = [
        training.make_loader(splits[n], tokenizer, small_run.settings, n == "train") for n in ("train", "validation")
    ]
    monkeypatch.setattr(training.TrainingState, "finish", mock.Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        training.fit(models.DistilBERTClass(small_run.checkpoint, 3), *loaders, small_run)
    assert (small_run.folder.path / "last.safetensors").exists()
    model = models.DistilBERTClass(small_run.checkpoint, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    state = training.TrainingState(
        small_run.folder, small_run.compute, model, optimizer, mock.Mock(), loaders[0], ["other"]
    )
    assert state.resume() == []


@pytest.mark.parametrize("fault", ["too long", "another head", "no rows", "folder"])
def test_what_can_only_fail_is_refused_before_training(small_run, fault, tmp_path):
    splits, tokenizer = small_run.splits, models.load_tokenizer(small_run.checkpoint)
    loader = training.make_loader(splits["train"], tokenizer, small_run.settings, True)
    model = models.DistilBERTClass(small_run.checkpoint, 4 if fault == "another head" else 3)
    message = {
        "too long": "MAX_LEN is 65, and the model reads at most 64 tokens; lower it",
        "another head": "the model's head has 4 outputs and the data have 3 labels; build it anew",
        "no rows": "the training split is empty; give DATASET rows for it",
        "folder": r"OUTPUT_DIR .*cannot be written \(.*\); choose another folder",
    }[fault]
    if fault == "too long":
        object.__setattr__(small_run.settings, "max_len", 65)  # as if the settings were another checkpoint's
    if fault == "no rows":
        loader = torch.utils.data.DataLoader([])
    if fault == "folder":
        (tmp_path / "file").write_text("in the way")
        small_run.folder.path = tmp_path / "file" / "run"
    with pytest.raises(ParameterError, match=message):
        training.fit(
            model,
            loader,
            loader,
            small_run,
            train_one_epoch=lambda *_: pytest.fail("time was spent on training"),
        )


@pytest.mark.parametrize("train", [True, False])
def test_an_empty_split_is_refused_before_it_is_tokenized(small_run, train):
    tokenizer, name = models.load_tokenizer(small_run.checkpoint), "training" if train else "validation"
    with pytest.raises(ParameterError, match=f"the {name} split is empty; give DATASET rows for it"):
        training.make_loader(small_run.splits["train"].select([]), tokenizer, small_run.settings, train)
