import copy
import json
import os
import subprocess
import sys
from dataclasses import replace
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, changed, with_unknown
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import Trainer

from helpers import models, trainer, training
from helpers.data import UNKNOWN, label_matrix
from helpers.device import seed_everything
from helpers.runtime import start_run
from helpers.settings import ParameterError
from helpers.tokenization import MultiLabelCollator, tokenize_splits
from helpers.training import pos_weights


def build(run, kind=None, **arguments):
    """A WeightedTrainer on the small data, without dropout; `kind` is another class in its place."""
    seed_everything(run.settings.seed)
    model = models.load_model(
        run.checkpoint, run.label_names, dropout=0.0, attention_dropout=0.0, seq_classif_dropout=0.0
    )
    weights = pos_weights(label_matrix(run.splits["train"]), power=1)
    tokenizer = models.load_tokenizer(run.checkpoint)
    with mock.patch.object(trainer, "WeightedTrainer", kind or trainer.WeightedTrainer):
        return trainer.build_trainer(run, model, tokenizer, weights, run.folder.path, **arguments)


def stock(**arguments):
    """The library's Trainer, in the place of the course's."""
    return lambda *args, pos_weight, **more: Trainer(*args, **more, **arguments)


def test_the_weighted_loss_changes_by_the_computed_amount(small_run):
    built = build(small_run)
    batch = built.data_collator([built.train_dataset[i] for i in range(6)])
    built.model.eval()
    with torch.inference_mode():
        loss = built.compute_loss(built.model, batch)
        logits = built.model(batch["input_ids"], batch["attention_mask"]).logits
    cells = binary_cross_entropy_with_logits(logits, batch["labels"], reduction="none")
    extra = ((built.pos_weight - 1) * cells * batch["labels"]).mean()
    assert extra.abs() > 1e-3
    assert loss.item() == pytest.approx((cells.mean() + extra).item(), rel=1e-5)


# Gradient accumulation and several processes --------------------------------------------------------------------------

SETTINGS = {"max_len": 32, "train_batch_size": 8, "valid_batch_size": 8, "epochs": 1, "learning_rate": 1e-3, "seed": 1}
ACCUMULATE = (1, 2, 4)


def plain_steps(run, accumulate, kind=None, n_gpu=1, **arguments):
    """An epoch of plain gradient descent by the Trainer, in micro-batches of two rows, and the same steps by hand.

    By hand each step takes the gradient of the mean loss over all known cells of all micro-batches, whichever process
    had them. `n_gpu`: as if this process had so many, which share each batch.

    Returns (change of the weights, the same by hand, known cells of each micro-batch, one list a step).
    """
    arguments |= {"gradient_accumulation_steps": accumulate, "per_device_train_batch_size": 2, "num_train_epochs": 1}
    built = build(
        run, kind, **arguments, max_grad_norm=0.0, eval_strategy="no", save_strategy="no", load_best_model_at_end=False
    )
    built.args._n_gpu = n_gpu
    own = copy.deepcopy(built.model).train()
    before = torch.nn.utils.parameters_to_vector(own.parameters()).detach()
    built.optimizer = torch.optim.SGD(built.model.parameters(), lr=0.3)
    built.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(built.optimizer, lambda step: 1.0)
    seen, training_step = [], built.training_step

    def watched(model, inputs, *more):
        seen.append((built.state.global_step, {name: tensor.clone() for name, tensor in inputs.items()}))
        return training_step(model, inputs, *more)

    built.training_step = watched
    built.train()
    assert built.args.gradient_accumulation_steps == accumulate
    if torch.distributed.is_initialized():
        of_each = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(of_each, seen)
        seen = [batch for batches in of_each for batch in batches]
    sgd = torch.optim.SGD(own.parameters(), lr=0.3)
    cells = [[] for _ in range(built.state.global_step)]
    for step, counts in enumerate(cells):
        total = 0
        for batch in (batch for number, batch in seen if number == step):
            logits, known = own(batch["input_ids"], batch["attention_mask"]).logits, batch["labels"] != UNKNOWN
            targets = batch["labels"].clamp(min=0)
            losses = binary_cross_entropy_with_logits(
                logits, targets, pos_weight=getattr(built, "pos_weight", None), reduction="none"
            )
            total = total + losses[known].sum()
            counts.append(int(known.sum()))
        sgd.zero_grad()
        (total / sum(counts)).backward()
        sgd.step()
    after, by_hand = (torch.nn.utils.parameters_to_vector(model.parameters()).detach() for model in (built.model, own))
    return after - before, by_hand - before, cells


