"""Commands: `python -m helpers run` and `python -m helpers check FILE`."""

import argparse
import os
import sys
import time
from pathlib import Path

import pandas as pd

from helpers import data, reading


def main(arguments=None):
    """Parse the command line and run a command; the value returned is the exit status."""
    parser = argparse.ArgumentParser(prog="python -m helpers", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="read a data set as the notebooks do and say what is wrong with it")
    check.add_argument("file", help="a .csv, .jsonl or .parquet file, movies, comments or a hub name")
    run = commands.add_parser("run", help="execute the notebooks")
    run.add_argument("notebooks", nargs="*", help="which ones, by the start of their names (01 04); default: all")
    run.add_argument("--profile", default=None, choices=("tiny", "full"))
    run.add_argument(
        "--dataset", default=None, help="DATASET for every notebook: a file, movies, comments or a hub name"
    )
    run.add_argument("--checkpoint", default=None, help="CHECKPOINT: a folder or a hub name")
    run.add_argument("--epochs", default=None, type=int)
    run.add_argument("--output-dir", default=None, help="where artefacts and executed notebooks go; default: build")
    run.add_argument(
        "--in-place", action="store_true", help="also store the outputs in notebooks/, as they are committed"
    )
    options = parser.parse_args(arguments)
    try:
        return check_file(options.file) if options.command == "check" else run_notebooks(options)
    except (data.DataError, CommandError) as error:
        print(error, file=sys.stderr)
        return 1


class CommandError(Exception):
    """A command that cannot be carried out; its message is all that is shown."""


def check_file(file):
    """Print what a data set holds, or everything that is wrong with it; 0 or 1."""
    rows = reading.read_rows(file)
    split, notes = data.assign_splits(rows)
    equal = data.equal_texts(rows.text)
    near = len(rows.text) - len(set(data.near_duplicates(rows.text)))
    combinations = pd.DataFrame(rows.matrix).groupby(equal).nunique().gt(1).any(axis=1)
    print(f"{file}: {len(rows.text)} rows, {len(rows.label_names)} labels")
    for name, count in zip(rows.label_names, rows.matrix.sum(axis=0), strict=True):
        print(f"  {name:<24}{int(count):>8}")
    print(f"  {'without any label':<24}{int((~rows.matrix.any(axis=1)).sum()):>8}")
    print("  " + ", ".join(f"{part} {(split == part).sum()}" for part in data.SPLITS))
    print(f"  repeated texts {len(equal) - len(set(equal))}, nearly repeated {near} (these included)")
    print(f"  texts that come with different labels {combinations.sum()}")
    for note in rows.notes + notes:
        print(f"note: {note}")
    return 0


# Running the notebooks -------------------------------------------------------------------------------------------------


def find_notebooks(root, wanted=()):
    """Notebooks of a clone whose names start with one of `wanted` (all when empty), in order."""
    found = sorted((Path(root) / "notebooks").glob("*.ipynb"))
    chosen = [path for path in found if not wanted or any(path.name.startswith(w) for w in wanted)]
    if not chosen:
        raise CommandError(f"no notebook in {Path(root) / 'notebooks'} starts with {' or '.join(wanted) or 'anything'}")
    return chosen


