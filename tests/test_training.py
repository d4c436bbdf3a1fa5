import dataclasses
from unittest import mock

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from helpers import models, training
from helpers.data import label_matrix
from helpers.runtime import seed_everything
from helpers.tokenization import MultiLabelCollator, tokenize_splits


def build(run, **changes):
    """A WeightedTrainer on the small data, without dropout and without shuffling by length."""
    seed_everything(run.seed)
    model = models.load_model(
        run.checkpoint_path, run.label_names, dropout=0.0, attention_dropout=0.0, seq_classif_dropout=0.0
    )
    splits = run.load_splits()
    weights = training.pos_weights(label_matrix(splits["train"]), power=1)
    arguments = dataclasses.replace(training.training_arguments(run, run.folder), **changes)
    with mock.patch.object(training, "training_arguments", return_value=arguments):
        return training.build_trainer(
            run, model, models.load_tokenizer(run.checkpoint_path), splits, weights, run.folder
        )


def test_pos_weights_by_hand_capped_and_named(capsys):
    y = np.array([[1, 0, 1]] * 2 + [[0, 0, 1]] * 6)
    weights = training.pos_weights(y, ["a", "never", "always"], power=1, cap=50)
    assert weights.tolist() == [3.0, 50.0, 0.0]
    assert weights.dtype == torch.float32
    assert "label never: 0 positives" in capsys.readouterr().out
    assert training.pos_weights(y, power=0.5, cap=50)[0] == pytest.approx(3**0.5)


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


def test_the_weighted_loss_changes_by_the_computed_amount(small_run):
    trainer = build(small_run)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(6)])
    trainer.model.eval()
    with torch.inference_mode():
        loss = trainer.compute_loss(trainer.model, batch)
        logits = trainer.model(batch["input_ids"], batch["attention_mask"]).logits
    cells = binary_cross_entropy_with_logits(logits, batch["labels"], reduction="none")
    extra = ((trainer.pos_weight - 1) * cells * batch["labels"]).mean()
    assert extra.abs() > 1e-3
    assert loss.item() == pytest.approx((cells.mean() + extra).item(), rel=1e-5)


def one_step(run, per_device, accumulate):
    trainer = build(
        run,
        per_device_train_batch_size=per_device,
        gradient_accumulation_steps=accumulate,
        max_steps=1,
        max_grad_norm=0.0,
        train_sampling_strategy="sequential",
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
    )
    trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=1.0)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(trainer.optimizer, lambda step: 1.0)
    trainer.train()
    return torch.cat([(p.detach() - before[name]).flatten() for name, p in trainer.model.named_parameters()])


def test_two_accumulated_half_batches_equal_one(small_run):
    whole, halves = one_step(small_run, 8, 1), one_step(small_run, 4, 2)
    assert whole.norm() > 1e-3
    assert torch.allclose(whole, halves, atol=1e-6)


def test_the_trainer_learns_and_files_predictions_under_their_rows(small_run, monkeypatch):
    monkeypatch.setattr(small_run, "epochs", 20)
    monkeypatch.setattr(small_run, "freeze", False)  # random layers know nothing worth keeping
    monkeypatch.setattr(small_run, "learning_rate", 5e-3)
    folder = training.fine_tune(small_run)
    assert (folder / "model.safetensors").exists()
    y_true, y_prob = small_run.predictions("validation")
    assert np.array_equal(y_true, label_matrix(small_run.load_splits()["validation"]))
    scores = small_run.scores().set_index(["model", "metric"])["value"]
    assert scores["fine-tuned", "macro-AP"] > y_true.mean() + 0.2
    again = models.load_model(folder).eval()
    valid = small_run.load_splits()["validation"]
    tokenized = tokenize_splits(small_run.load_splits(), models.load_tokenizer(folder), small_run.max_len)["validation"]
    batch = MultiLabelCollator(models.load_tokenizer(folder))([tokenized[i] for i in range(len(valid))])
    with torch.inference_mode():
        reloaded = torch.sigmoid(again(batch["input_ids"], batch["attention_mask"]).logits).numpy()
    assert np.allclose(reloaded, y_prob, atol=1e-5)


def test_fine_tune_reuses_the_model_that_is_there(small_run, monkeypatch):
    small_run.model_folder.mkdir(parents=True)
    monkeypatch.setattr(training, "build_trainer", lambda *_: pytest.fail("trained again"))
    assert training.fine_tune(small_run) == small_run.model_folder


def fit_once(run):
    seed_everything(run.seed)
    splits = run.load_splits()
    tokenizer = models.load_tokenizer(run.checkpoint_path)
    model = models.DistilBERTClass(run.checkpoint_path, len(run.label_names))
    train, valid = (
        training.make_loader(splits["train"], tokenizer, run, True),
        training.make_loader(splits["validation"], tokenizer, run, False),
    )
    history = training.fit(model, train, valid, run, training.pos_weights(label_matrix(splits["train"])))
    return model, history, training.validation(model, valid, run)


def test_fit_learns_keeps_the_best_epoch_and_repeats_bit_for_bit(small_run):
    small_run.epochs, small_run.learning_rate = 12, 5e-3
    model, history, (y_prob, y_true) = fit_once(small_run)
    scores = [row["validation macro-AP"] for row in history]
    assert history[-1]["training loss"] < history[0]["training loss"]
    assert max(scores) > y_true.mean() + 0.2
    assert training.macro_average_precision(y_true, y_prob) == pytest.approx(max(scores))
    assert np.array_equal(y_true, label_matrix(small_run.load_splits()["validation"]))
    again, _, _ = fit_once(small_run)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))


def test_a_loss_that_is_not_finite_stops_the_loop(small_run):
    splits = small_run.load_splits()
    model = models.DistilBERTClass(small_run.checkpoint_path, 3)
    with torch.no_grad():
        model.classifier.weight.fill_(float("nan"))
    loader = training.make_loader(splits["train"], models.load_tokenizer(small_run.checkpoint_path), small_run, True)
    with pytest.raises(FloatingPointError, match="lower LEARNING_RATE"):
        training.fit(model, loader, loader, small_run)


def test_training_arguments_tell_no_service_and_write_no_pickle(small_run):
    arguments = training.training_arguments(small_run, small_run.folder)
    assert arguments.report_to == []
    assert not arguments.push_to_hub
    assert arguments.load_best_model_at_end
    assert not arguments.fp16


def test_the_lower_half_is_frozen_and_only_that(small_checkpoint):
    for model in (models.DistilBERTClass(small_checkpoint, 3), models.load_model(small_checkpoint, list("abc"))):
        assert training.freeze_lower_layers(model) == 1
        frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
        assert frozen == {name for name, _ in model.named_parameters() if ".embeddings." in name or ".layer.0." in name}