def partly_known(run):
    """A run of 37 training rows, of which much is known here and little there."""
    run = with_unknown(run, share=0.4)
    splits = type(run.splits)(run.splits)
    splits["train"] = splits["train"].select([*range(37)])
    return replace(run, splits=splits)


def check_steps(change, by_hand, cells):
    counts = [count for step in cells for count in step]
    assert min(counts) < max(counts), "micro-batches of one size prove little"
    assert by_hand.norm() > 0.01
    assert (change - by_hand).abs().max() < 1e-5 * by_hand.norm()


@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize("accumulate", ACCUMULATE)
def test_a_step_has_the_gradient_of_all_its_cells_however_they_are_divided(small_run, accumulate, average):
    change, by_hand, cells = plain_steps(partly_known(small_run), accumulate, average_tokens_across_devices=average)
    assert [len(step) for step in cells[:-1]] == [accumulate] * (len(cells) - 1)
    assert sum(map(len, cells)) == 19
    check_steps(change, by_hand, cells)


@pytest.mark.parametrize("average", [True, False])
def test_two_gpus_of_one_process_have_it_too(small_run, average):
    check_steps(*plain_steps(partly_known(small_run), 2, n_gpu=2, average_tokens_across_devices=average))


def summed(outputs, labels, num_items_in_batch):
    mask = (labels != UNKNOWN).float()
    total = binary_cross_entropy_with_logits(outputs.logits, labels * mask, mask, reduction="sum")
    return total / num_items_in_batch


@pytest.mark.parametrize(("n_gpu", "times"), [(1, 1), (2, 2)])
def test_a_loss_function_in_the_place_of_the_subclass_is_twice_too_large_there(small_run, n_gpu, times):
    change, by_hand, _ = plain_steps(small_run, 2, stock(compute_loss_func=summed), n_gpu, max_steps=1)
    assert (change - times * by_hand).abs().max() < 1e-3 * by_hand.norm()


SEVERAL = """
import json, sys
sys.path[:0] = [{root!r}, {tests!r}]
import torch
import test_trainer
from helpers.runtime import start_run

torch.set_num_threads(1)
run = start_run("test", "movies", dataset={data!r}, checkpoint={checkpoint!r}, output_dir={folder!r}, **test_trainer.SETTINGS)
run, results = test_trainer.partly_known(run), []
for accumulate in test_trainer.ACCUMULATE:
    for average in (True, False):
        change, by_hand, cells = test_trainer.plain_steps(run, accumulate, average_tokens_across_devices=average)
        test_trainer.check_steps(change, by_hand, cells)
        results.append([accumulate, [len(step) for step in cells]])
if torch.distributed.get_rank() == 0:
    open({folder!r} + "/result.json", "w").write(json.dumps([torch.distributed.get_world_size(), results]))
torch.distributed.destroy_process_group()
"""


@pytest.mark.skipif(os.name == "nt", reason="torchrun's rendezvous is not supported by PyTorch's Windows builds")
def test_two_processes_have_it_too(small_csv, small_checkpoint, tmp_path):
    places = {"root": ROOT, "tests": ROOT / "tests", "data": small_csv, "checkpoint": small_checkpoint}
    text = SEVERAL.format(folder=str(tmp_path), **{name: str(place) for name, place in places.items()})
    (tmp_path / "several.py").write_text(text)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [sys.executable, *torchrun, str(tmp_path / "several.py")]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    processes, results = json.loads((tmp_path / "result.json").read_text())
    assert processes == 2
    for accumulate, micro_batches in results:
        assert set(micro_batches[:-1]) == {2 * accumulate}


