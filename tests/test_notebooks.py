"""Every notebook, executed once through papermill from an empty artefacts folder; what came of it is checked here."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from conftest import APPENDIX, NOTEBOOKS, ROOT
from nbval.kernel import CURRENT_ENV_KERNEL_NAME  # noqa: F401  (nbval has to be installed, or nothing is compared)
from nbval.plugin import IPyNbFile, coalesce_streams

from helpers import notebooks
from helpers.notebooks import benchmark_results, expect, show_error
from helpers.settings import choose

# How far above the label prior the fine-tuned model's macro-AP has to be on validation. The committed notebooks show
# more than 0.6 on both sets, and less than 0.2 for the recipe that hardly moves the weights.
MARGIN = 0.3


@pytest.fixture(scope="session")
def artefacts(tmp_path_factory):
    return tmp_path_factory.mktemp("artefacts")


@pytest.fixture(scope="session")
def executed(artefacts):
    """Function from a notebook's path to (executed notebook, error); each is executed once, in the order asked for.

    One epoch instead of the data's three: CPUs without bf16 are slow, and what is compared does not depend on it.
    """
    done = {}

    def execute(path):
        if path not in done:
            target = artefacts / path.name
            _, error = notebooks.execute(path, target, {"OUTPUT_DIR": str(artefacts), "EPOCHS": 1})
            done[path] = (nbformat.read(target, as_version=4) if target.exists() else None, error)
        return done[path]

    return execute


@pytest.mark.parametrize("path", NOTEBOOKS + APPENDIX, ids=lambda p: p.stem)
def test_runs_to_its_end(path, executed):
    notebook, error = executed(path)
    assert error is None
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip())


@pytest.mark.parametrize("path", NOTEBOOKS + APPENDIX, ids=lambda p: p.stem)
def test_deterministic_outputs_are_the_stored_ones(path, executed, request):
    """nbval's comparison of the cells tagged nbval-check-output, with what papermill has just executed."""
    notebook, error = executed(path)
    assert error is None
    fresh = [
        cell
        for cell in notebook.cells
        if cell.cell_type == "code" and "injected-parameters" not in cell.metadata.get("tags", [])
    ]
    stored = list(IPyNbFile.from_parent(request.session, path=Path(path)).collect())
    assert len(fresh) == len(stored)
    different, checked = [], 0
    for cell, new in zip(stored, fresh, strict=True):
        if "nbval-check-output" in cell.cell.metadata.get("tags", []):
            checked += 1
            if not cell.compare_outputs(coalesce_streams(new.outputs), coalesce_streams(cell.cell.outputs)):
                different.append(
                    f"cell {cell.cell_num}:\n{cell.cell.source[:200]}\n" + "\n".join(cell.comparison_traceback)
                )
    assert checked
    assert not different, "\n\n".join(different)


def scores(artefacts):
    table = pd.concat([pd.read_csv(file) for file in artefacts.glob("*/scores.csv")])
    return table.set_index(["notebook", "dataset", "split", "model", "metric"])["value"].sort_index()


@pytest.mark.parametrize(
    ("notebook", "dataset", "baselines"),
    [
        ("03_custom_model_training", "movies", ("linear SVM", "frozen + LR")),
        ("04_trainer_class_weights", "comments", ("linear SVM",)),
    ],
)
def test_the_fine_tuned_model_has_learned(notebook, dataset, baselines, executed, artefacts):
    for path in NOTEBOOKS:
        executed(path)
    table = scores(artefacts)
    fine_tuned = table[notebook, dataset, "validation", "fine-tuned", "macro-AP"]
    for trivial in ("all zeros", "label prior"):
        assert fine_tuned > table[notebook, dataset, "validation", trivial, "macro-AP"] + MARGIN
    for baseline in baselines:
        assert 0 < table[notebook, dataset, "validation", baseline, "macro-AP"] <= 1


def test_the_test_split_is_scored_and_predicted(executed, artefacts):
    for path in NOTEBOOKS:
        executed(path)
    table = scores(artefacts)["05_metrics_and_thresholds", "comments", "test"]
    assert table["fine-tuned", "macro-AP"] > table["label prior", "macro-AP"] + MARGIN / 2
    predictions = pd.concat([pd.read_parquet(file) for file in artefacts.glob("comments-*/predictions.parquet")])
    assert set(predictions["split"]) == {"validation", "test"}
    assert list((next(iter(artefacts.glob("comments-*"))) / "model").glob("*.safetensors"))


