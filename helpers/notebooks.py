"""The notebooks as files: executed, made from their texts, stored; and what they call to show an error or a result."""

import os
import re
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from helpers import data, files, quiet
from helpers.settings import choose, writable

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


class CommandError(Exception):
    """A command that cannot be carried out; its message is all that is shown."""


# Called in notebooks --------------------------------------------------------------------------------------------------


@contextmanager
def show_error():
    """Print the error that the block raises, and go on: for mistakes that a notebook shows on purpose."""
    try:
        yield
    except Exception as error:  # whatever it is, it is what the reader should see
        print(f"{type(error).__name__}: {error}")
    else:
        raise AssertionError("this block was meant to fail and did not")


def expect(condition, message, settings):
    """On the built-in data stop when an expectation about scores fails; on other data only say so.

    Parameters
    ----------
    condition : bool
    message : str
        What is expected, as a sentence: "the fine-tuned model leads".
    settings : helpers.settings.Settings
        Tells the data set.

    Raises
    ------
    AssertionError
    """
    if condition:
        return
    if settings.dataset in data.EMBEDDED:
        raise AssertionError(f"expected on {settings.dataset}: {message}")
    print(f"On the built-in data one sees that {message}; on these data it is not so.")


def benchmark_results(name):
    """What a benchmark measured, with date, machine and versions: benchmarks/results/<name>.csv as a DataFrame.

    Raises
    ------
    FileNotFoundError
        When there is no such file in the clone or the installed course.
    """
    here = Path(__file__).resolve().parent
    for folder in (here.parent / "benchmarks" / "results", here / "_results"):
        if (folder / f"{name}.csv").exists():
            return pd.read_csv(folder / f"{name}.csv")
    raise FileNotFoundError(f"there is no benchmarks/results/{name}.csv; make it with python benchmarks/{name}.py")


# Executing them -------------------------------------------------------------------------------------------------------


APPENDIX = "appendix"  # what is for a second reading: a folder below notebooks/, and one below notebooks/text/


def find_notebooks(root, wanted=(), appendix=False, texts=False):
    """Notebooks of a clone, or their texts, in order.

    Parameters
    ----------
    root : path
    wanted : list of str
        What their names start with; they may be of the appendix. Empty: the six, and with `appendix` all.
    appendix, texts : bool
    """
    folder, kind = Path(root) / "notebooks", "*.py" if texts else "*.ipynb"
    place = folder / "text" if texts else folder
    found = sorted(place.glob(kind))
    if wanted or appendix:
        found += sorted((place / APPENDIX).glob(kind))
    chosen = [path for path in found if not wanted or any(path.name.startswith(w) for w in wanted)]
    if not chosen:
        raise CommandError(f"no notebook in {folder} starts with {' or '.join(wanted) or 'anything'}")
    return chosen


def counterpart(root, path):
    """Where the text of a notebook lies in a clone, or the notebook of a text."""
    folder, path = Path(root) / "notebooks", Path(path)
    if path.suffix == ".py":
        return folder / path.relative_to(folder / "text").with_suffix(".ipynb")
    return folder / "text" / path.relative_to(folder).with_suffix(".py")


