import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT, tiny_checkpoint

from helpers import __main__ as command
from helpers import trainer
from helpers.data import EMBEDDED
from helpers.notebooks import METADATA, counterpart, find_notebooks
from helpers.runtime import start_run


def call(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "helpers", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_check_names_the_faults_without_a_traceback(tmp_path):
    (tmp_path / "bad.csv").write_text("text,x\n,1\nb,7\n" + "c,0\n" * 10)
    result = call("check", "bad.csv", cwd=tmp_path)
    assert result.returncode == 1
    assert "row 2, column 'text'" in result.stderr
    assert "row 3, column 'x': 7 is neither 0 nor 1" in result.stderr
    assert "Traceback" not in result.stderr
    missing = call("check", "absent.csv", cwd=tmp_path)
    assert missing.returncode == 1
    assert "there is no such file" in missing.stderr
    assert "Traceback" not in missing.stderr


@pytest.mark.parametrize("name", EMBEDDED)
def test_check_describes_a_good_file(name, capsys):
    assert command.main(["check", name]) == 0
    assert "labels" in capsys.readouterr().out


def test_check_loads_neither_torch_nor_transformers():
    code = "import sys; from helpers.__main__ import main; main(['check', 'movies']); sys.exit(bool({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@pytest.fixture
def clone(tmp_path):
    """A course of four small notebooks: one that works, one that fails, one that executes nothing, one that works."""
    (tmp_path / "pyproject.toml").write_text('name = "multilabel-course"\n')
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "text").mkdir()
    for name, cells in {
        "01_good": ["print(6 * 7)"],
        "02_bad": ["x = 1", "1 / 0"],
        "03_empty": [],
        "04_good": ["y = 2"],
    }.items():
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
        nbformat.write(notebook, tmp_path / "notebooks" / f"{name}.ipynb")
        (tmp_path / "notebooks" / "text" / f"{name}.py").write_text("".join(f"# %%\n{cell}\n\n" for cell in cells))
    return tmp_path


def test_run_goes_on_past_failures_and_names_them(clone):
    result = call("run", cwd=clone)
    assert result.returncode == 1
    assert "FAILED: 02_bad, 03_empty" in result.stderr
    assert "cell 2: ZeroDivisionError" in result.stderr
    assert "no cell was executed" in result.stderr
    lines = [line for line in result.stdout.splitlines() if line[:2].isdigit()]
    assert [line.split()[0] for line in lines] == ["01_good", "02_bad", "03_empty", "04_good"]
    assert (clone / "build" / "04_good.html").exists()
    stored = json.loads((clone / "build" / "01_good.ipynb").read_text())
    assert "42" in json.dumps(stored["cells"][0]["outputs"])
    assert "01_good" in result.stderr, "the progress bar names the notebook"


def test_run_in_place_goes_from_text_through_execution_to_the_notebook(clone):
    text = clone / "notebooks" / "text" / "01_good.py"
    text.write_text('# %% [markdown]\n# # New\n\n# %% tags=["some"]\nimport os\nprint(7 * 7, os.getcwd()[-9:])\n')
    result = call("run", "01", "04", "--in-place", cwd=clone)
    assert result.returncode == 0, result.stderr
    stored = nbformat.read(clone / "notebooks" / "01_good.ipynb", as_version=4)
    assert [(cell.id, cell.cell_type) for cell in stored.cells] == [("cell-1", "markdown"), ("cell-2", "code")]
    assert stored.cells[0].source == "# New"
    assert stored.cells[1].outputs[0].text == "49 notebooks\n"
    assert stored.cells[1].metadata == {"tags": ["some"]}
    assert "papermill" not in stored.metadata
    assert not call("run", "02", "--in-place", cwd=clone).stdout.startswith("Traceback")
    assert "1 / 0" in (clone / "notebooks" / "02_bad.ipynb").read_text(), "what fails is not stored"


def test_the_appendix_is_run_where_it_is_asked_for(clone):
    for name in ("02_bad", "03_empty"):
        (clone / "notebooks" / f"{name}.ipynb").unlink()
        (clone / "notebooks" / "text" / f"{name}.py").unlink()
    text = clone / "notebooks" / "text" / "appendix" / "A1_more.py"
    text.parent.mkdir()
    text.write_text("# %%\nimport os\nprint(os.path.basename(os.getcwd()))\n")
    stored = clone / "notebooks" / "appendix" / "A1_more.ipynb"
    made = call("run", "A1", "--in-place", cwd=clone)
    assert made.returncode == 0, made.stderr
    assert nbformat.read(stored, as_version=4).cells[0].outputs[0].text == "appendix\n"
    assert counterpart(clone, stored) == text
    assert counterpart(clone, text) == stored
    for arguments, names in (
        ([], ["01_good", "04_good"]),
        (["--all"], ["01_good", "04_good", "A1_more"]),
        (["A1", "04"], ["04_good", "A1_more"]),
    ):
        found = find_notebooks(clone, [a for a in arguments if a != "--all"], "--all" in arguments)
        assert [path.stem for path in found] == names
    result = call("run", "--all", cwd=clone)
    assert result.returncode == 0, result.stderr
    cells = nbformat.read(clone / "build" / "A1_more.ipynb", as_version=4).cells
    assert cells[-1].outputs[0].text == "appendix\n", "it is run where it lies"


