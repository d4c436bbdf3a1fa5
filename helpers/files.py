"""Files that are whole or not there: checksums, sealed and replaced folders, atomic writing, locks; and the clone."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path

SEAL = "sha256.json"
WORK = ".writing-"  # what the names of unfinished work begin with


def sha256(path):
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder):
    """Write the checksum of every file of a folder into the folder."""
    sums = {file.name: sha256(file) for file in sorted(Path(folder).iterdir()) if file.name != SEAL}
    (Path(folder) / SEAL).write_text(json.dumps(sums, indent=1), encoding="utf-8")


def is_whole(folder):
    """Whether every sealed file is there with its checksum."""
    try:
        sums = json.loads((Path(folder) / SEAL).read_text(encoding="utf-8"))
        return bool(sums) and all(sha256(Path(folder) / name) == value for name, value in sums.items())
    except (OSError, ValueError, AttributeError):
        return False


def replace_folder(new, folder):
    """Put the folder `new` in the place of `folder` by renaming; both must be on one file system.

    Several processes may do so at once: each moves aside what is in its way, and the last one's stays.
    """
    new, folder = Path(new), Path(folder)
    while True:
        try:
            return new.rename(folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or folder.is_file():
                raise
        aside = folder.with_name(f".old-{folder.name}-{uuid.uuid4().hex[:8]}")
        with suppress(FileNotFoundError):  # another process has just moved it
            folder.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def writing(folder, name):
    """Yield a temporary path to write a file or a folder to; renamed to `name` in `folder` only if the block succeeds.

    What was there before is kept until then.

    Raises
    ------
    OSError
        When the folder cannot be made or written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=folder, prefix=WORK))
    try:
        yield work / name
        if (work / name).is_dir():
            replace_folder(work / name, folder / name)
        else:
            os.replace(work / name, folder / name)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def lock(folder, purpose="writing", patience=60):
    """A lock for which `with` waits, so that one process at a time reads a file in the folder, changes and writes it.

    It is the system's, on the file `.<purpose>.lock` in the folder: it ends with its process, however that ends.

    Parameters
    ----------
    folder : path
        Made if need be.
    purpose : str
        Locks of different purposes do not wait for each other.
    patience : float
        Seconds to wait; then TimeoutError.

    Returns
    -------
    filelock.FileLock

    Raises
    ------
    OSError
        When the folder cannot be made.
    """
    from filelock import FileLock

    Path(folder).mkdir(parents=True, exist_ok=True)
    return FileLock(Path(folder) / f".{purpose}.lock", timeout=patience)


def check_writable(folder):
    """Raise OSError unless a folder, or the nearest one above it that exists, can be written; leaves nothing there."""
    folder = Path(folder).absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    with tempfile.TemporaryFile(dir=folder):
        pass


def find_clone(start="."):
    """Root folder of the clone of the course that holds `start`, or None."""
    for folder in (Path(start).resolve(), *Path(start).resolve().parents):
        project = folder / "pyproject.toml"
        if project.exists() and 'name = "multilabel-course"' in project.read_text(encoding="utf-8"):
            return folder
    return None
