"""What the benchmarks share: where results go, and on which machine and with which versions they were had."""

import datetime
import os
import platform
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("torch", "transformers", "tokenizers", "datasets", "scikit-learn", "pandas", "pyarrow")


def machine():
    """The processor, the number of cores and, where there is one, the GPU."""
    import torch

    name = platform.processor() or platform.machine()
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.exists():
        found = [line.split(":")[1].strip() for line in cpu_info.read_text().splitlines() if "model name" in line]
        name = found[0] if found else name
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{name}, {os.cpu_count()} cores{gpu}"


def save_results(name, table):
    """Print a table and write it to results/<name>.csv with the date, the versions and the machine in every row."""
    versions = " ".join(f"{library} {version(library)}" for library in LIBRARIES)
    print(table.to_string(index=False))
    table = table.assign(date=datetime.date.today().isoformat(), machine=machine(), versions=versions)
    RESULTS.mkdir(exist_ok=True)
    table.to_csv(RESULTS / f"{name}.csv", index=False, float_format="%.6g")
    print(f"written to {RESULTS / name}.csv")