def test_a_model_that_learns_nothing_would_be_noticed(executed, artefacts):
    """The article's recipe barely moves the weights: the margin must not let it through."""
    executed(NOTEBOOKS[2])
    prior = scores(artefacts)["03_custom_model_training", "movies", "validation", "label prior", "macro-AP"]
    recipes = benchmark_results("recipes")
    assert recipes.loc[recipes["model"] == "article's recipe", "macro-AP"].max() < prior + MARGIN


@pytest.mark.skipif(
    "COURSE_OFFLINE" not in os.environ,
    reason="network namespaces are not allowed here: tests/offline.sh could not refuse the network",
)
def test_the_network_is_refused_in_kernels(tmp_path):
    cell = nbformat.v4.new_code_cell(
        "import socket\nprint([name for _, name in socket.if_nameindex()])\nsocket.create_connection(('192.0.2.1', 80), timeout=5)"
    )
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "call.ipynb")
    _, error = notebooks.execute(tmp_path / "call.ipynb", tmp_path / "out.ipynb", {})
    assert "Network is unreachable" in error
    assert nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[-1].outputs[0].text.strip() == "['lo']"


def test_show_error_shows_and_insists(capsys):
    with show_error():
        raise ValueError("as planned")
    assert capsys.readouterr().out == "ValueError: as planned\n"
    with pytest.raises(AssertionError, match="meant to fail"), show_error():
        pass


def test_expectations_stop_on_built_in_data_only(capsys):
    own, built_in = choose("mine.csv", "build"), choose("movies", "build")
    expect(True, "all is well", built_in)
    expect(False, "the model leads", own)
    assert "not so" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="the model leads"):
        expect(False, "the model leads", built_in)


TEXTS = notebooks.find_notebooks(ROOT, appendix=True, texts=True)


@pytest.mark.parametrize("text", TEXTS, ids=lambda p: p.stem)
def test_the_way_back_to_the_text_loses_nothing(text, tmp_path):
    """Empty lines excepted: `make texts` formats them."""
    notebooks.from_text(text, tmp_path / "made.ipynb")
    notebooks.to_text(tmp_path / "made.ipynb", tmp_path / text.name)
    back, lines = ([x for x in p.read_text("utf-8").splitlines() if x] for p in (tmp_path / text.name, text))
    assert back == lines


EXERCISE = """# %% tags=["solution", "other"]
data = [2, 3]
# Your answer, a number:
# Why it is so.
half = 5 / 2
answer = 2 * half

# %%
print(answer)

# %% [markdown]
# The end.
"""


def test_solutions_are_taken_out_and_folded_behind_the_check(tmp_path):
    (tmp_path / "text.py").write_text(EXERCISE)
    notebooks.from_text(tmp_path / "text.py", tmp_path / "made.ipynb")
    exercise, check, folded, end = nbformat.read(tmp_path / "made.ipynb", as_version=4).cells
    assert exercise.source == "data = [2, 3]\n# Your answer, a number:\nanswer = None"
    assert exercise.metadata.tags == ["exercise", "other"]
    assert check.source == "print(answer)"
    assert folded.cell_type == "markdown"
    assert folded.source.startswith(
        "<details><summary>Solution</summary>\n\n```python\n# Why it is so.\nhalf = 5 / 2\n"
    )
    assert folded.source.endswith("\nanswer = 2 * half\n```\n\n</details>")
    assert end.source == "The end."


def test_the_way_back_takes_the_folded_solution_and_no_answer(tmp_path):
    (tmp_path / "text.py").write_text(EXERCISE)
    notebooks.from_text(tmp_path / "text.py", tmp_path / "made.ipynb")
    notebook = nbformat.read(tmp_path / "made.ipynb", as_version=4)
    notebook.cells[0].source = notebook.cells[0].source.replace("None", "7").replace("[2, 3]", "[2, 3, 4]")
    notebook.cells[2].source = notebook.cells[2].source.replace("Why", "The reason why")
    nbformat.write(notebook, tmp_path / "edited.ipynb")
    notebooks.to_text(tmp_path / "edited.ipynb", tmp_path / "back.py")
    edited = EXERCISE.replace("[2, 3]", "[2, 3, 4]").replace("Why", "The reason why")
    assert (tmp_path / "back.py").read_text() == edited


