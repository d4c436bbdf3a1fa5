"""160,000 comments of mixed length through tokenize_splits, beside the tokenizer's own batched call on the same cores.

python benchmarks/tokenization.py [ROWS ...]     default: 40000 160000

The source lies on disk, as a hub data set does. Memory is what this process holds for itself (anonymous pages, Linux),
at its highest while it tokenizes, above what it held before. Results: results/tokenization.csv.
"""

import os
import re
import sys
import tempfile
import threading
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "true"

import datasets
import numpy as np
import pandas as pd
from common import save_results

from helpers import checkpoints, data, models, tokenization

MAX_LEN = 128


def anonymous_megabytes():
    return int(re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


class Highest(threading.Thread):
    """Watches the memory of this process: its highest value while the block ran."""

    def __enter__(self):
        self.before = self.value = anonymous_megabytes()
        self.done = threading.Event()
        self.start()
        return self

    def run(self):
        while not self.done.wait(0.05):
            self.value = max(self.value, anonymous_megabytes())

    def __exit__(self, *error):
        self.done.set()
        self.join()


def write_comments(folder, n_rows):
    """One to a dozen of the course's comments in a row, batch by batch, so that none of it stays in memory."""
    comments = data.read_rows("comments").text.tolist()

    def rows():
        rng = np.random.default_rng(0)
        for k in rng.geometric(0.35, size=n_rows):
            yield {"text": " ".join(comments[j] for j in rng.integers(len(comments), size=k))}

    return datasets.Dataset.from_generator(rows, cache_dir=folder)


def main(sizes):
    tokenizer = models.load_tokenizer(checkpoints.embedded_checkpoint())
    results = []
    for n_rows in sizes:
        with tempfile.TemporaryDirectory() as folder:
            comments = write_comments(folder, n_rows)
            texts = comments["text"][:]
            start = time.perf_counter()
            for i in range(0, n_rows, 1000):
                tokenizer(texts[i : i + 1000], truncation=True, max_length=MAX_LEN, return_token_type_ids=False)
            results.append([n_rows, "tokenizer alone, batched", time.perf_counter() - start, float("nan")])
            del texts
            for processes in (1, os.cpu_count()):
                # several processes with one thread each, or one process with a thread a core
                os.environ["TOKENIZERS_PARALLELISM"] = "true" if processes == 1 else "false"
                with Highest() as memory:
                    start = time.perf_counter()
                    tokenization.tokenize_splits({"train": comments}, tokenizer, MAX_LEN, num_proc=processes)
                    seconds = time.perf_counter() - start
                name = f"tokenize_splits, {processes} process{'es' * (processes > 1)}"
                results.append([n_rows, name, seconds, memory.value - memory.before])
            os.environ["TOKENIZERS_PARALLELISM"] = "true"
    table = pd.DataFrame(results, columns=["rows", "step", "seconds", "megabytes"])
    table["rows per second"] = table["rows"] / table["seconds"]
    alone = table[table["step"].str.startswith("tokenizer")].set_index("rows")["rows per second"]
    table["share of the tokenizer's speed"] = table["rows per second"] / table["rows"].map(alone)
    save_results("tokenization", table)


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]] or [40_000, 160_000])
