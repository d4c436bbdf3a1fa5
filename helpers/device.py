"""The hardware that computes: device, precision, attention and process, chosen once; and the seeds."""

import os
import random
import re
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from helpers.settings import ParameterError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Compute:
    """Where and how tensors are computed.

    Attributes
    ----------
    device : torch.device
    precision : str
        "fp32", "bf16" or "fp16": the forward pass's; weights and loss are always float32.
    rank : int
        Number of this process among those that train together; 0 writes and prints.
    attention : str or None
        How attention is computed; None is the library's choice.
    scaler : torch.amp.GradScaler
        Does nothing except for fp16, whose small gradients would vanish.
    """

    device: torch.device
    precision: str = "fp32"
    rank: int = 0
    attention: str | None = field(init=False)
    scaler: torch.amp.GradScaler = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        # On a CPU the written-out attention trains faster than the fused one (benchmarks/attention.py).
        object.__setattr__(self, "attention", "eager" if self.device.type == "cpu" else None)
        scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        object.__setattr__(self, "scaler", scaler)

    def autocast(self):
        """Context in which the forward pass runs in the chosen precision."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=PRECISIONS[self.precision])

    def __str__(self):
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"{self.device.type}, {torch.get_num_threads()} threads"


CPU = Compute(torch.device("cpu"))


def pick_compute():
    """The Compute of this machine and process: cuda, else mps, else cpu; torchrun numbers the processes in $RANK."""
    device = pick_device()
    return Compute(device, pick_precision(device), int(os.environ.get("RANK", 0)))


def pick_device():
    """The torch.device to use: cuda, else mps, else cpu."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def pick_precision(device):
    """bf16 where the hardware computes in it, fp16 on other CUDA cards, else fp32.

    $MULTILABEL_COURSE_PRECISION overrides. Emulated bf16 (a T4, a CPU without the instructions) is slower than what it
    replaces.

    Raises
    ------
    ParameterError
        When the variable holds something else.
    """
    forced = os.environ.get("MULTILABEL_COURSE_PRECISION")
    if forced:
        if forced not in PRECISIONS:
            raise ParameterError(f"MULTILABEL_COURSE_PRECISION is {forced!r}; it takes {', '.join(PRECISIONS)}")
        return forced
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu" and _cpu_has_bf16():
        return "bf16"
    return "fp32"


def _cpu_has_bf16():
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return bool(re.search(r"\b(avx512_bf16|amx_bf16)\b", flags))


def seed_everything(seed):
    """Seed Python, NumPy and PyTorch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
