"""Losses, class weights, and the two ways to train: a loop of one's own, and the Trainer."""

import tempfile
import time

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments, get_linear_schedule_with_warmup
from transformers.trainer_pt_utils import LengthGroupedSampler

from helpers.data import label_matrix
from helpers.metrics import decision_scores, macro_average_precision
from helpers.models import load_model, load_tokenizer
from helpers.thresholds import tune_thresholds
from helpers.tokenization import MultiLabelCollator, MultiLabelDataset, tokenize_splits

HEAD_RATE = 10  # the head starts from random numbers, so it learns at ten times the encoder's rate
MAX_POS_WEIGHT = 100.0


def pos_weights(y_train, label_names=None, power=0.5, cap=MAX_POS_WEIGHT):
    """Weight of a label's positives in the loss: (n_neg / n_pos) ** power, never above the cap.

    power 1 makes positives and negatives weigh the same in total, as the documentation of torch.nn.BCEWithLogitsLoss
    proposes; power 0.5 goes half of the way and keeps rare labels from drowning the others.

    Parameters
    ----------
    y_train : 0/1 array of shape (n_examples, n_labels)
    label_names : list of str, optional
        To name capped labels.

    Returns
    -------
    float32 tensor of shape (n_labels,)
    """
    y_train = np.asarray(y_train)
    positives = y_train.sum(axis=0)
    weights = ((len(y_train) - positives) / np.maximum(positives, 1e-9)) ** power
    for k in np.flatnonzero(weights > cap):
        name = label_names[k] if label_names is not None else f"number {k}"
        print(f"label {name}: {int(positives[k])} positives in train, pos_weight capped at {cap:g}")
    return torch.tensor(np.minimum(weights, cap), dtype=torch.float32)


def loss_fn(logits, targets, pos_weight=None):
    """Binary cross-entropy with logits, mean over cells; tensors of shape (batch, n_labels)."""
    return binary_cross_entropy_with_logits(logits, targets, pos_weight=pos_weight)


def parameter_groups(model, learning_rate, weight_decay=0.01):
    """Optimizer groups: encoder and head at their own rates, weight decay on matrices only.

    Works for DistilBERTClass and for the library's classifiers: what belongs to the pre-trained encoder is found through
    `base_model_prefix` or the attribute `encoder`.
    """
    prefix = getattr(model, "base_model_prefix", "encoder") + "."
    groups = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name.startswith(prefix), parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": learning_rate * (1 if encoder else HEAD_RATE),
            "weight_decay": weight_decay if matrix else 0.0,
        }
        for (encoder, matrix), parameters in groups.items()
    ]


def freeze_lower_layers(model):
    """Exclude the embeddings and the lower two thirds of the encoder's layers from training; returns the number of layers frozen.

    The lower layers hold what is common to all texts; with some hundred examples the upper layers and the head have enough to
    learn. Nothing below the first trained layer needs a gradient, which saves time as well. Howard and Ruder (2018,
    arXiv:1801.06146) unfreeze from the top for the same reason.
    """
    encoder = getattr(model, getattr(model, "base_model_prefix", "encoder"))
    layers = max((m for m in encoder.modules() if isinstance(m, torch.nn.ModuleList)), key=len, default=[])
    frozen = len(layers) - max(1, len(layers) // 3)
    for part in (getattr(encoder, "embeddings", encoder.get_input_embeddings()), *layers[:frozen]):
        part.requires_grad_(False)
    return frozen


def train_one_epoch(model, loader, optimizer, scheduler, pos_weight, run):
    """One pass over the training batches; returns the mean loss of an example.

    `run` (helpers.runtime.Run) tells the device and the precision.
    """
    model.train()
    total = seen = 0
    for batch in loader:
        batch = {name: tensor.to(run.device) for name, tensor in batch.items()}
        with run.autocast():
            logits = model(batch["input_ids"], batch["attention_mask"])
        loss = loss_fn(logits.float(), batch["labels"], pos_weight)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} after {seen} examples: lower LEARNING_RATE")
        run.scaler.scale(loss).backward()
        run.scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        run.scaler.step(optimizer)
        run.scaler.update()
        scheduler.step()
        optimizer.zero_grad()
        total, seen = total + loss.item() * len(logits), seen + len(logits)
    return total / seen


