"""Rules that hold for the notebooks and files as they are committed."""

import ast
import base64
import importlib
import json
import re
import tomllib

import pytest
from conftest import APPENDIX, NOTEBOOKS, ROOT

import helpers
from helpers import __version__, notebooks

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


def test_there_are_six_notebooks_and_the_appendix_in_the_readme():
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06"]
    assert all(path.name.startswith("A") for path in APPENDIX)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(path.relative_to(ROOT).as_posix() in readme for path in NOTEBOOKS + APPENDIX)
    texts = notebooks.find_notebooks(ROOT, appendix=True, texts=True)
    assert [notebooks.counterpart(ROOT, path) for path in texts] == NOTEBOOKS + APPENDIX
    assert "*.ipynb" in (ROOT / ".gitattributes").read_text()


@pytest.mark.parametrize("path", NOTEBOOKS + APPENDIX, ids=lambda p: p.stem)
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
            "LABEL_NAMES",
            "UNKNOWN",
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
        assert "._test" not in code

    def test_reads_well_by_count(self, path):
        code = sorted(len([line for line in source(cell).splitlines() if line.strip()]) for cell in cells_of(path))
        assert code[len(code) // 2] <= 6
        assert code[-1] <= 30

    def test_is_made_from_its_text(self, path, tmp_path):
        """Cells, their kinds and their tags; after an edit of the text: `make notebooks`."""
        notebooks.from_text(notebooks.counterpart(ROOT, path), tmp_path / path.name)
        made, stored = (json.loads(p.read_text(encoding="utf-8")) for p in (tmp_path / path.name, path))
        kept = ("id", "cell_type", "metadata", "source")
        cells = [[{name: cell[name] for name in kept} for cell in notebook["cells"]] for notebook in (made, stored)]
        assert cells[0] == cells[1]

    def test_shows_no_function_that_takes_a_whole_run(self, path):
        for cell in cells_of(path):
            for node in ast.walk(ast.parse(source(cell))):
                if isinstance(node, ast.FunctionDef):
                    assert "run" not in [argument.arg for argument in node.args.args], node.name

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
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    setup, citation = source(cells_of(NOTEBOOKS[0])[0]), (ROOT / "CITATION.cff").read_text()
    assert project["version"] == __version__
    assert f'VERSION = "{__version__}"' in setup
    assert project["urls"]["Repository"] + "/archive/refs/tags/v{VERSION}.zip" in setup
    assert f"\nversion: {__version__}\n" in citation
    assert f"\nrepository-code: {project['urls']['Repository']}\n" in citation
    assert f"/blob/v{__version__}/" in (ROOT / "README.md").read_text()
    assert re.search(rf"^## {re.escape(__version__)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


# The helpers ----------------------------------------------------------------------------------------------------------

MODULES = [path.stem for path in sorted((ROOT / "helpers").glob("*.py")) if path.stem != "__init__"]


def tree(module):
    return ast.parse((ROOT / "helpers" / f"{module}.py").read_text(encoding="utf-8"))


def imports(module):
    """The helpers modules that a helpers module imports, anywhere in it."""
    found = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom) and node.module == "helpers":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("helpers."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("helpers.")}
    return found & set(MODULES)


def groups():
    """The map in helpers/__init__.py: subjects, what they stand on, what joins them."""
    paragraphs = helpers.__doc__.split("\n\n")
    return [re.findall(r"^(\w+) {2,}", part, re.MULTILINE) for part in paragraphs if re.match(r"\w+ {3,}", part)]


def test_the_map_of_the_helpers_names_every_module_once():
    assert sorted(sum(groups(), [])) == sorted(MODULES)


def test_modules_import_downwards_and_never_in_a_circle():
    subjects, below, joining = groups()
    allowed = {module: {*below} for module in below}
    allowed |= {module: {*subjects, *below} for module in subjects}
    allowed |= {module: set(MODULES) for module in joining}
    for module in MODULES:
        assert imports(module) <= allowed[module], module
    left = {module: imports(module) for module in MODULES}
    while free := [module for module, needs in left.items() if not needs & set(left)]:
        for module in free:
            del left[module]
    assert not left, f"these import each other: {left}"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_can_be_read_in_one_go(module):
    assert len((ROOT / "helpers" / f"{module}.py").read_text(encoding="utf-8").splitlines()) <= 650
    for node in tree(module).body:
        if isinstance(node, ast.ClassDef):
            members = [m.target.id if isinstance(m, ast.AnnAssign) else getattr(m, "name", "_") for m in node.body]
            assert len([name for name in members if not name.startswith("_")]) <= 12, node.name


def test_one_way_for_each_thing():
    code = {module: (ROOT / "helpers" / f"{module}.py").read_text(encoding="utf-8") for module in MODULES}

    def where(pattern):
        return [module for module, text in code.items() for _ in re.findall(pattern, text)]

    assert where(r"\bsigmoid\(|\bexpit\(") == ["models"], "to_probabilities"
    assert where(r"y_prob\)? >=? ") == ["metrics"], "decide"
    assert set(where(r"filterwarnings|disable_progress|set_verbosity|TQDM_DISABLE")) == {"quiet"}
    for module in MODULES:
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.FunctionDef):
                order = [argument.arg for argument in node.args.args]
                if {"y_true", "y_prob"} <= set(order):
                    assert order.index("y_true") + 1 == order.index("y_prob"), node.name


def test_benchmarks_do_nothing_when_imported_and_replace_nothing():
    for path in (ROOT / "benchmarks").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "mock" not in text, path.name
        *rest, last = ast.parse(text).body
        if path.stem != "common":
            assert isinstance(last, ast.If), f"{path.name} has no main guard"
            assert "__main__" in ast.unparse(last.test), path.name
        quiet = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign)
        for node in rest:
            docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            assert docstring or isinstance(node, quiet), f"{path.name}, line {node.lineno}"


def test_every_helpers_module_has_a_test():
    for module in (ROOT / "helpers").glob("*.py"):
        if module.stem != "__init__":
            assert (ROOT / "tests" / f"test_{module.stem.strip('_')}.py").exists()


def test_the_picture_in_the_readme_is_the_notebooks():
    outputs = [
        output["data"]["image/png"]
        for cell in cells_of(APPENDIX[0])
        for output in cell["outputs"]
        if "image/png" in output.get("data", {})
    ]
    assert base64.b64encode((ROOT / "docs" / "result.png").read_bytes()).decode() in {
        "".join(png).replace("\n", "") for png in outputs
    }