@pytest.mark.parametrize(
    ("cell", "old", "new"), [(0, "# Your", "# My"), (2, "```", ""), (2, None, None)], ids=["line", "code", "cell"]
)
def test_the_way_back_refuses_to_lose_a_solution(cell, old, new, tmp_path):
    (tmp_path / "text.py").write_text(EXERCISE + "\n" + EXERCISE)
    notebooks.from_text(tmp_path / "text.py", tmp_path / "made.ipynb")
    notebook = nbformat.read(tmp_path / "made.ipynb", as_version=4)
    if old:
        notebook.cells[cell].source = notebook.cells[cell].source.replace(old, new)
    else:
        del notebook.cells[cell]
    nbformat.write(notebook, tmp_path / "edited.ipynb")
    with pytest.raises(notebooks.CommandError, match="edited.ipynb: this exercise lost its line .* or the solution"):
        notebooks.to_text(tmp_path / "edited.ipynb", tmp_path / "back.py")
    assert not (tmp_path / "back.py").exists()


@pytest.mark.parametrize(("old", "new"), [("# Your answer, a number:", "# Mine:"), ("answer = 2 * half", "2 * half")])
def test_a_solution_says_where_the_answer_begins(old, new, tmp_path):
    text = EXERCISE.replace(old, new).replace("half = 5 / 2\n", "")
    (tmp_path / "text.py").write_text(text)
    with pytest.raises(
        notebooks.CommandError, match="text.py: a cell tagged 'solution' takes one line '# Your answer'"
    ):
        notebooks.from_text(tmp_path / "text.py", tmp_path / "made.ipynb")


# `make test-all` ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def fresh_clone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clone") / "course"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    return folder


@pytest.mark.all
@pytest.mark.parametrize("path", NOTEBOOKS + APPENDIX, ids=lambda p: p.stem)
def test_runs_alone_and_first(path, fresh_clone, tmp_path):
    _, error = notebooks.execute(
        fresh_clone / path.relative_to(ROOT), tmp_path / path.name, {"OUTPUT_DIR": str(tmp_path / "build")}
    )
    assert error is None