def validation(model, loader, run):
    """Probabilities and targets, float arrays of shape (n_examples, n_labels), in the order of the rows."""
    model.eval()
    probabilities, targets = [], []
    with torch.inference_mode():
        for batch in loader:
            with run.autocast():
                logits = model(batch["input_ids"].to(run.device), batch["attention_mask"].to(run.device))
            probabilities.append(torch.sigmoid(logits.float()).cpu().numpy())
            targets.append(batch["labels"].numpy())
    return np.concatenate(probabilities), np.concatenate(targets)


def make_loader(part, tokenizer, run, train):
    """DataLoader over one split; training batches hold texts of similar length, in a random order of their own."""
    data = MultiLabelDataset(part["text"], label_matrix(part), tokenizer, run.max_len)
    sampler = None
    if train:
        lengths = [len(ids) for ids in data.encodings["input_ids"]]
        generator = torch.Generator().manual_seed(run.seed)
        sampler = LengthGroupedSampler(run.train_batch_size, lengths=lengths, generator=generator)
    return DataLoader(
        data,
        batch_size=run.train_batch_size if train else run.valid_batch_size,
        sampler=sampler,
        collate_fn=MultiLabelCollator(tokenizer),
        pin_memory=run.device.type == "cuda",
    )


def fit(model, train_loader, valid_loader, run, pos_weight=None):
    """Train for `run.epochs` epochs with warm-up and linear decay, and keep the epoch with the best validation macro-AP.

    Returns
    -------
    list of dict, one an epoch: epoch, training loss, validation macro-AP, seconds. The model holds the best epoch's weights.
    """
    model.to(run.device)
    pos_weight = None if pos_weight is None else pos_weight.to(run.device)
    optimizer = torch.optim.AdamW(parameter_groups(model, run.learning_rate), fused=True)
    steps = len(train_loader) * run.epochs
    scheduler = get_linear_schedule_with_warmup(optimizer, round(0.1 * steps), steps)
    history, best, best_score = [], None, -1.0
    for epoch in range(1, run.epochs + 1):
        start = time.perf_counter()
        loss = train_one_epoch(model, train_loader, optimizer, scheduler, pos_weight, run)
        y_prob, y_true = validation(model, valid_loader, run)
        score = macro_average_precision(y_true, y_prob)
        history.append(
            {
                "epoch": epoch,
                "training loss": loss,
                "validation macro-AP": score,
                "seconds": time.perf_counter() - start,
            }
        )
        print(f"epoch {epoch}/{run.epochs}: training loss {loss:.3f}, validation macro-AP {score:.3f}", flush=True)
        if best is None or score > best_score:
            best_score = score
            best = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(best)
    return history