def test_run_in_place_takes_no_parameters(clone):
    result = call("run", "01", "--in-place", "--epochs", "1", cwd=clone)
    assert result.returncode == 1
    assert "--in-place stores what is committed: give no parameters with it" in result.stderr


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--epochs", "0", "EPOCHS is 0; it takes a whole number from 1 up"),
        ("--checkpoint", "no-such-folder", "CHECKPOINT: no-such-folder is no folder, seen from "),
        ("--output-dir", "pyproject.toml/build", "cannot be written (Not a directory); choose another folder"),
    ],
)
def test_run_refuses_wrong_parameters_in_one_sentence_before_any_notebook(clone, option, value, message):
    result = call("run", option, value, cwd=clone)
    assert result.returncode == 1
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (clone / "build").exists()


CASES = Path(__file__).parent / "cases"


@pytest.mark.parametrize(
    ("arguments", "labels"),
    [
        (["--labels", "sad,calm"], ["sad", "calm"]),
        (["--labels=-is_retweet"], ["calm", "angry", "sad"]),
        ([], ["calm", "angry", "sad", "is_retweet"]),
    ],
)
def test_check_and_run_take_labels(clone, capsys, arguments, labels):
    path = str(CASES / "metadata_01_ok.csv")
    assert command.main(["check", path, *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1 : 1 + len(labels)]] == labels
    assert lines[1 + len(labels)].split()[0] == "without"
    source = "LABEL_NAMES = None\nUNKNOWN = None\nDATASET = None"
    cells = [nbformat.v4.new_code_cell(source, metadata={"tags": ["parameters"]})]
    cells.append(nbformat.v4.new_code_cell("print(LABEL_NAMES, UNKNOWN)"))
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=METADATA), clone / "notebooks" / "01_good.ipynb")
    result = call("run", "01", "--dataset", path, *arguments, cwd=clone)
    assert result.returncode == 0, result.stderr
    printed = nbformat.read(clone / "build" / "01_good.ipynb", as_version=4).cells[-1].outputs[0].text
    assert printed == f"{arguments[-1].removeprefix('--labels=').split(',') if arguments else None} None\n"


def test_labels_without_a_data_set_are_refused(clone):
    result = call("run", "01", "--labels", "a,b", cwd=clone)
    assert result.returncode == 1
    assert "--labels and --unknown speak of a data set of your own: give --dataset, too" in result.stderr


def test_check_counts_unknown_cells_and_refers_to_the_page_of_forms(capsys):
    path = str(CASES / "kaggle_minus1_most.csv")
    assert command.main(["check", path]) == 1
    assert "docs/your_own_data.md" in capsys.readouterr().err
    assert command.main(["check", path, "--unknown"]) == 0
    out = capsys.readouterr().out
    assert "unknown cells                 51" in out
    assert "calm                           6" in out


