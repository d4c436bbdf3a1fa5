"""A large CSV with 28 label columns: seconds and memory of reading and checking it, beside pandas.read_csv alone.

python benchmarks/reading.py [ROWS ...]     default: 125000 300000 500000 1000000

Each step runs in a process of its own on the same file; memory is the process's peak above what it holds after its
imports. Then, in one process, splitting and the search for near-duplicates. Results: results/reading.csv.
"""

import contextlib
import io
import json
import multiprocessing
import re
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from common import save_results

from helpers import __main__ as command
from helpers import data

N_LABELS = 28


def write_csv(path, n_rows):
    """Comments of 3 to 60 words drawn as words of a language are, a tenth of them a copy with one word changed."""
    rng = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(50_000)])
    ranks = np.minimum(rng.zipf(1.3, size=40 * n_rows), len(words)) - 1
    ends = np.minimum(np.cumsum(rng.geometric(1 / 17, size=n_rows) + 3), len(ranks))
    texts = [" ".join(words[ranks[a:b]]) or "w0" for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    for i in range(10, n_rows, 10):
        texts[i] = texts[i - 7] + ", changed"
    frame = pd.DataFrame({"id": np.arange(n_rows), "text": texts})
    labels = rng.random((n_rows, N_LABELS)) < np.geomspace(0.3, 0.001, N_LABELS)
    frame = pd.concat([frame, pd.DataFrame(labels.astype(int)).add_prefix("label")], axis=1)
    frame.to_csv(path, index=False)


def check(path):
    """python -m helpers check"""
    with contextlib.redirect_stdout(io.StringIO()):
        command.main(["check", str(path)])


def measure(function, path, answer):
    def peak():  # of this process alone, in MB (Linux); a child's ru_maxrss would start at its parent's
        return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024

    pd.read_csv(io.StringIO("a,b\n1,x\n"))  # imports what it needs
    import pyarrow.csv  # noqa: F401

    before, start = peak(), time.perf_counter()
    result = function(path)
    answer.put((time.perf_counter() - start, peak() - before))
    del result


def in_own_process(function, path):
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=measure, args=(function, path, answer))
    process.start()
    seconds, megabytes = answer.get()
    process.join()
    return seconds, megabytes


def main(sizes):
    results = []
    for n_rows in sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "large.csv"
            write_csv(path, n_rows)
            for name, function in (("pandas.read_csv", pd.read_csv), ("read_rows", data.read_rows), ("check", check)):
                # the best of three: what else the machine does only ever adds
                seconds, megabytes = min(in_own_process(function, path) for _ in range(3))
                results.append([n_rows, name, seconds, megabytes])
            rows = data.read_rows(path)
        start = time.perf_counter()
        data.split_rows(rows.text, rows.matrix)
        results.append([n_rows, "split_rows", time.perf_counter() - start, float("nan")])
        start = time.perf_counter()
        data.near_duplicates(rows.text)
        results.append([n_rows, "near_duplicates", time.perf_counter() - start, float("nan")])
        print(json.dumps(results[-5:]), flush=True)
    table = pd.DataFrame(results, columns=["rows", "step", "seconds", "megabytes"])
    for column in ("seconds", "megabytes"):
        alone = table[table["step"] == "pandas.read_csv"].set_index("rows")[column]
        table[f"{column} / read_csv"] = table[column] / table["rows"].map(alone)
    save_results("reading", table)


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]] or [125_000, 300_000, 500_000, 1_000_000])