# What is kept of an evaluation ----------------------------------------------------------------------------------------


def kept(run, kind, **arguments):
    """Shapes of what a Trainer keeps of a prediction with a model that returns its hidden states, too."""
    built = build(run, kind, **arguments)
    built.model.config.output_hidden_states, built.compute_metrics = True, None
    predictions = built.predict(built.eval_dataset).predictions
    return torch.utils._pytree.tree_map(np.shape, predictions)


def test_the_librarys_trainer_keeps_all_that_the_model_returns_and_ours_the_logits(small_run):
    n, n_labels = len(small_run.splits["validation"]), 3
    logits, states = kept(small_run, stock())
    assert logits == (n, n_labels)
    assert len(states) == 3, "of the embeddings and of two layers"
    assert {(rows, width) for rows, _, width in states} == {(n, 16)}, "rows x tokens x width"
    assert min(tokens for _, tokens, _ in states) > 5
    alone = stock(preprocess_logits_for_metrics=lambda outputs, labels: outputs[0])
    assert kept(small_run, alone) == kept(small_run, None) == (n, n_labels)


# Unknown labels -------------------------------------------------------------------------------------------------------


def test_the_loss_is_a_mean_over_known_cells(small_run):
    built = build(small_run)
    batch = built.data_collator([built.train_dataset[i] for i in range(6)])
    full = batch["labels"].clone()
    batch["labels"][:4, 0] = batch["labels"][5] = UNKNOWN
    known = batch["labels"] != UNKNOWN
    built.model.eval()
    with torch.inference_mode():
        loss = built.compute_loss(built.model, batch)
        logits = built.model(batch["input_ids"], batch["attention_mask"]).logits
    cells = binary_cross_entropy_with_logits(logits, full, pos_weight=built.pos_weight, reduction="none")
    assert loss.item() == pytest.approx(cells[known].mean().item(), rel=1e-5)
    _, counted = built.get_batch_samples(iter([batch, batch]), 2, built.args.device)
    assert counted == 2 * known.sum(), "what the Trainer divides by"
    batch["labels"][:] = UNKNOWN
    for n_items in (None, torch.tensor(0), 0):
        assert built.compute_loss(built.model, batch, num_items_in_batch=n_items).item() == 0


def test_losses_and_scores_of_partly_known_data_are_numbers_and_unknown_is_filed_as_it_is(small_run, capsys):
    run = with_unknown(small_run)
    trainer.fine_tune(run)
    y_true, y_prob = run.folder.predictions("validation")
    assert np.array_equal(y_true, label_matrix(run.splits["validation"]))
    assert (y_true == UNKNOWN).any()
    scores = run.folder.scores().set_index(["model", "metric"])["value"]
    assert np.isfinite(scores).all()
    assert scores["fine-tuned", "Hamming loss"] == ((y_prob >= 0.5) != y_true)[y_true != UNKNOWN].mean()
    assert "nan" not in capsys.readouterr().out


def test_five_steps_of_the_trainer_are_five_steps_of_the_loop_also_with_unknown_cells(small_run):
    test_five_steps_of_the_trainer_are_five_steps_of_the_loop(with_unknown(small_run))


# The whole of it ------------------------------------------------------------------------------------------------------