def run_notebooks(options):
    """Execute notebooks one after the other, going on past a failed one; 0 when all succeeded, else 1."""
    from helpers import runtime

    root = runtime.find_clone() or runtime.find_clone(Path(__file__).parent)
    if root is None:
        raise CommandError("the notebooks were not found: call this inside a clone of the course")
    parameters = {
        name.upper(): getattr(options, name)
        for name in ("profile", "dataset", "checkpoint", "epochs", "output_dir")
        if getattr(options, name) is not None
    }
    if options.dataset and Path(options.dataset).exists():
        parameters["DATASET"] = str(Path(options.dataset).resolve())
    if options.output_dir:
        parameters["OUTPUT_DIR"] = str(Path(options.output_dir).resolve())
    if options.dataset:  # one clear error now, rather than six
        data.read_splits(parameters["DATASET"])
    output = Path(parameters.get("OUTPUT_DIR", root / "build"))
    output.mkdir(parents=True, exist_ok=True)
    results = []
    started = time.time()
    for path in find_notebooks(root, options.notebooks):
        seconds, error = execute(path, output / path.name, parameters)
        if error is None:
            write_html(output / path.name)
            if options.in_place:
                store(output / path.name, path)
        else:
            print(f"{path.name} failed after {seconds:.0f} s: {error}", file=sys.stderr)
        results.append((path.stem, seconds, error))
    print_table(results, headline_scores(output, started))
    print(f"Executed notebooks, HTML copies and artefacts are in {os.path.relpath(output)}/")
    failed = [name for name, _, error in results if error]
    if failed:
        print(f"FAILED: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def execute(path, target, parameters):
    """Run one notebook with papermill, its working folder being its own. Returns (seconds, error message or None)."""
    try:
        import papermill
        from papermill.exceptions import PapermillExecutionError
    except ImportError:
        raise CommandError("papermill is not installed: pip install -r requirements.txt -c constraints.txt") from None

    os.environ["TQDM_DISABLE"] = "1"  # for the kernels: a progress bar in a stored notebook is noise
    start, error = time.perf_counter(), None
    try:
        notebook = papermill.execute_notebook(
            str(path),
            str(target),
            parameters=parameters,
            cwd=str(path.parent),
            kernel_name="python3",
            progress_bar={"desc": path.stem, "unit": "cell", "disable": False},
            log_output=False,
            # the kernel would warn at every start that its traffic over the loopback is not encrypted
            extra_arguments=["--IPKernelApp.log_level=40"],
        )
        if not any(cell.get("execution_count") for cell in notebook.cells if cell.cell_type == "code"):
            error = "no cell was executed"
    except PapermillExecutionError as failure:
        error = f"cell {failure.cell_index + 1}: {failure.ename}: {failure.evalue}"
    except Exception as failure:  # a kernel that died, a notebook that is no JSON: the others still run
        error = f"{type(failure).__name__}: {failure}"
    return time.perf_counter() - start, error


def write_html(path):
    """An HTML copy beside an executed notebook."""
    from nbconvert import HTMLExporter

    html, _ = HTMLExporter().from_filename(str(path))
    path.with_suffix(".html").write_text(html, encoding="utf-8")


def store(executed, path):
    """Put an executed notebook in the place of the committed one, without papermill's notes on times and paths."""
    import nbformat

    notebook = nbformat.read(executed, as_version=4)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata = {"tags": tags} if tags else {}
    nbformat.validate(notebook)
    nbformat.write(notebook, path)


def headline_scores(output, since):
    """Validation macro-AP of each notebook's models, from the scores.csv written since a time: {notebook: text}."""
    files = [file for file in Path(output).glob("*/scores.csv") if file.stat().st_mtime >= since]
    if not files:
        return {}
    scores = pd.concat([pd.read_csv(file) for file in files])
    scores = scores[scores["metric"] == "macro-AP"]
    texts = {}
    for (notebook, split), rows in scores.groupby(["notebook", "split"], sort=False):
        pairs = ", ".join(f"{model} {value:.3f}" for model, value in zip(rows["model"], rows["value"], strict=True))
        texts.setdefault(notebook, []).append(f"{split} macro-AP: {pairs}")
    return dict(texts.items())


def print_table(results, scores):
    """Print notebook, seconds and headline scores."""
    print(f"\n{'notebook':<28}{'seconds':>8}  headline scores")
    for name, seconds, error in results:
        lines = scores.get(name, ["-"]) if error is None else ["FAILED: " + " ".join(error.split())[:160]]
        print(f"{name:<28}{seconds:>8.0f}  {lines[0]}")
        for line in lines[1:]:
            print(f"{'':<38}{line}")


if __name__ == "__main__":
    sys.exit(main())