def test_check_prints_in_a_console_that_lacks_the_letters():
    path = str(CASES / "html_emoji.csv")
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    arguments = [sys.executable, "-m", "helpers", "check", path]
    result = subprocess.run(arguments, env=environment, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "\\u65e5\\u672c" in result.stdout.decode("cp1252")


def test_a_relative_checkpoint_is_the_folder_seen_from_where_the_command_was_given(clone):
    here = clone / "elsewhere"
    folder = tiny_checkpoint(here / "models" / "mine", max_position_embeddings=130)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print(CHECKPOINT)")], metadata=METADATA)
    nbformat.write(notebook, clone / "notebooks" / "05_prints.ipynb")
    result = call("run", "05", "--checkpoint", "models/mine", cwd=here)
    assert result.returncode == 0, result.stderr
    cell = nbformat.read(clone / "build" / "05_prints.ipynb", as_version=4).cells[-1]
    assert cell.outputs[0].text == f"{folder.resolve()}\n"


def test_run_refuses_a_checkpoint_without_tokenizer_before_any_notebook(clone):
    tiny_checkpoint(clone / "mine", tokenizer=False)
    result = call("run", "--checkpoint", "mine", cwd=clone)
    assert result.returncode == 1
    assert "has no tokenizer (no tokenizer.json, no vocab.txt); save the model's own there" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (clone / "build").exists()


def test_run_refuses_bad_data_before_any_notebook(clone):
    (clone / "bad.csv").write_text("text,labels\n,a\n" + "b,a\n" * 10)
    result = call("run", "--dataset", "bad.csv", cwd=clone)
    assert result.returncode == 1
    assert "row 2, column 'text'" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (clone / "build").exists()


def test_check_says_how_rows_without_a_split_are_divided(tmp_path, capsys):
    rows = [f"text number {i} of many,{i % 2},{int(i % 3 == 0)},{int(i == 5)}" for i in range(400)]
    for columns, said in ((2, "no column split: the notebooks divide the rows, 70% train, 15%"), (3, "\n  train 2")):
        lines = [",".join(row.split(",")[: 1 + columns]) for row in ["text,a,b,c", *rows]]
        (tmp_path / "rows.csv").write_text("\n".join(lines))
        assert command.main(["check", str(tmp_path / "rows.csv")]) == 0
        out = capsys.readouterr().out
        assert said in out
        assert ("never appears in" in out) == (columns == 3), "a label on one row is missing somewhere"


# Training -------------------------------------------------------------------------------------------------------------


def training(small_run, *more):
    settings = small_run.settings
    given = {"dataset": settings.dataset, "checkpoint": settings.checkpoint, "output-dir": settings.output_dir}
    given |= {"max-len": 32, "batch-size": 8, "epochs": 1, "learning-rate": 1e-3, "seed": 1}
    return ["train", *(f"--{name}={value}" for name, value in given.items()), *more]


def test_train_saves_notebook_4s_model_prints_its_scores_and_finds_it_the_next_time(small_run, capsys, monkeypatch):
    assert command.main(training(small_run, "--labels=-ugly")) == 0
    out = capsys.readouterr().out
    (folder,) = Path(small_run.settings.output_dir).iterdir()
    assert out.rstrip().endswith(f"The model is in {folder.resolve() / 'model'}")
    assert re.search(r"^epoch 1/1: training loss \d\.\d+, validation loss .*, validation macro-AP \d", out, re.M)
    for line in ("label prior", "linear SVM", "fine-tuned", "good", "bad"):
        assert len(re.findall(rf"^{line} +\d", out, re.M)) == 1, line
    assert not re.search("^ugly", out, re.M)
    assert list(json.loads((folder / "model" / "config.json").read_text())["thresholds"]) == ["bad", "good"]
    options = {name: getattr(small_run.settings, name) for name in ("dataset", "checkpoint", "output_dir")}
    options |= {"max_len": 32, "train_batch_size": 8, "epochs": 1, "learning_rate": 1e-3, "seed": 1}
    notebook = start_run("04_trainer_class_weights", "comments", label_names=["-ugly"], **options)
    monkeypatch.setattr(trainer, "build_trainer", lambda *_: pytest.fail("trained again"))
    assert trainer.fine_tune(notebook) == folder / "model", "the notebook has the same folder"
    assert command.main(training(small_run, "--labels=-ugly")) == 0
    again = capsys.readouterr().out
    assert "the model of these parameters and data is there already: nothing was trained" in again
    assert again.partition("\nOn the validation")[2] == out.partition("\nOn the validation")[2]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--batch-size=0", "TRAIN_BATCH_SIZE is 0; it takes a whole number from 1 up"),
        ("--learning-rate=-1", "LEARNING_RATE is -1.0; it takes a number above 0"),
        ("--max-len=65", "MAX_LEN is 65, and "),
        ("--output-dir=pyproject.toml/build", "cannot be written (Not a directory); choose another folder"),
        ("--checkpoint=no-such-folder", "CHECKPOINT: no-such-folder is no folder, seen from "),
        ("--dataset=absent.csv", "there is no such file"),
        ("--labels=good,nothing", "nothing"),
    ],
)
def test_train_refuses_in_a_sentence_what_it_cannot_do(small_run, monkeypatch, capsys, option, message):
    monkeypatch.chdir(ROOT)
    assert command.main(training(small_run, option)) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not list(Path(small_run.settings.output_dir).glob("*/model"))


def test_of_several_processes_the_first_one_speaks(small_run, monkeypatch, capsys):
    monkeypatch.setattr(command, "FIRST", False)
    assert command.main(training(small_run, "--batch-size=0")) == 1
    assert capsys.readouterr() == ("", "")


def test_run_outside_a_clone_or_without_a_match_says_so(clone):
    result = call("run", "99", cwd=clone)
    assert result.returncode == 1
    assert "starts with 99" in result.stderr
    assert "Traceback" not in result.stderr