def test_the_trainer_learns_and_files_predictions_under_their_rows(small_run, monkeypatch):
    asked = []
    answer = pd.DataFrame({"threshold": [0.25, 0.5, 0.75]})
    monkeypatch.setattr(trainer, "trusted_thresholds", lambda *arrays: asked.extend(arrays) or answer)
    small_run = changed(small_run, epochs=20, learning_rate=5e-3, freeze=False)  # random layers know nothing
    folder = trainer.fine_tune(small_run)
    assert (folder / "model.safetensors").exists()
    y_true, y_prob = small_run.folder.predictions("validation")
    assert np.array_equal(y_true, label_matrix(small_run.splits["validation"]))
    scores = small_run.folder.scores().set_index(["model", "metric"])["value"]
    assert scores["fine-tuned", "macro-AP"] > y_true.mean() + 0.2
    again = models.load_model(folder).eval()
    assert np.array_equal(asked[0], y_true)
    assert np.allclose(asked[1], y_prob)
    assert [again.config.thresholds[name] for name in small_run.label_names] == [0.25, 0.5, 0.75]
    valid = small_run.splits["validation"]
    tokenized = tokenize_splits(small_run.splits, models.load_tokenizer(folder), small_run.settings.max_len)[
        "validation"
    ]
    batch = MultiLabelCollator(models.load_tokenizer(folder))([tokenized[i] for i in range(len(valid))])
    with torch.inference_mode():
        reloaded = torch.sigmoid(again(batch["input_ids"], batch["attention_mask"]).logits).numpy()
    assert np.allclose(reloaded, y_prob, atol=1e-5)


def test_the_model_on_the_embedded_encoder_reads_the_mean_and_any_other_the_first_token(small_run, monkeypatch):
    made = []
    monkeypatch.setattr(trainer, "build_trainer", lambda run, model, *_: made.append(model) or mock.MagicMock())
    monkeypatch.setattr(trainer, "save_results", lambda *_: None)
    trainer.fine_tune(small_run)
    trainer.fine_tune(replace(small_run, settings=replace(small_run.settings, checkpoint="embedded")))
    first, mean = (model.distilbert for model in made)
    assert (len(first.transformer.layer), len(mean.transformer.layer)) == (2, 7)
    assert not mean.transformer.layer[-1].attention.q_lin.weight.any()
    trained = [number for number, layer in enumerate(mean.transformer.layer) if layer.ffn.lin1.weight.requires_grad]
    assert trained == [4, 5], "what is trained is counted without the layer that only averages"


def test_fine_tuning_goes_on_from_an_own_model(small_run, small_csv, tmp_path, capsys):
    """From a folder that the course saved, block and head and all: no second block, the head is kept."""
    first = changed(small_run, epochs=1)
    model = models.add_mean_pooling(models.load_model(first.checkpoint, first.label_names))
    first.folder.save_model(model, models.load_tokenizer(first.checkpoint), [0.1, 0.2, 0.3])
    options = {"max_len": 32, "train_batch_size": 8, "valid_batch_size": 8, "epochs": 1, "seed": 1}
    run = start_run(
        "test", "movies", dataset=str(small_csv), checkpoint=str(first.folder.model), output_dir=tmp_path, **options
    )
    assert run.pooling == "mean"
    capsys.readouterr()
    again = models.load_model(trainer.fine_tune(run))
    assert "is for these labels in this order: it is kept" in capsys.readouterr().out
    assert again.config.n_layers == 3
    assert not again.distilbert.transformer.layer[2].attention.q_lin.weight.any()
    assert list(again.config.thresholds) == run.label_names
    assert models.load_tokenizer(run.folder.model).model_max_length == 32


def test_fine_tune_reuses_the_model_that_is_there(small_run, monkeypatch):
    small_run.folder.model.mkdir(parents=True)
    monkeypatch.setattr(trainer, "build_trainer", lambda *_: pytest.fail("trained again"))
    assert trainer.fine_tune(small_run) == small_run.folder.model


def test_training_arguments_tell_no_service_and_write_no_pickle(small_run):
    arguments = trainer.training_arguments(small_run.settings, small_run.compute, small_run.folder.path)
    assert arguments.report_to == []
    assert not arguments.push_to_hub
    assert arguments.load_best_model_at_end
    assert not arguments.fp16


