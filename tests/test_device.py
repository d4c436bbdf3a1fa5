import random

import numpy as np
import pytest
import torch

from helpers import device
from helpers.settings import ParameterError

CPU = torch.device("cpu")


def test_precision_follows_device_and_override(monkeypatch):
    monkeypatch.setenv("MULTILABEL_COURSE_PRECISION", "fp32")
    assert device.pick_precision(CPU) == "fp32"
    monkeypatch.setenv("MULTILABEL_COURSE_PRECISION", "half")
    with pytest.raises(ParameterError, match="is 'half'; it takes fp32, bf16, fp16"):
        device.pick_precision(CPU)
    monkeypatch.delenv("MULTILABEL_COURSE_PRECISION")
    for has, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(device, "_cpu_has_bf16", lambda has=has: has)
        assert device.pick_precision(CPU) == expected
    for has, expected in ((True, "bf16"), (False, "fp16")):
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True, has=has: has or including_emulation
        )
        assert device.pick_precision(torch.device("cuda")) == expected


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_forward_pass_runs_in_the_chosen_precision(precision, dtype):
    compute = device.Compute(CPU, precision)
    layer = torch.nn.Linear(2, 2)
    with compute.autocast():
        assert layer(torch.ones(1, 2)).dtype == dtype
    assert not compute.scaler.is_enabled()
    assert device.Compute(CPU, "fp16").scaler.is_enabled()


def test_attention_is_written_out_on_a_cpu_only():
    assert device.Compute(CPU).attention == "eager"
    assert device.Compute(torch.device("cuda")).attention is None


def test_the_rank_is_torchruns(monkeypatch):
    assert device.pick_compute().rank == 0
    monkeypatch.setenv("RANK", "3")
    assert device.pick_compute().rank == 3


def test_seeding_reaches_all_three():
    def draw():
        return random.random(), np.random.random(), torch.rand(1).item()

    device.seed_everything(5)
    first = draw()
    device.seed_everything(5)
    assert draw() == first
