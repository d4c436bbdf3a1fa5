import subprocess
import sys

import pytest
from conftest import ROOT

from helpers import files


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_writing_keeps_the_old_file_until_the_new_one_is_whole(tmp_path):
    with files.writing(tmp_path / "run", "note.txt") as path:
        path.write_text("first")

    def interrupted():
        with files.writing(tmp_path / "run", "note.txt") as path:
            path.write_text("half of the sec")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names(tmp_path / "run") == ["note.txt"]
    assert (tmp_path / "run" / "note.txt").read_text() == "first"


def test_a_folder_takes_the_place_of_another_as_a_whole(tmp_path):
    for content in ("a", "b"):
        with files.writing(tmp_path, "folder") as path:
            path.mkdir()
            (path / content).write_text(content)
    assert names(tmp_path) == ["folder"]
    assert names(tmp_path / "folder") == ["b"]


def test_what_cannot_be_replaced_is_an_error_and_not_an_endless_loop(tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        files.replace_folder(tmp_path / "new", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "in the way"
    with pytest.raises(FileNotFoundError):
        files.replace_folder(tmp_path / "missing", tmp_path / "folder")


REPLACE = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from helpers import files
folder, me = Path(sys.argv[1]), sys.argv[2]
(folder / me).touch()
while len(list(folder.glob("[ab]"))) < 2:  # both begin together
    pass
for number in range(60):
    with files.writing(folder, "model") as path:
        path.mkdir()
        (path / "config").write_text(f"{{me}} {{number}}")
        (path / "weights").write_text(f"{{me}} {{number}}")
"""


def at_once(tmp_path, code, *arguments):
    """Two processes run a script, called with a folder, "a" or "b", and the arguments."""
    script = tmp_path / "script.py"
    script.write_text(code)
    (tmp_path / "shared").mkdir()
    command = [sys.executable, str(script), str(tmp_path / "shared")]
    running = [
        subprocess.Popen([*command, me, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for me in "ab"
    ]
    for process in running:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    return tmp_path / "shared"


def test_two_processes_can_replace_one_folder(tmp_path):
    shared = at_once(tmp_path, REPLACE.format(root=str(ROOT)))
    assert names(shared) == ["a", "b", "model"], "nothing is left over"
    assert (shared / "model" / "config").read_text() == (shared / "model" / "weights").read_text()


COUNT = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from helpers import files
folder, me = Path(sys.argv[1]), sys.argv[2]
(folder / me).touch()
while len(list(folder.glob("[ab]"))) < 2:
    pass
for _ in range(200):
    with files.lock(folder):
        path = folder / "count"
        number = int(path.read_text()) if path.exists() else 0
        path.write_text(str(number + 1))
"""


def test_a_lock_lets_one_process_at_a_time_change_a_file(tmp_path):
    assert (at_once(tmp_path, COUNT.format(root=str(ROOT))) / "count").read_text() == "400"


def test_a_lock_that_is_held_is_given_up_after_a_while_and_purposes_are_apart(tmp_path):
    with files.lock(tmp_path):
        with pytest.raises(TimeoutError), files.lock(tmp_path, patience=0):
            pass
        with files.lock(tmp_path, "training", patience=0):
            pass
    with files.lock(tmp_path, patience=0):
        pass


def test_looking_whether_a_folder_can_be_written_leaves_nothing(tmp_path):
    files.check_writable(tmp_path / "a" / "b" / "c")
    assert names(tmp_path) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        files.check_writable(tmp_path / "file" / "run")


@pytest.mark.parametrize("damage", ["none", "a byte", "a file", "no seal", "another seal"])
def test_a_sealed_folder_is_whole_or_not(tmp_path, damage):
    (tmp_path / "weights").write_bytes(b"0123")
    files.seal(tmp_path)
    if damage == "a byte":
        (tmp_path / "weights").write_bytes(b"0124")
    if damage == "a file":
        (tmp_path / "weights").unlink()
    if damage == "no seal":
        (tmp_path / files.SEAL).unlink()
    if damage == "another seal":
        (tmp_path / files.SEAL).write_text("[1]")
    assert files.is_whole(tmp_path) == (damage == "none")


def test_the_clone_is_found_from_inside_it(tmp_path):
    assert files.find_clone(ROOT / "notebooks" / "text") == ROOT
    assert files.find_clone(tmp_path) is None
