"""The pages beside the notebooks: what they link to is there, and what they list is taught."""

import re

import pytest
from conftest import NOTEBOOKS, ROOT

from helpers import __version__

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COURSE = "https://github.com/multilabel-course/multilabel-course/blob/main/"
# At the version that a notebook's first cell installs, not at what main has become since.
COLAB = f"https://colab.research.google.com/github/multilabel-course/multilabel-course/blob/v{__version__}/"
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
ENTRY = re.compile(r"^- \*\*(.+?)\*\*: .+ \[notebook (\d)\]\(\.\./notebooks/((\d\d)_\w+)\.ipynb\)$", re.MULTILINE)


def text_of(name):
    """A notebook's text, without what marks its lines as comments."""
    return (ROOT / "notebooks" / "text" / f"{name}.py").read_text(encoding="utf-8").replace("\n# ", " ").casefold()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_links_of_a_page_lead_somewhere(page):
    targets = re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_readme_opens_each_notebook_in_colab():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    opened = re.findall(rf"\({re.escape(COLAB)}notebooks/(\w+\.ipynb)\)", readme)
    assert opened == [path.name for path in NOTEBOOKS]
    assert readme.count("colab.research.google.com") == len(NOTEBOOKS)


def test_the_readme_names_the_pinned_torch_and_its_cpu_build():
    pinned = re.search(r"^torch==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"`torch=={pinned}`" in readme
    assert f"`{pinned}+cpu`" in readme


def test_the_glossary_lists_each_term_once_and_where_it_is_taught():
    entries = ENTRY.findall(GLOSSARY)
    assert len(entries) == GLOSSARY.count("\n- ")
    terms = [term for term, *_ in entries]
    assert len(terms) == len(set(terms)) > 50
    for term, number, name, digits in entries:
        assert int(number) == int(digits), term
        assert term.casefold() in text_of(name), f"{term} is not in {name}"


def test_the_glossary_names_its_folded_terms():
    for summary, body in re.findall(r"<summary><b>[^<]+</b>: (.+?)</summary>(.+?)</details>", GLOSSARY, re.DOTALL):
        assert summary.split(", ") == [term for term, *_ in ENTRY.findall(body)]


@pytest.mark.parametrize("number", ["01", "02", "03", "04", "05", "06"])
def test_the_glossary_is_linked_near_the_objectives(number):
    name = next(path.stem for path in NOTEBOOKS if path.name.startswith(number))
    opening = text_of(name).partition("## set-up")[0]
    assert f"]({COURSE}docs/glossary.md)" in opening


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_links_into_the_repository_lead_somewhere(path):
    targets = re.findall(rf"{re.escape(COURSE)}([\w/.-]+)", text_of(path.stem))
    assert [target for target in targets if not (ROOT / target).exists()] == []
