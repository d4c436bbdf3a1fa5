import numpy as np
import torch

from helpers.labels import count_positives, known, label_shares


def test_unknown_cells_are_neither_yes_nor_no():
    y = np.array([[1, 0, -100], [-100, 0, -100], [1, 1, -100], [0, -100, -100]], dtype=np.float32)
    assert known(y).tolist() == (y >= 0).tolist()
    assert torch.equal(known(torch.tensor(y)), torch.tensor(y) >= 0)
    assert count_positives(y).tolist() == [2, 1, 0]
    assert label_shares(y).tolist() == [np.float32(2 / 3), np.float32(1 / 3), 0]
    assert label_shares(y).dtype == np.float32
    full = np.abs(y.clip(min=0))
    assert np.array_equal(label_shares(full), full.mean(axis=0)), "bit for bit, where nothing is unknown"
