from dataclasses import replace
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import changed, with_unknown
from torch.nn.functional import binary_cross_entropy_with_logits

from helpers import models, trainer, training
from helpers.data import UNKNOWN, label_matrix
from helpers.device import seed_everything
from helpers.runtime import start_run
from helpers.settings import ParameterError
from helpers.tokenization import MultiLabelCollator, tokenize_splits
from helpers.training import pos_weights


def build(run, **arguments):
    """A WeightedTrainer on the small data, without dropout."""
    seed_everything(run.settings.seed)
    model = models.load_model(
        run.checkpoint, run.label_names, dropout=0.0, attention_dropout=0.0, seq_classif_dropout=0.0
    )
    weights = pos_weights(label_matrix(run.splits["train"]), power=1)
    tokenizer = models.load_tokenizer(run.checkpoint)
    return trainer.build_trainer(run, model, tokenizer, weights, run.folder.path, **arguments)


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


def one_step(run, per_device, accumulate):
    built = build(
        run,
        per_device_train_batch_size=per_device,
        gradient_accumulation_steps=accumulate,
        max_steps=1,
        max_grad_norm=0.0,
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
    )
    built.optimizer = torch.optim.SGD(built.model.parameters(), lr=1.0)
    before = {name: p.detach().clone() for name, p in built.model.named_parameters()}
    built.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(built.optimizer, lambda step: 1.0)
    built.train()
    assert built.state.global_step == 1
    assert built.args.gradient_accumulation_steps == accumulate
    return torch.cat([(p.detach() - before[name]).flatten() for name, p in built.model.named_parameters()])


def test_two_accumulated_half_batches_equal_one(small_run):
    whole, halves = one_step(small_run, 8, 1), one_step(small_run, 4, 2)
    assert whole.norm() > 1e-3
    assert torch.allclose(whole, halves, atol=1e-6)


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


def test_two_accumulated_half_batches_equal_one_also_with_unknown_cells(small_run):
    """One half knows little, the other everything: a mean of the halves' means is something else."""
    run = with_unknown(small_run, share=0.0)
    part = run.splits["train"]
    rows = {text: i % 2 for i, text in enumerate(part["text"])}
    hide = [[UNKNOWN, UNKNOWN, value] for *_, value in label_matrix(part)]
    splits = type(run.splits)(run.splits)
    splits["train"] = part.map(
        lambda row, i: {"labels": hide[i] if rows[row["text"]] else row["labels"]}, with_indices=True
    )
    run = replace(run, splits=splits)
    whole, halves = one_step(run, 8, 1), one_step(run, 4, 2)
    assert whole.norm() > 1e-3
    assert torch.allclose(whole, halves, atol=1e-6)


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