def test_nothing_is_uploaded_unless_one_asks(small_run, monkeypatch):
    for name in ("create_repo", "create_commit", "upload_folder", "upload_file"):
        monkeypatch.setattr(f"huggingface_hub.HfApi.{name}", lambda *args, name=name, **more: pytest.fail(name))
    trainer.fine_tune(changed(small_run, epochs=1))
    assert small_run.folder.model.exists()


def test_a_folder_that_cannot_be_written_is_noticed_before_training(small_run, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    small_run.folder.path = tmp_path / "file" / "run"
    monkeypatch.setattr(trainer, "build_trainer", lambda *_: pytest.fail("time was spent on training"))
    with pytest.raises(ParameterError, match=r"OUTPUT_DIR .* cannot be written \(.*\); choose another folder"):
        trainer.fine_tune(small_run)


def test_five_steps_of_the_trainer_are_five_steps_of_the_loop(small_run):
    """The same batches, losses and weights, step by step: fp32, no dropout."""
    run = changed(small_run, epochs=1, seed=3)
    built = build(run, max_steps=5, eval_strategy="no", save_strategy="no", load_best_model_at_end=False)
    library, own = built.model, models.DistilBERTClass(run.checkpoint, 3, dropout=0.0)
    own.encoder.load_state_dict(library.distilbert.state_dict())
    own.pre_classifier.load_state_dict(library.pre_classifier.state_dict())
    own.classifier.load_state_dict(library.classifier.state_dict())
    for module in own.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    losses, compute_loss = [], built.compute_loss

    def watched(*args, **kwargs):
        loss = compute_loss(*args, **kwargs)
        losses.append(loss.item())
        return loss

    built.compute_loss = watched
    built.train()
    tokenizer = models.load_tokenizer(run.checkpoint)
    loader = training.make_loader(run.splits["train"], tokenizer, run.settings, train=True)
    optimizer, scheduler = training.optimizer_and_schedule(own, run.settings.learning_rate, steps=5)
    batches = list(loader)[:5]
    loop = [
        training.train_one_epoch(own, [batch], optimizer, scheduler, built.pos_weight, run.compute) for batch in batches
    ]
    assert losses == pytest.approx(loop, abs=1e-5)
    assert max(loop) - min(loop) > 1e-3, "the steps differ"
    ours, theirs = own.classifier.weight, library.classifier.weight
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_loss_that_is_not_finite_stops_the_trainer_with_the_loops_message(small_run):
    built = build(changed(small_run, epochs=1))
    train, steps = built.compute_loss, []

    def poisoned(model, inputs, **more):
        steps.append(None)
        if len(steps) == 3:
            with torch.no_grad():
                model.classifier.bias[1] = float("nan")
        return train(model, inputs, **more)

    built.compute_loss = poisoned
    with pytest.raises(FloatingPointError, match=r"^the loss after 2 steps is nan: lower LEARNING_RATE$"):
        built.train()
    assert len(steps) == 3


def test_a_rate_that_is_far_too_high_is_named_also_where_only_the_evaluation_finds_out(small_run):
    built = build(changed(small_run, learning_rate=1e30), max_steps=1, warmup_steps=0)
    with pytest.raises(FloatingPointError, match=r"^the loss after 1 steps is (nan|inf): lower LEARNING_RATE$"):
        built.train()


def test_label_smoothing_is_refused_and_not_passed_over(small_run):
    with pytest.raises(ValueError, match="^label_smoothing_factor has no part in this loss; leave it at 0$"):
        build(small_run, label_smoothing_factor=0.1)


def test_both_trainings_warm_up_for_the_same_number_of_steps(small_run):
    built = build(small_run)
    for steps in (5, 12, 15, 168, 279, 280, 375):
        model = models.DistilBERTClass(small_run.checkpoint, 3)
        _, scheduler = training.optimizer_and_schedule(model, 1.0, steps)
        warm_up = built.args.get_warmup_steps(steps)
        rate = scheduler.lr_lambdas[0]
        assert rate(warm_up) == 1
        assert rate(warm_up - 1) < 1
