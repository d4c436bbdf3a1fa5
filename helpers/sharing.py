"""The Trainer in several processes, and after a cut: `train_together`, and below it what it consists of.

The processes are started by torchrun or `accelerate launch`; one that was started alone is a group of one.
"""

import json
import shutil
import time
from contextlib import ExitStack
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from helpers import files
from helpers.data import DataError
from helpers.labels import UNKNOWN
from helpers.settings import ParameterError
from helpers.trainer import WeightedTrainer, build_trainer, save_results, untrained
from helpers.training import loss_fn


def join(cpu):
    """Join the processes that were started together; returns the accelerate.PartialState, which knows their number."""
    return PartialState(cpu=cpu)


def train_together(run):
    """Make sure that the run's fine-tuned model is there, as `helpers.trainer.fine_tune` does, by all processes.

    Each process takes its share of every batch, so that the batch size of the settings stays that of all together, and
    a step is the step of one process. After each epoch all that the next one depends on is kept in `checkpoints/` in
    the run's folder, until the model is saved. Training that was cut off goes on after the last whole epoch when the
    same run is trained again: its key covers all that shapes the model. In one process it ends with the weights that it
    would have had, bit for bit; in another number of processes than before, with nearly these.

    A checkpoint of the Trainer holds files of torch.save (optimizer, random numbers). They are this function's own,
    read back as plain tensors and numbers, and deleted at the end; what is saved for good is safetensors only.

    Parameters
    ----------
    run : helpers.runtime.Run
        Of the same parameters in every process, with a folder that all of them see.

    Returns
    -------
    bool
        Whether something was trained; False where the model was there already.

    Raises
    ------
    helpers.settings.ParameterError
        The batch size cannot be shared out, the folder cannot be written, or another training is at work in it.
    FloatingPointError
        When a loss is not finite; the checkpoints are deleted, as going on would lead there again.
    """
    state, folder = PartialState(), run.folder.path / "checkpoints"
    check_shares(run.settings.train_batch_size, state.num_processes)
    with ExitStack() as stack:
        in_the_first(lambda: stack.enter_context(run.folder.alone()))
        there = _told(run.folder.model.exists())
        if not there:
            try:
                _train(run, state, folder.resolve())
            except FloatingPointError:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        if state.is_main_process:
            shutil.rmtree(folder, ignore_errors=True)
    state.wait_for_everyone()
    return not there


