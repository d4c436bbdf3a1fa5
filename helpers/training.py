"""Training with a loop of one's own: loss and weights, what is trained, batches, an epoch, `fit` and its state."""

import json
import shutil
import time
from contextlib import nullcontext
from itertools import islice
from math import ceil

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import get_linear_schedule_with_warmup
from transformers.trainer_pt_utils import LengthGroupedSampler

from helpers.checkpoints import reads_the_mean, usable_positions
from helpers.data import label_matrix
from helpers.files import WORK
from helpers.labels import known
from helpers.metrics import macro_average_precision
from helpers.models import to_probabilities
from helpers.settings import ParameterError
from helpers.tokenization import MultiLabelCollator, MultiLabelDataset

HEAD_RATE = 10  # the head starts from random numbers, so it learns at ten times the encoder's rate
MAX_POS_WEIGHT = 100.0


def pos_weights(y_train, label_names=None, power=0.5, cap=MAX_POS_WEIGHT):
    """Weight of a label's positives in the loss: (n_neg / n_pos) ** power, never above the cap.

    power 1 makes positives and negatives weigh the same in total, as the documentation of torch.nn.BCEWithLogitsLoss
    proposes; power 0.5 goes half of the way and keeps rare labels from drowning the others.

    Parameters
    ----------
    y_train : 0/1 array of shape (n_examples, n_labels)
        Where it is UNKNOWN, a cell is neither negative nor positive.
    label_names : list of str, optional
        To name capped labels.

    Returns
    -------
    float32 tensor of shape (n_labels,)
    """
    y_train = np.asarray(y_train)
    positives, negatives = (np.sum(y_train == answer, axis=0, dtype=np.float32) for answer in (1, 0))
    weights = (negatives / np.maximum(positives, 1e-9)) ** power
    for k in np.flatnonzero(weights > cap):
        name = label_names[k] if label_names is not None else f"number {k}"
        print(f"label {name}: {int(positives[k])} positives in train, pos_weight capped at {cap:g}")
    return torch.tensor(np.minimum(weights, cap), dtype=torch.float32)


def loss_fn(logits, targets, pos_weight=None):
    """Binary cross-entropy with logits, mean over known cells (0 without any); tensors of shape (batch, n_labels)."""
    mask = known(targets).float()
    mean = binary_cross_entropy_with_logits(logits, targets * mask, mask, pos_weight=pos_weight)
    return mean / mask.mean().clamp(min=1e-9)


def parameter_groups(model, learning_rate, weight_decay=0.01, head_rate=HEAD_RATE):
    """Optimizer groups: encoder and head at their own rates, weight decay on matrices only; the encoder's come first.

    Works for DistilBERTClass and for the library's classifiers: what belongs to the pre-trained encoder is found
    through `base_model_prefix` or the attribute `encoder`.

    Parameters
    ----------
    model : torch.nn.Module
    learning_rate : float
        The encoder's.
    weight_decay : float
    head_rate : float
        The head's learning rate as a multiple of the encoder's.
    """
    prefix = getattr(model, "base_model_prefix", "encoder") + "."
    groups = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name.startswith(prefix), parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": learning_rate * (1 if encoder else head_rate),
            "weight_decay": weight_decay if matrix else 0.0,
        }
        for (encoder, matrix), parameters in sorted(groups.items(), key=lambda group: not group[0][0])
    ]


def freeze_lower_layers(model):
    """Exclude the embeddings and the lower two thirds of the encoder's layers from training; returns how many layers.

    The lower layers hold what is common to all texts; with some hundred examples the upper layers and the head have
    enough to learn. Nothing below the first trained layer needs a gradient, which saves time as well, and nothing there
    needs dropout, which is switched off. Of the positions that all layers share, in DeBERTa and MPNet, nothing is
    trained either; ALBERT, whose layers are one, trains it. Howard and Ruder (2018, arXiv:1801.06146) unfreeze from the
    top for the same reason.
    """
    encoder = getattr(model, getattr(model, "base_model_prefix", "encoder"))
    layers = max((m for m in encoder.modules() if isinstance(m, torch.nn.ModuleList)), key=len)
    if reads_the_mean(getattr(encoder, "config", None)):  # its last layer has nothing to learn
        layers = layers[:-1]
    frozen = len(layers) - max(1, len(layers) // 3)
    below = True
    for name, module in encoder.named_modules():  # in the order in which they were built, each before its parts
        below = below and module is not layers[frozen]
        if below or isinstance(module, torch.nn.Embedding) or name == "encoder.LayerNorm":  # the last is DeBERTa's
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)
        if below and isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return frozen


