"""Losses, class weights, and the two ways to train: a loop of one's own, and the Trainer."""

import json
import shutil
import tempfile
import time
from itertools import islice

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import Trainer, TrainingArguments, get_linear_schedule_with_warmup
from transformers.trainer_pt_utils import LengthGroupedSampler

from helpers.data import label_matrix
from helpers.metrics import decision_scores, macro_average_precision
from helpers.models import load_model, load_tokenizer
from helpers.runtime import ParameterError
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
    learn. Nothing below the first trained layer needs a gradient, which saves time as well, and nothing there needs dropout, which is
    switched off. Howard and Ruder (2018, arXiv:1801.06146) unfreeze from the top for the same reason.
    """
    encoder = getattr(model, getattr(model, "base_model_prefix", "encoder"))
    layers = max((m for m in encoder.modules() if isinstance(m, torch.nn.ModuleList)), key=len, default=[])
    frozen = len(layers) - max(1, len(layers) // 3)
    for part in (getattr(encoder, "embeddings", encoder.get_input_embeddings()), *layers[:frozen]):
        part.requires_grad_(False)
        for module in part.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    return frozen


def train_one_epoch(model, loader, optimizer, scheduler, pos_weight, run, accumulate=1):
    """One pass over the training batches; returns the mean loss of an example.

    `accumulate` batches make one step of the optimizer, with the gradient of one batch of them all, also where the last group is
    short. `run` (helpers.runtime.Run) tells the device and the precision.
    """
    model.train()
    total = seen = 0
    bar = tqdm(loader, desc="training", unit="batch", leave=False)
    for group in in_groups(enumerate(bar, start=1), accumulate):
        size = sum(len(batch["labels"]) for _, batch in group)
        for number, batch in group:
            batch = {name: tensor.to(run.device) for name, tensor in batch.items()}
            with run.autocast():
                logits = model(batch["input_ids"], batch["attention_mask"])
            loss = loss_fn(logits.float(), batch["labels"], pos_weight)
            if not torch.isfinite(loss):
                raise FloatingPointError(f"the loss of batch {number} is {loss.item()}: lower LEARNING_RATE")
            run.scaler.scale(loss * len(logits) / size).backward()
            total, seen = total + loss.item() * len(logits), seen + len(logits)
        run.scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        run.scaler.step(optimizer)
        run.scaler.update()
        scheduler.step()
        optimizer.zero_grad()
        bar.set_postfix(loss=f"{total / seen:.3f}")
    return total / seen


def in_groups(items, size):
    """Lists of `size` items in a row; the last may be shorter."""
    items = iter(items)
    while group := list(islice(items, size)):
        yield group


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


class ShuffledLengthGroupedSampler(LengthGroupedSampler):
    """Batches of similar length in random order, drawn anew each epoch; a short batch comes last.

    The sampler of transformers goes from long texts to short ones several times an epoch, so that batches in a row are alike.
    """

    def __iter__(self):
        batches = list(in_groups(super().__iter__(), self.batch_size))
        whole = len(self.lengths) // self.batch_size
        order = torch.randperm(whole, generator=self.generator).tolist() + list(range(whole, len(batches)))
        return (row for number in order for row in batches[number])


def make_loader(part, tokenizer, run, train):
    """DataLoader over one split; training batches hold texts of similar length, drawn anew each epoch.

    Raises ParameterError when the split is empty.
    """
    if not len(part):
        raise ParameterError(f"the {'training' if train else 'validation'} split is empty; give DATASET rows for it")
    data = MultiLabelDataset(part["text"], label_matrix(part), tokenizer, run.max_len)
    sampler = None
    if train:
        lengths = [len(ids) for ids in data.encodings["input_ids"]]
        generator = torch.Generator().manual_seed(run.seed)
        sampler = ShuffledLengthGroupedSampler(run.train_batch_size, lengths=lengths, generator=generator)
    return DataLoader(
        data,
        batch_size=run.train_batch_size if train else run.valid_batch_size,
        sampler=sampler,
        collate_fn=MultiLabelCollator(tokenizer),
        pin_memory=run.device.type == "cuda",
    )


def fit(model, train_loader, valid_loader, run, pos_weight=None, accumulate=1, patience=None, accelerator=None):
    """Train for `run.epochs` epochs with warm-up and linear decay, and keep the epoch with the best validation macro-AP.

    After each epoch all that the next one depends on is written to the run's folder. Training that was cut off goes on after the
    last whole epoch when fit is called again, and ends with the weights it would have had.

    Parameters
    ----------
    model : module called with (input_ids, attention_mask), returning logits of shape (batch, n_labels)
    train_loader, valid_loader : DataLoader, from `make_loader`
    run : helpers.runtime.Run
    pos_weight : float32 tensor of shape (n_labels,), optional
    accumulate : int
        Batches to one step of the optimizer.
    patience : int, optional
        Stop when validation macro-AP has not risen for this many epochs.
    accelerator : accelerate.Accelerator, optional
        Several processes share each batch: Accelerator(split_batches=True), the script started with torchrun. The batch size stays
        that of all together. Only the first process writes; a training that goes on after a cut repeats its random numbers only,
        not those of the others.

    Returns
    -------
    list of dict, one an epoch: epoch, training loss, validation macro-AP, seconds. The model holds the best epoch's weights.

    Raises
    ------
    helpers.runtime.ParameterError
        Before training, when model, data and parameters do not fit together or the folder cannot be written.
    FloatingPointError
        When a loss is not finite; the message names the batch.
    """
    first = accelerator is None or accelerator.is_main_process
    check_training(model, train_loader, run)
    model.to(run.device)
    pos_weight = None if pos_weight is None else pos_weight.to(run.device)
    optimizer = torch.optim.AdamW(parameter_groups(model, run.learning_rate), fused=True)
    steps = -(-len(train_loader) // accumulate) * run.epochs
    scheduler = get_linear_schedule_with_warmup(optimizer, round(0.1 * steps), steps)
    state = TrainingState(run, model, optimizer, scheduler, train_loader, [steps, accumulate, str(pos_weight)])
    history = state.resume()
    learner, batches = accelerator.prepare(model, train_loader) if accelerator else (model, train_loader)
    for epoch in range(len(history) + 1, run.epochs + 1):
        if patience and history and len(history) - best_epoch(history) >= patience:
            if first:
                print(f"no better for {patience} epochs: stopped")
            break
        start = time.perf_counter()
        loss = train_one_epoch(learner, batches, optimizer, scheduler, pos_weight, run, accumulate)
        if accelerator:
            loss = accelerator.reduce(torch.tensor(loss, device=run.device), reduction="mean").item()
        y_prob, y_true = validation(model, valid_loader, run)
        score = macro_average_precision(y_true, y_prob)
        seconds = time.perf_counter() - start
        history.append({"epoch": epoch, "training loss": loss, "validation macro-AP": score, "seconds": seconds})
        if first:
            print(f"epoch {epoch}/{run.epochs}: training loss {loss:.3f}, validation macro-AP {score:.3f}", flush=True)
            state.save(history)
    if accelerator:
        accelerator.wait_for_everyone()  # what the first process wrote is whole
    state.load_best(history)
    if accelerator:
        accelerator.wait_for_everyone()  # all have read it
    if first:
        state.clear()
    return history


def best_epoch(history):
    """Number of the epoch with the highest validation macro-AP, the first of equals."""
    return max(history, key=lambda row: (row["validation macro-AP"], -row["epoch"]))["epoch"]


def check_training(model, loader, run):
    """Raise ParameterError where training could only fail, before any time is spent on it."""
    if not len(loader.dataset):
        raise ParameterError("the training split is empty; give DATASET rows for it")
    config = getattr(model, "config", None) or model.encoder.config
    limit = getattr(config, "max_position_embeddings", None)
    if limit and run.max_len > limit:
        raise ParameterError(f"MAX_LEN is {run.max_len}, and the model reads at most {limit} tokens; lower it")
    width = [module.out_features for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
    labels = len(loader.dataset[0]["labels"])
    if width != labels:
        raise ParameterError(f"the model's head has {width} outputs and the data have {labels} labels; build it anew")
    with run.writing("folder.check") as path:
        path.touch()
    (run.folder / "folder.check").unlink(missing_ok=True)  # several processes may be looking


class TrainingState:
    """What an epoch depends on, kept in the run's folder as last.safetensors.

    When a later epoch is not the best, the file of the best is kept beside it as best-<epoch>.safetensors. A file is written under
    another name and renamed when it is whole: whenever the process ends, what lies in the folder is one whole epoch.
    """

    def __init__(self, run, model, optimizer, scheduler, loader, facts):
        self.run, self.model, self.optimizer, self.scheduler = run, model, optimizer, scheduler
        self.generator = getattr(loader.sampler, "generator", None)
        shapes = [[name, *tensor.shape] for name, tensor in model.state_dict().items()]
        self.facts = json.loads(json.dumps([facts, shapes]))

    def save(self, history):
        """Write the state after an epoch."""
        best = best_epoch(history)
        if best == history[-1]["epoch"] - 1:  # it is about to be replaced
            with self.run.writing(f"best-{best}.safetensors") as path:
                shutil.copyfile(self.run.folder / "last.safetensors", path)
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for number, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": tensor for name, tensor in slots.items()}
        tensors |= {f"random.{name}": get() for name, (get, _) in self._random().items()}
        rates = [group["lr"] for group in self.optimizer.param_groups]
        facts = {"facts": self.facts, "history": history, "rates": rates, "step": self.scheduler.last_epoch}
        with self.run.writing("last.safetensors") as path:
            save_file(_copies(tensors), path, {"json": json.dumps(facts | {"scaler": self.run.scaler.state_dict()})})
        for path in self.run.folder.glob("best-*.safetensors"):
            if path.name != f"best-{best}.safetensors":
                path.unlink()

    def resume(self):
        """Take up an interrupted training of the same kind; returns its history, empty where there is none."""
        path = self.run.folder / "last.safetensors"
        if not path.exists():
            return []
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["json"])
            if facts["facts"] != self.facts:
                return []
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)
        parts = {kind: {} for kind in ("model", "optimizer", "random")}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition(".")
            parts[kind][rest] = tensor
        self.model.load_state_dict(parts["model"])
        slots = {}
        for name, tensor in parts["optimizer"].items():
            number, _, slot = name.partition(".")
            slots.setdefault(int(number), {})[slot] = tensor
        self.optimizer.load_state_dict({"state": slots, "param_groups": self.optimizer.state_dict()["param_groups"]})
        for group, rate in zip(self.optimizer.param_groups, facts["rates"], strict=True):
            group["lr"] = rate
        self.scheduler.last_epoch = facts["step"]
        self.run.scaler.load_state_dict(facts["scaler"])
        for name, (_, put) in self._random().items():
            put(parts["random"][name])
        history = facts["history"]
        print(f"going on after epoch {len(history)}, where an earlier training was cut off", flush=True)
        return history

    def load_best(self, history):
        """Put the best epoch's weights into the model."""
        best = best_epoch(history)
        if best < history[-1]["epoch"]:
            tensors = load_file(self.run.folder / f"best-{best}.safetensors", device=str(self.run.device))
            weights = {name[6:]: tensor for name, tensor in tensors.items() if name.startswith("model.")}
            self.model.load_state_dict(weights)

    def clear(self):
        """Clear the folder: the training is whole."""
        (self.run.folder / "last.safetensors").unlink()
        for path in self.run.folder.glob("best-*.safetensors"):
            path.unlink()
        for left in self.run.folder.glob(".writing-*"):  # by a process that was killed while it wrote
            shutil.rmtree(left)

    def _random(self):
        """Generators of random numbers: how to read and to set each."""
        sources = {"torch": (torch.get_rng_state, torch.set_rng_state)}
        if self.run.device.type in ("cuda", "mps"):
            device = getattr(torch, self.run.device.type)
            sources["device"] = (device.get_rng_state, device.set_rng_state)
        if self.generator is not None:
            sources["sampler"] = (self.generator.get_state, self.generator.set_state)
        return sources


def _copies(tensors):
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}


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