class WeightedTrainer(Trainer):
    """A Trainer whose loss is binary cross-entropy with a weight for each label's positives.

    The loss is a sum over cells divided by `num_items_in_batch`, the number of cells (rows x labels) of all accumulated
    batches: so two half batches give the gradient of one whole batch.

    Parameters
    ----------
    pos_weight : float32 tensor of shape (n_labels,), or None for no weights
    """

    def __init__(self, *args, pos_weight=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.pos_weight = None if pos_weight is None else pos_weight.to(self.args.device)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs["labels"]
        outputs = model(**{name: value for name, value in inputs.items() if name != "labels"})
        total = binary_cross_entropy_with_logits(
            outputs.logits.float(), labels, pos_weight=self.pos_weight, reduction="sum"
        )
        if num_items_in_batch is None:
            loss = total / labels.numel()
        else:  # several processes average their gradients, and num_items_in_batch counts the cells of all of them
            loss = total * self.accelerator.num_processes / num_items_in_batch
        return (loss, outputs) if return_outputs else loss


def compute_metrics(prediction):
    """Validation macro-AP from an EvalPrediction; logits become probabilities first."""
    y_prob = torch.sigmoid(torch.as_tensor(prediction.predictions)).numpy()
    return {"macro_ap": macro_average_precision(prediction.label_ids, y_prob)}


def training_arguments(run, folder):
    """The course's TrainingArguments: offline, silent, best epoch by validation macro-AP, batches grouped by length."""
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=run.epochs,
        per_device_train_batch_size=run.train_batch_size,
        per_device_eval_batch_size=run.valid_batch_size,
        learning_rate=run.learning_rate,
        warmup_steps=0.1,
        train_sampling_strategy="group_by_length",
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="macro_ap",
        bf16=run.precision == "bf16",
        fp16=run.precision == "fp16",
        use_cpu=run.device.type == "cpu",
        dataloader_pin_memory=run.device.type == "cuda",
        logging_strategy="epoch",
        report_to="none",
        seed=run.seed,
    )


def build_trainer(run, model, tokenizer, splits, pos_weight, folder):
    """The course's Trainer over the train and validation splits; its checkpoints go to `folder`."""
    tokenized = tokenize_splits(splits, tokenizer, run.max_len).select_columns(
        ["input_ids", "attention_mask", "labels"]
    )
    model.to(run.device)
    return WeightedTrainer(
        model=model,
        args=training_arguments(run, folder),
        train_dataset=tokenized["train"],
        eval_dataset=tokenized["validation"],
        data_collator=MultiLabelCollator(tokenizer),
        compute_metrics=compute_metrics,
        optimizers=(torch.optim.AdamW(parameter_groups(model, run.learning_rate), fused=True), None),
        pos_weight=pos_weight,
    )


def save_results(run, trainer, tokenizer, splits, seconds):
    """Save what later notebooks need: validation predictions, scores and, last, the model folder with its thresholds.

    The folder is what `fine_tune` looks for, so an interruption before it is whole leads to a new training.

    Returns the validation probabilities, float array of shape (n_examples, n_labels).
    """
    # Grouping by length reorders the rows of predict(), too; row i of the result has to be row i of the data.
    trainer.args.train_sampling_strategy = "random"
    output = trainer.predict(trainer.eval_dataset)
    y_prob = torch.sigmoid(torch.as_tensor(output.predictions).float()).numpy()
    y_true = label_matrix(splits["validation"])
    if not np.array_equal(output.label_ids, y_true):
        raise RuntimeError("the Trainer returned the rows in another order than it was given them")
    run.save_predictions("validation", splits["validation"], y_prob)
    run.record(
        "fine-tuned",
        "validation",
        {"macro-AP": macro_average_precision(y_true, y_prob), **decision_scores(y_true, y_prob)},
        seconds,
    )
    run.save_model(trainer.model, tokenizer, tune_thresholds(y_true, y_prob))
    return y_prob


def fine_tune(run):
    """Make sure that the run's fine-tuned model is there: reuse it, or train it as notebook 04 does.

    Returns the model's folder.
    """
    if not run.model_folder.exists():
        splits = run.load_splits()
        tokenizer = load_tokenizer(run.checkpoint_path)
        model = load_model(run.checkpoint_path, run.label_names, attn_implementation=run.attention)
        if run.freeze:
            freeze_lower_layers(model)
        pos_weight = pos_weights(label_matrix(splits["train"]), run.label_names)
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            trainer = build_trainer(run, model, tokenizer, splits, pos_weight, folder)
            trainer.train()
            save_results(run, trainer, tokenizer, splits, time.perf_counter() - start)
    return run.model_folder