def optimizer_and_schedule(model, learning_rate, steps):
    """AdamW over `parameter_groups`, and its schedule: warm-up over a tenth of the steps, then linear decay to 0.

    The Trainer rounds the warm-up's steps in the same way.
    """
    optimizer = torch.optim.AdamW(parameter_groups(model, learning_rate), fused=True)
    return optimizer, get_linear_schedule_with_warmup(optimizer, ceil(0.1 * steps), steps)


class ShuffledLengthGroupedSampler(LengthGroupedSampler):
    """Batches of similar length in random order, drawn anew each epoch; a short batch comes last.

    The sampler of transformers goes from long texts to short ones several times an epoch, so that batches in a row are
    alike.
    """

    def __iter__(self):
        batches = list(in_groups(super().__iter__(), self.batch_size))
        whole = len(self.lengths) // self.batch_size
        order = torch.randperm(whole, generator=self.generator).tolist() + list(range(whole, len(batches)))
        return (row for number in order for row in batches[number])


def make_loader(part, tokenizer, settings, train, sampler=ShuffledLengthGroupedSampler):
    """DataLoader over one split; validation batches are in the order of the rows.

    Parameters
    ----------
    part : datasets.Dataset
    tokenizer : transformers tokenizer
    settings : helpers.settings.Settings
    train : bool
    sampler : class
        What draws the training batches; default: texts of similar length together, drawn anew each epoch.

    Raises
    ------
    ParameterError
        When the split is empty.
    """
    if not len(part):
        raise ParameterError(f"the {'training' if train else 'validation'} split is empty; give DATASET rows for it")
    data = MultiLabelDataset(part["text"], label_matrix(part), tokenizer, settings.max_len)
    drawn = None
    if train:
        lengths = [len(ids) for ids in data.encodings["input_ids"]]
        generator = torch.Generator().manual_seed(settings.seed)
        drawn = sampler(settings.train_batch_size, lengths=lengths, generator=generator)
    return DataLoader(
        data,
        batch_size=settings.train_batch_size if train else settings.valid_batch_size,
        sampler=drawn,
        collate_fn=MultiLabelCollator(tokenizer),
        pin_memory=torch.cuda.is_available(),
    )


# An epoch -------------------------------------------------------------------------------------------------------------


def in_groups(items, size):
    """Lists of `size` items in a row; the last may be shorter."""
    items = iter(items)
    while group := list(islice(items, size)):
        yield group


def train_one_epoch(model, loader, optimizer, scheduler, pos_weight, compute, accumulate=1, max_norm=1.0):
    """One pass over the training batches; returns the mean loss of a known cell.

    `accumulate` batches make one step of the optimizer, with the gradient of one batch of them all, also where the last
    group is short or cells are unknown. A gradient longer than `max_norm` is cut to it. `compute` is a
    helpers.device.Compute.
    """
    model.train()
    total = seen = 0
    bar = tqdm(loader, desc="training", unit="batch", leave=False)
    for group in in_groups(enumerate(bar, start=1), accumulate):
        sizes = [known(batch["labels"]).sum().item() / batch["labels"].shape[1] for _, batch in group]
        for size, (number, batch) in zip(sizes, group, strict=True):
            batch = {name: tensor.to(compute.device) for name, tensor in batch.items()}
            with compute.autocast():
                logits = model(batch["input_ids"], batch["attention_mask"])
            loss = loss_fn(logits.float(), batch["labels"], pos_weight)
            if not torch.isfinite(loss):
                raise FloatingPointError(f"the loss of batch {number} is {loss.item()}: lower LEARNING_RATE")
            compute.scaler.scale(loss * size / (sum(sizes) or 1)).backward()
            total, seen = total + loss.item() * size, seen + size
        compute.scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        compute.scaler.step(optimizer)
        compute.scaler.update()
        scheduler.step()
        optimizer.zero_grad()
        bar.set_postfix(loss=f"{total / (seen or 1):.3f}")
    return total / (seen or 1)


def validation(model, loader, compute):
    """(y_true, y_prob): float32 arrays of shape (n_examples, n_labels), in the order of the rows."""
    model.eval()
    y_true, y_prob = [], []
    with torch.inference_mode():
        for batch in loader:
            inputs = batch["input_ids"].to(compute.device), batch["attention_mask"].to(compute.device)
            with compute.autocast():
                logits = model(*inputs)
            y_true.append(batch["labels"].numpy())
            y_prob.append(to_probabilities(logits))
    return np.concatenate(y_true), np.concatenate(y_prob)


# Training -------------------------------------------------------------------------------------------------------------