@pytest.mark.all
@pytest.mark.parametrize("path", NOTEBOOKS[:2], ids=lambda p: p.stem)
def test_runs_on_a_file_as_kaggle_ships_it(path, tmp_path):
    """Commas and doubled quotes inside quotes, texts of several lines, `comment_text`, a label on no row."""
    rows = []
    for i in range(240):
        text = f'Page {i}, "revised"\n\nWhy was this undone?\n\t{"You fool! " * (i % 3)}-- user {i % 17}'
        rows.append(
            {"id": f"{i:016x}", "comment_text": text, "toxic": i % 3 // 2, "obscene": int(i % 7 == 0), "threat": 0}
        )
    pd.DataFrame(rows).to_csv(tmp_path / "train.csv", index=False)
    parameters = {"DATASET": str(tmp_path / "train.csv"), "OUTPUT_DIR": str(tmp_path / "build")}
    _, error = notebooks.execute(path, tmp_path / path.name, parameters)
    assert error is None


WETTER = {
    "Regen": ["es regnet seit Stunden", "die Pfützen werden größer", "nasse Schuhe"],
    "Wind": ["der Sturm rüttelt am Dach", "Böen von Westen", "die Fahne knattert"],
    "Frost": ["die Scheiben sind vereist", "minus zehn Grad", "Glätte auf den Wegen"],
    "Nebel": ["man sieht die Hand vor Augen nicht", "graue Suppe über dem Fluss"],
}


@pytest.fixture(scope="session")
def readers_own_file(tmp_path_factory):
    """300 rows in German with labels of its own, in 0/1 columns."""
    import numpy as np

    rng = np.random.default_rng(0)
    rows = []
    for i in range(300):
        present = [name for name, share in zip(WETTER, (0.45, 0.35, 0.2, 0.1), strict=True) if rng.random() < share]
        phrases = [rng.choice(WETTER[name]) for name in present] or ["ein ruhiger Tag ohne besondere Vorkommnisse"]
        rows.append({"text": f"Meldung {i}: {', '.join(phrases)}.", **{name: int(name in present) for name in WETTER}})
    path = tmp_path_factory.mktemp("own") / "wetter.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


@pytest.mark.all
@pytest.mark.parametrize("path", NOTEBOOKS + APPENDIX, ids=lambda p: p.stem)
def test_runs_on_a_readers_own_file(path, readers_own_file, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "own-build"
    _, error = notebooks.execute(
        path, folder.with_name(f"own-{path.name}"), {"DATASET": str(readers_own_file), "OUTPUT_DIR": str(folder)}
    )
    assert error is None
    assert all(file.parent.name.startswith("wetter-") for file in folder.glob("*/scores.csv"))


@pytest.fixture(scope="session")
def empty_environment(tmp_path_factory):
    """A virtual environment that sees the libraries but not the course: what Colab is to us. Returns its python."""
    folder = tmp_path_factory.mktemp("colab") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    libraries = [p for p in sys.path if p.endswith("site-packages")]
    Path(site, "libraries.pth").write_text("\n".join(libraries))
    probe = subprocess.run([python, "-c", "import helpers"], capture_output=True, check=False, cwd=folder)
    assert probe.returncode != 0
    return python


@pytest.mark.all
@pytest.mark.needs_registry
@pytest.mark.parametrize("path", NOTEBOOKS + APPENDIX, ids=lambda p: p.stem)
def test_runs_copied_alone_into_an_empty_folder(path, empty_environment, fresh_clone, tmp_path):
    """The set-up cell installs the course from the address in MULTILABEL_COURSE, here a local clone."""
    (tmp_path / path.name).write_bytes(path.read_bytes())
    result = subprocess.run(
        [empty_environment, "-m", "papermill", path.name, "out.ipynb", "-k", "python3", "--no-progress-bar"],
        cwd=tmp_path,
        env={**os.environ, "MULTILABEL_COURSE": str(fresh_clone)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    found = subprocess.run(
        [empty_environment, "-c", "import helpers; print(helpers.__file__)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    ).stdout
    assert str(empty_environment.parent.parent) in found
    assert (tmp_path / "build").exists() == path.stem.startswith(("03", "04", "05", "06"))


@pytest.mark.all
@pytest.mark.needs_registry
def test_the_set_up_cell_says_when_pip_fails(empty_environment, tmp_path):
    notebook = nbformat.read(NOTEBOOKS[0], as_version=4)
    code = next(cell.source for cell in notebook.cells if cell.cell_type == "code")
    subprocess.run(
        [empty_environment, "-m", "pip", "uninstall", "--quiet", "--yes", "multilabel-course"],
        check=True,
        capture_output=True,
    )
    result = subprocess.run(
        [empty_environment, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "MULTILABEL_COURSE": str(tmp_path / "nowhere")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode != 0
    assert "pip could not install the course from" in result.stderr


@pytest.mark.all
@pytest.mark.parametrize("found", ["another package", "another version"])
def test_the_set_up_cell_installs_over_another_version_and_names_what_is_in_the_way(found, fresh_clone, tmp_path):
    """With pip replaced by one that installs nothing: a foreign `helpers` stays in the way, and is named."""
    notebook = nbformat.read(NOTEBOOKS[0], as_version=4)
    code = next(cell.source for cell in notebook.cells if cell.cell_type == "code")
    version = "" if found == "another package" else '__version__ = "0.0.1"'
    (tmp_path / "helpers.py").write_text(version)
    fake = "import subprocess; subprocess.run = lambda command, **_: print('pip', command[-1]) or type('', (), {'returncode': 0})\n"
    result = subprocess.run(
        [sys.executable, "-c", fake + code],
        cwd=tmp_path,
        env={**os.environ, "MULTILABEL_COURSE": str(fresh_clone)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"pip {fresh_clone}" in result.stdout
    assert f"another helpers is in the way: {tmp_path / 'helpers.py'}" in result.stderr