def _train(run, state, folder):
    start, last = time.perf_counter(), _told(last_whole(folder))
    model, tokenizer, pos_weight = untrained(run)
    processes = state.num_processes
    trainer = build_trainer(
        run,
        model,
        tokenizer,
        pos_weight,
        folder,
        SharedTrainer,
        accelerator_config={"split_batches": True},  # so that batch sizes are those of all processes together
        per_device_eval_batch_size=-(-run.settings.valid_batch_size // processes) * processes,
        save_total_limit=None,  # EpochKeeper deletes
    )
    for callback in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(callback)
    trainer.add_callback(EpochKeeper)
    printer = EpochPrinter()
    trainer.add_callback(printer)
    if last:
        trainer.epochs_done = round(read_state(last)["epoch"])
        print(f"going on after epoch {trainer.epochs_done}, where an earlier training was cut off", flush=True)
    try:
        trainer.train(resume_from_checkpoint=last and str(last))
    finally:
        printer.close()
    if state.is_main_process:
        seconds = float("nan") if last else time.perf_counter() - start
        save_results(run, trainer, tokenizer, seconds)
    else:
        trainer.predict(trainer.eval_dataset)  # its share of what the first one saves


class SharedTrainer(WeightedTrainer):
    """A WeightedTrainer of which several processes make the steps of one, and which can begin after some epochs.

    With `split_batches`, each process takes an equal share of each batch. So that this is possible for the short batch
    at the end of an epoch, accelerate fills it up with rows of the first one; here these count for nothing, neither in
    the loss of training nor in that of validation.

    Attributes
    ----------
    epochs_done : int
        Epochs of an earlier training that this one continues.
    """

    epochs_done = 0

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        return super().get_batch_samples(self._without_fillers(epoch_iterator), num_batches, device)

    def _without_fillers(self, batches):
        for batch in batches:
            gradient, size = self.accelerator.gradient_state, len(batch["labels"])
            if self.accelerator.num_processes > 1 and gradient.end_of_dataloader and gradient.remainder > 0:
                own = min(max(gradient.remainder - size * self.accelerator.process_index, 0), size)
                batch["labels"][own:] = UNKNOWN
            yield batch

    def evaluation_loop(self, *args, metric_key_prefix="eval", **kwargs):
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        logits, labels = torch.from_numpy(output.predictions).float(), torch.from_numpy(output.label_ids)
        weights = None if self.pos_weight is None else self.pos_weight.cpu()
        output.metrics[f"{metric_key_prefix}_loss"] = loss_fn(logits, labels, weights).item()  # of the rows alone
        return output

    def _get_train_sampler(self, train_dataset=None):
        sampler = super()._get_train_sampler(train_dataset)
        for _ in range(self.epochs_done):  # its random numbers go on where they were
            list(sampler)
        return sampler


# Whole epochs ---------------------------------------------------------------------------------------------------------


class EpochKeeper(TrainerCallback):
    """Seals each checkpoint when all processes have written theirs, and deletes all but it and the best.

    The Trainer writes into a checkpoint's folder as it goes, and deletes the one before. When the process ends on the
    way, only the seal (`files.seal`) tells that a folder is whole.
    """

    def on_train_begin(self, args, state, control, **kwargs):
        if state.best_global_step:  # the folder may have been moved since
            state.best_model_checkpoint = str(_checkpoint(args.output_dir, state.best_global_step))

    def on_save(self, args, state, control, **kwargs):
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            kept = [_checkpoint(args.output_dir, step) for step in (state.global_step, state.best_global_step)]
            files.seal(kept[0])
            for folder in Path(args.output_dir).glob("checkpoint-*"):
                if folder not in kept:
                    shutil.rmtree(folder)


def last_whole(folder):
    """The newest checkpoint in a folder that is whole, and with it the best one of its time; None if there is none."""
    steps = [int(path.name.partition("-")[2]) for path in Path(folder).glob("checkpoint-*")]
    for step in sorted(steps, reverse=True):
        if files.is_whole(path := _checkpoint(folder, step)):
            best = read_state(path)["best_global_step"]
            if not best or files.is_whole(_checkpoint(folder, best)):
                return path
    return None


def read_state(checkpoint):
    """What the Trainer knew when it wrote a checkpoint: a dictionary (epoch, best_global_step, log_history, ...)."""
    return json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))


def _checkpoint(folder, step):
    return Path(folder) / f"checkpoint-{step}"


class EpochPrinter(ProgressCallback):
    """A progress bar, and a line an epoch as `fit` prints it."""

    def close(self):
        """End the bar where training did not, so that what is printed next has a line of its own."""
        if self.training_bar is not None:
            self.training_bar.close()
            self.training_bar = None

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and "eval_macro_ap" in logs:
            values = {
                "training loss": [row["loss"] for row in state.log_history if "loss" in row][-1],
                "validation loss": logs["eval_loss"],
                "validation macro-AP": logs["eval_macro_ap"],
            }
            text = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
            print(f"epoch {round(state.epoch)}/{args.num_train_epochs}: {text}", flush=True)


# One group ------------------------------------------------------------------------------------------------------------


def check_shares(batch_size, processes):
    """Raise ParameterError where a batch cannot be shared out equally."""
    if batch_size % processes:
        near = max(batch_size // processes, 1) * processes
        raise ParameterError(
            f"TRAIN_BATCH_SIZE is {batch_size}, that of all {processes} processes together, and cannot be shared out"
            f" equally; {near} can"
        )


def in_the_first(function):
    """Call a function in the first process while the others wait; its ParameterError or DataError is raised in all.

    Returns what it returns, None in the others.
    """
    result = error = None
    if PartialState().is_main_process:
        try:
            result = function()
        except (ParameterError, DataError) as caught:
            error = caught
    if error := _told(error):
        raise error
    return result


def _told(value):
    """The first process's value, in all of them."""
    return broadcast_object_list([value])[0]


def leave():
    """Leave the group, at the end."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
