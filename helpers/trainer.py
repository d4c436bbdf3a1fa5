"""Training with the Trainer of transformers: `fine_tune`, and below it what it consists of, in its order."""

import tempfile
import time
from dataclasses import replace

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import Trainer, TrainingArguments

from helpers.data import label_matrix
from helpers.labels import known
from helpers.metrics import decision_scores, macro_average_precision
from helpers.models import add_mean_pooling, load_model, load_tokenizer, to_probabilities
from helpers.thresholds import trusted_thresholds
from helpers.tokenization import MultiLabelCollator, tokenize_splits
from helpers.training import (
    ShuffledLengthGroupedSampler,
    freeze_lower_layers,
    hint_at_more_epochs,
    parameter_groups,
    pos_weights,
)


def fine_tune(run):
    """Make sure that the run's fine-tuned model is there: reuse it, or train it as notebook 04 does.

    Returns the model's folder.
    """
    if not run.folder.model.exists():
        run.folder.check()
        tokenizer = load_tokenizer(run.checkpoint)
        model = load_model(run.checkpoint, run.label_names, attn_implementation=run.compute.attention)
        if run.settings.freeze:
            freeze_lower_layers(model)
        if run.pooling == "mean":
            add_mean_pooling(model)
        pos_weight = pos_weights(label_matrix(run.splits["train"]), run.label_names)
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            trainer = build_trainer(run, model, tokenizer, pos_weight, folder)
            trainer.train()
            save_results(run, trainer, tokenizer, time.perf_counter() - start)
    return run.folder.model


def build_trainer(run, model, tokenizer, pos_weight, folder, **arguments):
    """The course's Trainer over the run's train and validation splits.

    Parameters
    ----------
    run : helpers.runtime.Run
    model : a multi-label classifier of transformers
    tokenizer : its tokenizer
    pos_weight : float32 tensor of shape (n_labels,), or None
    folder : path
        For the Trainer's checkpoints.
    **arguments : entries of TrainingArguments that differ from the course's
    """
    tokenized = tokenize_splits(run.splits, tokenizer, run.settings.max_len)
    tokenized = tokenized.select_columns(["input_ids", "attention_mask", "labels"])
    model.to(run.compute.device)
    return WeightedTrainer(
        model=model,
        args=replace(training_arguments(run.settings, run.compute, folder), **arguments),
        train_dataset=tokenized["train"],
        eval_dataset=tokenized["validation"],
        data_collator=MultiLabelCollator(tokenizer),
        compute_metrics=compute_metrics,
        optimizers=(torch.optim.AdamW(parameter_groups(model, run.settings.learning_rate), fused=True), None),
        pos_weight=pos_weight,
    )


def training_arguments(settings, compute, folder):
    """The course's TrainingArguments: offline, silent, and the best epoch by validation macro-AP."""
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.train_batch_size,
        per_device_eval_batch_size=settings.valid_batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=0.1,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="macro_ap",
        bf16=compute.precision == "bf16",
        fp16=compute.precision == "fp16",
        use_cpu=compute.device.type == "cpu",
        dataloader_pin_memory=compute.device.type == "cuda",
        logging_strategy="epoch",
        report_to="none",
        seed=settings.seed,
    )


def compute_metrics(prediction):
    """Validation macro-AP from an EvalPrediction; logits become probabilities first."""
    y_true, y_prob = prediction.label_ids, to_probabilities(prediction.predictions)
    return {"macro_ap": macro_average_precision(y_true, y_prob)}


class WeightedTrainer(Trainer):
    """A Trainer with weighted positives in its loss, binary cross-entropy, and with the batches of `fit`.

    The loss is a sum over known cells divided by `num_items_in_batch`, the number of known cells (rows x labels) of all
    accumulated batches of all processes: so two half batches give the gradient of one whole batch, in a row as side by
    side. The Trainer counts the cells of all processes only with `average_tokens_across_devices`, which is therefore
    switched on. Of what the model returns in evaluation the logits alone are kept; hidden states would fill the memory.
    Batches hold texts of similar length, in random order.

    Parameters
    ----------
    pos_weight : float32 tensor of shape (n_labels,), or None for no weights

    Raises
    ------
    ValueError
        When the arguments ask for label smoothing, which this loss does not have.
    FloatingPointError
        In training and evaluation, when a loss is not finite; the message says after how many steps.
    """

    def __init__(self, *args, pos_weight=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.pos_weight = None if pos_weight is None else pos_weight.to(self.args.device)
        self.args.average_tokens_across_devices = True  # num_items_in_batch counts the cells of all processes
        if self.args.label_smoothing_factor:
            raise ValueError("label_smoothing_factor has no part in this loss; leave it at 0")

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels, mask = inputs["labels"], known(inputs["labels"]).float()
        outputs = model(**{name: value for name, value in inputs.items() if name != "labels"})
        total = binary_cross_entropy_with_logits(
            outputs.logits.float(), labels * mask, mask, pos_weight=self.pos_weight, reduction="sum"
        )
        if num_items_in_batch is None:
            loss = total / mask.sum().clamp(min=1)
        else:
            cells = torch.as_tensor(num_items_in_batch).max()  # for two GPUs in one process it comes twice
            loss = total * self.accelerator.num_processes / cells.clamp(min=1)  # processes average gradients
        if not torch.isfinite(loss):
            steps = self.state.global_step
            raise FloatingPointError(f"the loss after {steps} steps is {loss.item()}: lower LEARNING_RATE")
        return (loss, {"logits": outputs.logits}) if return_outputs else loss

    def _get_train_sampler(self, train_dataset=None):
        lengths = [len(ids) for ids in self.train_dataset["input_ids"]]
        generator = torch.Generator().manual_seed(self.args.seed)
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return ShuffledLengthGroupedSampler(size, lengths=lengths, generator=generator)


def save_results(run, trainer, tokenizer, seconds):
    """Save what later notebooks need: validation predictions, scores and, last, the model folder with its thresholds.

    The folder is what `fine_tune` looks for, so an interruption before it is whole leads to a new training.

    Returns the validation probabilities, float array of shape (n_examples, n_labels).
    """
    hint_at_more_epochs([row["eval_macro_ap"] for row in trainer.state.log_history if "eval_macro_ap" in row])
    output = trainer.predict(trainer.eval_dataset)
    part = run.splits["validation"]
    y_true, y_prob = label_matrix(part), to_probabilities(output.predictions)
    if not np.array_equal(output.label_ids, y_true):
        raise RuntimeError("the Trainer returned the rows in another order than it was given them")
    run.folder.save_predictions("validation", part["id"][:], y_true, y_prob)
    scores = {"macro-AP": macro_average_precision(y_true, y_prob), **decision_scores(y_true, y_prob)}
    run.folder.record("fine-tuned", "validation", scores, seconds)
    thresholds = trusted_thresholds(y_true, y_prob)["threshold"]
    run.folder.save_model(trainer.model, tokenizer, thresholds)
    return y_prob