def fit(
    model,
    train_loader,
    valid_loader,
    run,
    pos_weight=None,
    accumulate=1,
    patience=None,
    accelerator=None,
    train_one_epoch=train_one_epoch,
):
    """Train for `run.settings.epochs` epochs, with warm-up and linear decay, and keep the best by validation macro-AP.

    After each epoch all that the next one depends on is written to the run's folder. Training that was cut off goes on
    after the last whole epoch when fit is called again, and ends with the weights it would have had.

    Parameters
    ----------
    model : module called with (input_ids, attention_mask), returning logits of shape (batch, n_labels)
    train_loader, valid_loader : DataLoader, from `make_loader`
    run : helpers.runtime.Run
        Its settings, compute and folder are used.
    pos_weight : float32 tensor of shape (n_labels,), optional
    accumulate : int
        Batches to one step of the optimizer.
    patience : int, optional
        Stop when validation macro-AP has not risen for this many epochs.
    accelerator : accelerate.Accelerator, optional
        Several processes share each batch: Accelerator(split_batches=True), the script started with torchrun. The batch
        size stays that of all together. Only the first process writes; a training that goes on after a cut repeats its
        random numbers only, not those of the others. Where cells are unknown, each process takes the mean over its own
        known ones, which is nearly that over all.
    train_one_epoch : function
        Called as this module's, with (model, loader, optimizer, scheduler, pos_weight, compute, accumulate); what it
        returns is the training loss.

    Returns
    -------
    list of dict, one an epoch: epoch, training loss, validation loss (with the same weights), validation macro-AP,
    seconds. The model holds the best epoch's weights.

    Raises
    ------
    helpers.settings.ParameterError
        Before training, when model, data and settings do not fit together or the folder cannot be written.
    FloatingPointError
        When a loss is not finite; the message names the batch.
    """
    settings, compute = run.settings, run.compute
    check_training(model, train_loader, settings)
    model.to(compute.device)
    pos_weight = None if pos_weight is None else pos_weight.to(compute.device)
    steps = -(-len(train_loader) // accumulate) * settings.epochs
    optimizer, scheduler = optimizer_and_schedule(model, settings.learning_rate, steps)
    learner, batches = accelerator.prepare(model, train_loader) if accelerator else (model, train_loader)
    facts = [steps, accumulate, str(pos_weight)]
    with TrainingState(run.folder, compute, model, optimizer, scheduler, train_loader, facts, accelerator) as state:
        history = state.resume()
        while len(history) < settings.epochs and not is_stuck(history, patience):
            start = time.perf_counter()
            loss = train_one_epoch(learner, batches, optimizer, scheduler, pos_weight, compute, accumulate)
            if accelerator:
                loss = accelerator.reduce(torch.tensor(loss, device=compute.device), reduction="mean").item()
            y_true, y_prob = validation(model, valid_loader, compute)
            row = {"epoch": len(history) + 1, "training loss": loss}
            row["validation loss"] = loss_of_probabilities(y_true, y_prob, pos_weight)
            row["validation macro-AP"] = macro_average_precision(y_true, y_prob)
            history.append(row | {"seconds": time.perf_counter() - start})
            if compute.rank == 0:
                text = ", ".join(f"{name} {value:.3f}" for name, value in row.items() if name != "epoch")
                print(f"epoch {row['epoch']}/{settings.epochs}: {text}", flush=True)
            state.save(history)
        if compute.rank == 0 and len(history) < settings.epochs:
            print(f"no better for {patience} epochs: stopped")
        if compute.rank == 0:
            hint_at_more_epochs([row["validation macro-AP"] for row in history])
        state.finish(history)
    return history


def loss_of_probabilities(y_true, y_prob, pos_weight=None):
    """The loss of what `validation` returns, a float; a probability of 0 or 1 counts as one nearly so."""
    logits = torch.from_numpy(y_prob).double().logit(eps=1e-7)
    return loss_fn(logits, torch.from_numpy(y_true), None if pos_weight is None else pos_weight.cpu()).item()


def check_training(model, loader, settings):
    """Raise ParameterError where training could only fail, before any time is spent on it."""
    if not len(loader.dataset):
        raise ParameterError("the training split is empty; give DATASET rows for it")
    limit = usable_positions(model if hasattr(model, "config") else model.encoder)
    if limit and settings.max_len > limit:
        raise ParameterError(f"MAX_LEN is {settings.max_len}, and the model reads at most {limit} tokens; lower it")
    width = [module.out_features for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
    labels = len(loader.dataset[0]["labels"])
    if width != labels:
        raise ParameterError(f"the model's head has {width} outputs and the data have {labels} labels; build it anew")


def best_epoch(history):
    """Number of the epoch with the highest validation macro-AP, the first of equals."""
    return max(history, key=lambda row: (row["validation macro-AP"], -row["epoch"]))["epoch"]


def hint_at_more_epochs(scores, margin=0.01):
    """Print a hint where the last epoch's score is the best by a margin: the training may have ended too early.

    Parameters
    ----------
    scores : list of float
        Validation macro-AP, one an epoch.
    margin : float
    """
    if len(scores) > 1 and scores[-1] - max(scores[:-1]) > margin:
        gain = scores[-1] - max(scores[:-1])
        print(f"the last epoch is the best, by {gain:.3f}: a higher EPOCHS than {len(scores)} may give a better model")


def is_stuck(history, patience):
    """Whether validation macro-AP has not risen for `patience` epochs; never where patience is None."""
    return bool(patience and history) and len(history) - best_epoch(history) >= patience


class TrainingState:
    """What an epoch depends on, kept in the run's folder as last.safetensors while the training lasts.

    When a later epoch is not the best, the file of the best is kept beside it as best-<epoch>.safetensors. A file is
    written under another name and renamed when it is whole: whenever the process ends, what lies in the folder is one
    whole epoch. Of several processes the first one writes, and all read. Within a `with` block no other training can
    use the folder.
    """

    def __init__(self, folder, compute, model, optimizer, scheduler, loader, facts, accelerator=None):
        self.folder, self.compute, self.accelerator = folder, compute, accelerator
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler
        self.generator = getattr(loader.sampler, "generator", None)
        shapes = [[name, *tensor.shape] for name, tensor in model.state_dict().items()]
        self.facts = json.loads(json.dumps([facts, shapes]))
        self.last = folder.path / "last.safetensors"
        self.alone = folder.alone() if compute.rank == 0 else nullcontext()

    def __enter__(self):
        self.alone.__enter__()
        return self

    def __exit__(self, *error):
        return self.alone.__exit__(*error)

    def resume(self):
        """Take up an interrupted training of the same kind; returns its history, empty where there is none."""
        if not self.last.exists():
            return []
        with safe_open(self.last, framework="pt") as file:
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
        self.compute.scaler.load_state_dict(facts["scaler"])
        for name, (_, put) in self._random().items():
            put(parts["random"][name])
        history = facts["history"]
        if self.compute.rank == 0:
            print(f"going on after epoch {len(history)}, where an earlier training was cut off", flush=True)
        return history

    def save(self, history):
        """Write the state after an epoch."""
        if self.compute.rank:
            return
        best = best_epoch(history)
        if best == history[-1]["epoch"] - 1:  # it is about to be replaced
            with self.folder.writing(f"best-{best}.safetensors") as path:
                shutil.copyfile(self.last, path)
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for number, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": tensor for name, tensor in slots.items()}
        tensors |= {f"random.{name}": get() for name, (get, _) in self._random().items()}
        rates = [group["lr"] for group in self.optimizer.param_groups]
        facts = {"facts": self.facts, "history": history, "rates": rates, "step": self.scheduler.last_epoch}
        with self.folder.writing(self.last.name) as path:
            text = json.dumps(facts | {"scaler": self.compute.scaler.state_dict()})
            save_file(_copies(tensors), path, {"json": text})
        for path in self.folder.path.glob("best-*.safetensors"):
            if path.name != f"best-{best}.safetensors":
                path.unlink()

    def finish(self, history):
        """Put the best epoch's weights into the model, and clear the folder: the training is whole."""
        self._wait()  # what the first process wrote is whole
        best = best_epoch(history)
        if best < history[-1]["epoch"]:
            path = self.folder.path / f"best-{best}.safetensors"
            tensors = load_file(path, device=str(self.compute.device))
            weights = {name[6:]: tensor for name, tensor in tensors.items() if name.startswith("model.")}
            self.model.load_state_dict(weights)
        self._wait()  # all have read it
        if self.compute.rank == 0:
            for path in (self.last, *self.folder.path.glob("best-*.safetensors")):
                path.unlink()
            for left in self.folder.path.glob(f"{WORK}*"):  # by a process that was killed while it wrote
                shutil.rmtree(left)

    def _wait(self):
        if self.accelerator:
            self.accelerator.wait_for_everyone()

    def _random(self):
        """Generators of random numbers: how to read and to set each."""
        sources = {"torch": (torch.get_rng_state, torch.set_rng_state)}
        if self.compute.device.type in ("cuda", "mps"):
            device = getattr(torch, self.compute.device.type)
            sources["device"] = (device.get_rng_state, device.set_rng_state)
        if self.generator is not None:
            sources["sampler"] = (self.generator.get_state, self.generator.set_state)
        return sources


def _copies(tensors):
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
