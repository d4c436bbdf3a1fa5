"""Rules that hold for the notebooks and files as they are committed."""

import ast
import base64
import importlib
import json
import re
import tomllib

import pytest
from conftest import NOTEBOOKS, ROOT

REMOVED = (
    r"evaluation_strategy|load_metric|encode_plus|pad_to_max_length|overwrite_output_dir|warmup_ratio|no_cuda|past_index|TRANSFORMERS_CACHE"
    r"|notebook_login|trust_remote_code|from transformers import AdamW|filterwarnings\(.ignore.\)|torch\.load\(|pickle"
)
OLD_TRAINER = r"(?<!Weighted)Trainer\((?:[^()]|\([^()]*\))*?\btokenizer="


def cells_of(path, kind="code"):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def source(cell):
    return "".join(cell["source"])


def tags(cell):
    return cell["metadata"].get("tags", [])


def test_there_are_six_notebooks_in_the_readme():
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"notebooks/{path.name}" in readme for path in NOTEBOOKS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
class TestNotebook:
    def test_is_stored_executed_in_order_and_without_errors(self, path):
        code = [cell for cell in cells_of(path) if source(cell).strip()]
        assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)), (
            "run `make notebooks` after an edit"
        )
        assert not [o for cell in code for o in cell["outputs"] if o["output_type"] == "error"]
        assert not [o["text"] for cell in code for o in cell["outputs"] if o.get("name") == "stderr"], (
            "a warning or progress bar is stored"
        )

    def test_calls_nothing_that_was_removed_or_is_unsafe(self, path):
        for cell in cells_of(path):
            if "raises-exception" not in tags(cell):
                assert not re.search(REMOVED, source(cell)), source(cell)
                assert not re.search(OLD_TRAINER, source(cell)), source(cell)

    def test_has_no_widget_state_and_no_path_of_the_machine(self, path):
        text = path.read_text(encoding="utf-8")
        assert "widgets" not in json.loads(text)["metadata"]
        assert "application/vnd.jupyter.widget" not in text
        outputs = json.dumps([cell["outputs"] for cell in cells_of(path)])
        for place in ("/home/", "/root/", "/tmp/", "/Users/", "C:\\\\", str(ROOT)):
            assert place not in outputs

    def test_starts_with_the_set_up_and_the_parameters(self, path):
        code = cells_of(path)
        assert tags(code[0]) == ["setup"]
        assert tags(code[1]) == ["parameters"]
        assert source(code[0]) == source(cells_of(NOTEBOOKS[0])[0])
        assert source(code[1]) == source(cells_of(NOTEBOOKS[0])[1])
        names = [line.split(" = ")[0] for line in source(code[1]).splitlines()]
        assert names == [
            "PROFILE",
            "DATASET",
            "CHECKPOINT",
            "MAX_LEN",
            "TRAIN_BATCH_SIZE",
            "VALID_BATCH_SIZE",
            "EPOCHS",
            "LEARNING_RATE",
            "SEED",
            "OUTPUT_DIR",
        ]

    def test_the_test_split_is_opened_last_and_once(self, path):
        """Nothing is trained or chosen after final_test(); only notebook 05 calls it."""
        code = "\n".join(source(cell) for cell in cells_of(path))
        assert code.count("final_test()") == (1 if path.stem.startswith("05") else 0)
        after = code.partition("final_test()")[2]
        assert not re.search(r"tune_thresholds\(|\btune\(|best_f1_threshold\(|\.train\(|\bfit\(|fine_tune\(", after)
        assert "_splits" not in code.replace("load_splits", "").replace("read_splits", "").replace(
            "tokenize_splits", ""
        )

    def test_reads_well_by_count(self, path):
        code = sorted(len([line for line in source(cell).splitlines() if line.strip()]) for cell in cells_of(path))
        assert code[len(code) // 2] <= 6
        assert code[int(0.9 * (len(code) - 1))] <= 15
        assert code[-1] <= 30
        kinds = "".join("c" if cell["cell_type"] == "code" else "m" for cell in json.loads(path.read_text())["cells"])
        assert 1.1 <= kinds.count("m") / kinds.count("c") <= 2.0
        assert "ccc" not in kinds

    def test_links_lead_somewhere(self, path):
        for cell in cells_of(path, "markdown"):
            for target in re.findall(r"\]\((?!http)([^)#]+)", source(cell)):
                assert (path.parent / target).exists(), target


PAIRS = tomllib.loads((ROOT / "tests" / "same_code.toml").read_text())["pair"]


def plain_tree(code, name):
    """The syntax tree of a function or class, without docstrings and annotations."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            for inner in ast.walk(node):
                if (
                    isinstance(inner, ast.FunctionDef | ast.ClassDef)
                    and isinstance(inner.body[0], ast.Expr)
                    and isinstance(inner.body[0].value, ast.Constant)
                ):
                    inner.body = inner.body[1:]
                if isinstance(inner, ast.arg):
                    inner.annotation = None
                if isinstance(inner, ast.FunctionDef):
                    inner.returns = None
            return ast.dump(node)
    return None


@pytest.mark.parametrize("pair", PAIRS, ids=lambda p: p["name"])
def test_shown_code_is_the_helpers_code(pair):
    shown = [
        tree
        for cell in cells_of(ROOT / "notebooks" / f"{pair['notebook']}.ipynb")
        if (tree := plain_tree(source(cell).replace(";\n", "\n"), pair["name"]))
    ]
    module = importlib.import_module(f"helpers.{pair['module']}")
    helper = plain_tree((ROOT / "helpers" / f"{pair['module']}.py").read_text(encoding="utf-8"), pair["name"])
    assert hasattr(module, pair["name"])
    assert shown == [helper]


def test_train_one_epoch_is_short():
    code = (ROOT / "helpers" / "training.py").read_text()
    node = next(n for n in ast.walk(ast.parse(code)) if isinstance(n, ast.FunctionDef) and n.name == "train_one_epoch")
    assert node.end_lineno - node.body[1].lineno + 2 <= 25


def names(lines):
    return {line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()}


def test_every_list_of_requirements_says_the_same():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ROOT / "requirements.txt").read_text()
    runtime, _, tools = text.partition("# Tools")
    assert names(runtime.splitlines()) == set(project["dependencies"])
    conda = (ROOT / "environment.yml").read_text()
    assert "-r requirements.txt" in conda
    for line in (runtime + tools).splitlines():
        if re.match(r"[a-z]", line):
            assert "  # " in line, f"no reason beside {line}"
            name = re.split(r"[<>=]", line)[0]
            assert re.search(rf"^{name}==", (ROOT / "constraints.txt").read_text(), re.MULTILINE | re.IGNORECASE), (
                f"{name} is not in constraints.txt"
            )
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text().splitlines()


def test_version_and_address_stand_the_same_everywhere():
    from helpers import COURSE, __version__

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    setup = source(cells_of(NOTEBOOKS[0])[0])
    assert (project["name"], project["version"]) == (COURSE, __version__)
    assert f'COURSE = ("{COURSE}", "{__version__}")' in setup
    assert project["urls"]["Repository"] + "/archive/refs/tags/" in setup


def test_every_helpers_module_has_a_test():
    for module in (ROOT / "helpers").glob("*.py"):
        if module.stem != "__init__":
            assert (ROOT / "tests" / f"test_{module.stem.strip('_')}.py").exists()


def test_the_picture_in_the_readme_is_the_notebooks():
    outputs = [
        output["data"]["image/png"]
        for cell in cells_of(NOTEBOOKS[2])
        for output in cell["outputs"]
        if "image/png" in output.get("data", {})
    ]
    assert base64.b64encode((ROOT / "docs" / "result.png").read_bytes()).decode() in {
        "".join(png).replace("\n", "") for png in outputs
    }