def run_notebooks(options):
    """Execute notebooks one after the other, going on past a failed one; 0 when all succeeded, else 1."""
    root = files.find_clone() or files.find_clone(Path(__file__).parent)
    if root is None:
        raise CommandError("the notebooks were not found: call this inside a clone of the course")
    parameters = checked_parameters(options, root / "build")
    if options.in_place and parameters:
        raise CommandError("--in-place stores what is committed: give no parameters with it")
    output = Path(parameters.get("OUTPUT_DIR", root / "build"))
    output.mkdir(parents=True, exist_ok=True)
    results, started = [], time.time()
    for path in find_notebooks(root, options.notebooks, options.all, texts=options.in_place):
        target, stored = output / f"{path.stem}.ipynb", counterpart(root, path) if options.in_place else path
        if options.in_place:
            from_text(path, target)
            stored.parent.mkdir(exist_ok=True)
        seconds, error = execute(target if options.in_place else path, target, parameters, stored.parent)
        if error is None:
            write_html(target)
            if options.in_place:
                store(target, stored)
        else:
            print(f"{target.name} failed after {seconds:.0f} s: {error}", file=sys.stderr)
        results.append((path.stem, seconds, error))
    print_table(results, headline_scores(output, started))
    here = Path.cwd()
    place = output.relative_to(here) if output.is_relative_to(here) else output
    print(f"Executed notebooks, HTML copies and artefacts are in {place}")
    failed = [name for name, _, error in results if error]
    if failed:
        print(f"FAILED: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def checked_parameters(options, default_output_dir):
    """The notebooks' parameters from the command line, with whole paths; what is wrong is one error now, not six."""
    names = ("profile", "dataset", "checkpoint", "epochs", "output_dir")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    read = {name: getattr(options, name) for name in ("label_names", "unknown") if getattr(options, name) is not None}
    for name in {"dataset", "checkpoint", "output_dir"} & set(given):
        if name == "output_dir" or Path(given[name]).exists():
            given[name] = str(Path(given[name]).resolve())
    settings = choose("movies", default_output_dir, **given)
    with writable(settings.output_dir):
        files.check_writable(settings.output_dir)
    if read and "dataset" not in given:
        raise CommandError("--labels and --unknown speak of a data set of your own: give --dataset, too")
    if "dataset" in given:
        data.read_splits(given["dataset"], **read)
    return {name.upper(): value for name, value in (given | read).items()}


def execute(path, target, parameters, folder=None):
    """Run one notebook with papermill, in `folder` (default: its own). Returns (seconds, error message or None)."""
    try:
        import papermill
        from papermill.exceptions import PapermillExecutionError
    except ImportError:
        raise CommandError("papermill is not installed: pip install -r requirements.txt -c constraints.txt") from None

    os.environ.update(quiet.KERNEL_ENVIRONMENT)
    start, error = time.perf_counter(), None
    try:
        notebook = papermill.execute_notebook(
            str(path),
            str(target),
            parameters=parameters,
            cwd=str(folder or path.parent),
            kernel_name="python3",
            progress_bar={"desc": path.stem, "unit": "cell", "disable": False},
            log_output=False,
            extra_arguments=quiet.KERNEL_ARGUMENTS,
        )
        if not any(cell.get("execution_count") for cell in notebook.cells if cell.cell_type == "code"):
            error = "no cell was executed"
    except PapermillExecutionError as failure:
        error = f"cell {failure.cell_index + 1}: {failure.ename}: {failure.evalue}"
    except Exception as failure:  # a kernel that died, a notebook that is no JSON: the others still run
        error = f"{type(failure).__name__}: {failure}"
    return time.perf_counter() - start, error


def from_text(text, target):
    """Write the notebook that a script in the percent format describes; its cells have no outputs yet.

    Of a code cell tagged "solution" the answer is taken out, and folded behind the check that follows it.

    Raises
    ------
    CommandError
        When such a cell does not say where the answer begins.
    """
    import jupytext
    import nbformat

    notebook = jupytext.read(text, fmt="py:percent")
    notebook.cells = _fold_solutions(notebook.cells, text)
    notebook.metadata, notebook.nbformat_minor = METADATA, 5
    for number, cell in enumerate(notebook.cells, start=1):
        cell.id, cell.metadata = f"cell-{number}", _tags(cell)
    nbformat.write(notebook, target)


def to_text(notebook, target):
    """Write the script that a notebook is made from. Solutions are taken from where they are folded, not from answers.

    Raises
    ------
    CommandError
        When an exercise has no solution any more.
    """
    import jupytext
    import nbformat

    read = nbformat.read(notebook, as_version=4)
    read.cells = _unfold_solutions(read.cells, notebook)
    read.metadata = {"jupytext": {"notebook_metadata_filter": "-all", "cell_metadata_filter": "tags,-all"}}
    jupytext.write(read, target, fmt="py:percent")


ANSWER = re.compile(r"^(# Your answer.*\n)", re.MULTILINE)
FOLDED = "<details><summary>Solution</summary>\n\n```python\n{}\n```\n\n</details>"


def _fold_solutions(cells, text):
    """Cells of a notebook: of each solution the exercise, what comes next (its check), and the solution, folded."""
    from nbformat.v4 import new_markdown_cell

    made, folded = [], None
    for cell in cells:
        made.append(cell)
        if folded:
            made.append(folded)
            folded = None
        if "solution" in cell.metadata.get("tags", []):
            given, *answer = ANSWER.split(cell.source)
            names = re.findall(r"^(\w+) = ", answer[-1], re.MULTILINE) if len(answer) == 2 else []
            if not names:
                raise CommandError(
                    f"{text}: a cell tagged 'solution' takes one line '# Your answer', and below it 'name = ...':\n{cell.source}"
                )
            cell.source = f"{given}{answer[0]}{names[-1]} = None"
            cell.metadata["tags"] = _renamed(cell, "solution", "exercise")
            folded = new_markdown_cell(FOLDED.format(answer[1]), metadata={"tags": ["solution"]})
    return made


def _unfold_solutions(cells, notebook):
    """Cells of the script: each exercise with its solution in the place of the answer."""
    made, open_exercise = [], None
    for cell in cells:
        tags = cell.metadata.get("tags", [])
        if "solution" in tags and open_exercise:
            given, *answer = ANSWER.split(open_exercise.source)
            code = re.search(r"```python\n(.*)\n```", cell.source, re.DOTALL)
            if len(answer) != 2 or not code:
                break
            open_exercise.source = given + answer[0] + code[1]
            open_exercise.metadata["tags"] = _renamed(open_exercise, "exercise", "solution")
            open_exercise = None
            continue
        if "exercise" in tags:
            if open_exercise:
                break
            open_exercise = cell
        made.append(cell)
    if open_exercise:
        raise CommandError(
            f"{notebook}: this exercise lost its line '# Your answer' or the solution folded below it; put it back:\n"
            f"{open_exercise.source}"
        )
    return made


def _renamed(cell, old, new):
    """A cell's tags, one of them under another name."""
    return [new if tag == old else tag for tag in cell.metadata["tags"]]


def _tags(cell):
    """What is kept of a cell's metadata."""
    return {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}


def write_html(path):
    """An HTML copy beside an executed notebook."""
    from nbconvert import HTMLExporter

    html, _ = HTMLExporter().from_filename(str(path))
    path.with_suffix(".html").write_text(html, encoding="utf-8")


def store(executed, path):
    """Put an executed notebook in the place of the committed one, without papermill's notes on times and paths."""
    import nbformat

    notebook = nbformat.read(executed, as_version=4)
    notebook.metadata = METADATA
    for cell in notebook.cells:
        cell.metadata = _tags(cell)
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
