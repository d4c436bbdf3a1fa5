"""Reading and checking multi-label data: every form in which they come is brought to `Rows`.

In the order of the file: reading (CSV and its kin, JSON, Parquet, Excel, the hub), checking.
"""

import contextlib
import csv
import gzip
import json
import re
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from helpers.labels import (
    check_names,
    chosen_and_left_out,
    hold_labels,
    label_column,
    labels_from_cells,
    labels_from_columns,
    listed,
    look_at_columns,
    shown,
)

SPLITS = ("train", "validation", "test")
_CALLED = {"train": "train training", "validation": "validation valid val dev", "test": "test testing"}
SPLIT_NAMES = {name: split for split, names in _CALLED.items() for name in names.split()}
TEXT_COLUMNS = ("text", "comment_text")
KNOWN = {*TEXT_COLUMNS, "id", "labels", "split", "input_ids"}
# The built-in sets, and which of their columns are labels, where that has to be said.
EMBEDDED = {"movies": None, "comments": ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]}
LABELS = EMBEDDED | {"zcamz/toxic": EMBEDDED["comments"]}  # its vectors come without names
DELIMITED = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
FILE_KINDS = (*DELIMITED, ".jsonl", ".json", ".parquet", ".xlsx")
A_FILE = "a .csv, .tsv, .jsonl, .json, .parquet or .xlsx file"
FORMS = "https://github.com/multilabel-course/multilabel-course/blob/main/docs/your_own_data.md"
SHOWN, MIN_ROWS, MAX_CHARACTERS = 10, 10, 1_000_000
FEW = pa.dictionary(pa.int32(), pa.string())  # few different values among many rows, as labels and splits have
NO_NAME = "column number {} has no name and is not used; name it if it is a label"
TOLD = re.compile(rb'(?i)"?sep=(.)\1*"?\s*')
HUB_NAME = r"[\w.-]+/[\w.-]+"


class DataError(ValueError):
    """Everything that is wrong with a data set, in one message.

    Parameters
    ----------
    source : str
        The file or data set.
    faults : list of str
        Each says where (row, column), what is wrong, and what to do.
    """

    def __init__(self, source, faults):
        self.source, self.faults = str(source), list(faults)
        shown = [f"  - {fault}" for fault in self.faults[:SHOWN]]
        if len(self.faults) > SHOWN:
            shown.append(f"  ... and {len(self.faults) - SHOWN} more")
        count = "1 problem" if len(self.faults) == 1 else f"{len(self.faults)} problems"
        super().__init__("\n".join([f"{self.source}: {count}", *shown]))


@dataclass
class Rows:
    """A data set that was read and found free of faults.

    Attributes
    ----------
    id, text : pandas.Series of str, length n_examples
    matrix : float32 array of shape (n_examples, n_labels)
        0, 1, and UNKNOWN where that was asked for.
    label_names : list of str, length n_labels
    split : array of str of shape (n_examples,), or None where the source names no split
    notes : list of str
        What the reader should know and need not mend.
    """

    id: pd.Series
    text: pd.Series
    matrix: np.ndarray
    label_names: list
    split: np.ndarray | None
    notes: list


def embedded_path(name):
    """Path of an embedded data set, "movies" or "comments", in a clone or in an installed course."""
    here = Path(__file__).resolve().parent
    for folder in (here.parent / "data", here / "_data"):
        if (folder / f"{name}.csv").exists():
            return folder / f"{name}.csv"
    remedy = "pip install --force-reinstall multilabel-course"
    raise DataError(name, [f"the embedded data set is not installed; mend: {remedy}"])


# Reading --------------------------------------------------------------------------------------------------------------


@dataclass
class _Found:
    """What a source holds, before it is checked: `number[i]` is the place of row i of the frame in its source."""

    frame: pd.DataFrame
    number: np.ndarray
    faults: list = field(default_factory=list)  # (number, message) of what could not be read at all
    notes: list = field(default_factory=list)
    names: list | None = None  # of the ids in `labels`, where the source knows them
    part: np.ndarray | None = None  # split of each row, where rows are counted by split


def read_rows(source, allow_hub=True, label_names=None, tokenizer=None, unknown=False):
    """Read a data set and check all of it. Every form is in docs/your_own_data.md, with an example.

    Parameters
    ----------
    source : str or path
        "movies" or "comments"; a .csv, .tsv, .jsonl, .json, .parquet or .xlsx file; or the name of a hub data set
        ("owner/name"). It has a column `text` (or `comment_text`), or `input_ids` where it is tokenized already; and
        either a column `labels` (lists of names; names joined by | ; or ,; label ids; vectors of 0 and 1; dictionaries)
        or one column a label, of 0 and 1, yes and no, or x and nothing. `id` and `split` are optional.
    allow_hub : bool
        Whether a name that is no file is looked up on the hub.
    label_names : list of str, optional
        The labels and their order: needed for ids and vectors that come without names, a choice among columns, a check
        for all others. Names with - before them are left out instead.
    tokenizer : str, optional
        With `input_ids`: the folder or hub name of the tokenizer that made them. Default: the embedded one, whose
        vocabulary is bert-base-uncased's.
    unknown : bool
        Whether -1 and nothing in the place of 0 or 1 mean that nobody looked, and become UNKNOWN (-100), which losses
        and scores leave out. Otherwise they are faults.

    Returns
    -------
    Rows

    Raises
    ------
    DataError
        With every fault found: row, column, value and remedy. Rows are counted as a spreadsheet does: in a CSV the
        header is row 1, and a text of several lines is one row.
    """
    path = embedded_path(source) if source in EMBEDDED else Path(source)
    name = path.name if path.name.lower().endswith(FILE_KINDS) else str(source)
    try:
        chosen, left_out = chosen_and_left_out(label_names)
    except ValueError as error:
        raise DataError(name, [str(error)]) from error
    if LABELS.get(source):
        chosen = chosen or [label for label in LABELS[source] if label not in left_out]
    return _check(name, _load(str(source), path, allow_hub), chosen, left_out, tokenizer, unknown)


def _load(source, path, allow_hub):
    kind = next((kind for kind in FILE_KINDS if path.name.lower().endswith(kind)), None)
    if path.is_dir() and (kind or not re.fullmatch(HUB_NAME, source)):
        raise DataError(source, [f"this is a folder; give the file itself, {A_FILE}"])
    if kind:
        if not path.exists() and not path.is_symlink():
            raise DataError(source, [f"there is no such file (looked in {path.resolve().parent}); check the name"])
        try:
            others = {".jsonl": _read_json, ".json": _read_json, ".parquet": _read_parquet, ".xlsx": _read_excel}
            found = others.get(kind, _read_csv)(path)
        except OSError as error:
            reason = error.strerror or error
            raise DataError(path.name, [f"the file cannot be read ({reason}); check its permissions"]) from error
        if found.frame.empty and not found.faults:
            raise DataError(path.name, ["the file has no rows; give at least ten texts"])
        return found
    if path.is_file():
        raise DataError(source, [f"unknown extension {path.suffix!r}; save it as {A_FILE}"])
    if not allow_hub or not re.fullmatch(rf"{HUB_NAME}|[\w-]+", source):
        what = f'"movies", "comments", {A_FILE}, or a hub name as in "owner/name"'
        raise DataError(source, [f"there is no such file; DATASET takes {what}"])
    return _read_hub(source)


def _read_csv(path):
    """Every field as a string: "NA", "None" and "null" are texts that people write, only an empty field is empty."""
    import pyarrow.csv

    content = _on_disk(path)
    if content[:2].to_pybytes() == b"\x1f\x8b":  # whatever the file is called
        try:
            content = pa.py_buffer(gzip.decompress(content))
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(path.name, ["this is not a whole .gz file; write or download it again"]) from error
    start = content[:1_000_000].to_pybytes()
    if start[:4] in (b"PK\3\4", b"PAR1"):
        raise DataError(path.name, ["this is an .xlsx, .zip or .parquet file, not a CSV; give it its own extension"])
    if start[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in start[:4]:
        raise DataError(path.name, ["the file is UTF-16; save it as UTF-8 (in a spreadsheet: 'CSV UTF-8')"])
    delimiter, header, first, skipped, before = _header(start)
    if not header:
        raise DataError(path.name, ["the file is empty; it needs a header row and at least ten texts"])
    twice = [name for name in dict.fromkeys(header) if name and header.count(name) > 1]
    if twice:
        where = "row {}, column {!r}: there are {} columns of this name; rename or remove all but one"
        raise DataError(path.name, [where.format(before, name, header.count(name)) for name in twice])
    unnamed = {f"\0{k}": k for k, name in enumerate(header) if not name}  # a name that no header can hold
    header = [name or f"\0{k}" for k, name in enumerate(header)]
    faults, ragged = [], []

    def refuse(row):
        ragged.append(row.number)
        fields = "1 field" if row.actual_columns == 1 else f"{row.actual_columns} fields"
        remedy = "put texts that hold commas, quotes or line breaks between double quotes, and close each quote"
        faults.append(
            (row.number and row.number + before, f"{fields} where the header has {row.expected_columns}; {remedy}")
        )
        return "skip"

    as_text = dict.fromkeys((*TEXT_COLUMNS, "id"), pa.string())
    # first as if all were well: columns that start with 0 or 1 hold numbers, on all cores; then to see what is wrong
    hopeful = {
        name: pa.int8() if value in ("0", "1") and name != "labels" else FEW
        for name, value in zip(header, first, strict=False)
    }
    body = content[skipped:]
    if not body.size:
        raise DataError(path.name, ["the file has no rows; give at least ten texts"])

    block = max(content.size // 8, 1 << 24)  # has to hold the longest row

    def parse(types, use_threads, handler=None):
        return pyarrow.csv.read_csv(
            pa.BufferReader(body),
            pyarrow.csv.ReadOptions(use_threads=use_threads, block_size=block, column_names=header),
            pyarrow.csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=handler
            ),
            pyarrow.csv.ConvertOptions(column_types=types | as_text, null_values=[], strings_can_be_null=False),
        )

    try:
        try:
            table = parse(dict.fromkeys(header, FEW) | hopeful, use_threads=True)
        except pa.ArrowInvalid:
            table = parse(dict.fromkeys(header, FEW), use_threads=False, handler=refuse)  # one thread counts the rows
    except pa.ArrowInvalid as error:
        faults = _not_utf8(content.to_pybytes(), header, delimiter) or [f"this is not a CSV file ({error})"]
        raise DataError(path.name, faults) from error
    frame = pd.DataFrame({name: table[name].to_pandas() for name in header})
    number = np.arange(1, len(table) + len(ragged) + 1) + before
    number = np.delete(number, np.array(ragged, dtype=int) - 1)
    blank = np.ones(len(frame), dtype=bool)
    for name in header:
        if blank.any():
            blank &= (frame[name] == "").to_numpy(dtype=bool)
    if blank.any():
        frame, number = frame[~blank].reset_index(drop=True), number[~blank]
    notes = []
    for name, k in unnamed.items():
        if (frame[name].astype(str) != "").any():
            notes.append(NO_NAME.format(k + 1))
    return _Found(frame.drop(columns=list(unnamed)), number, faults, notes)


def _header(start):
    """What the first bytes of a delimited file say.

    Returns
    -------
    (delimiter, names, fields of the first row, length of the header in bytes, number of the header's row). The names
    are without spaces around them; there are none where the file is empty. Empty lines before them are skipped, and
    Excel's line `sep=;` names the delimiter.
    """
    bom = 3 if start.startswith(b"\xef\xbb\xbf") else 0
    lines = re.findall(rb"[^\r\n]*(?:\r\n|\n|\r|\Z)", start[bom:])
    told, before, skipped = None, 1, bom
    while len(lines) > 1 and (not lines[0].strip() or TOLD.fullmatch(lines[0])):
        told = TOLD.fullmatch(lines[0]) or told
        before, skipped, lines = before + 1, skipped + len(lines[0]), lines[1:]

    def rows(delimiter):
        used = []
        reader = csv.reader(
            (used.append(line) or line.decode("utf-8", "replace") for line in lines), delimiter=delimiter
        )
        names, first = next(reader, []), []
        length = sum(map(len, used))
        with contextlib.suppress(csv.Error):  # its first field is longer than 131,072 characters
            first = next(reader, [])
        return [name.strip() for name in names], first, length

    candidates = [told[1].decode()] if told else [",", ";", "\t"]
    found = {delimiter: rows(delimiter) for delimiter in candidates}
    delimiter = max(candidates, key=lambda d: (bool(set(found[d][0]) & KNOWN), len(found[d][0])))
    names, first, length = found[delimiter]
    return delimiter, names if any(names) else [], first, skipped + length, before


def _on_disk(path):
    """The bytes of a file, as a buffer that takes no memory of its own."""
    with open(path, "rb") as file:  # Python's errors say more than Arrow's
        if not file.read(1):
            return pa.py_buffer(b"")
    with pa.memory_map(str(path)) as file:
        return file.read_buffer()


def _not_utf8(content, header=None, delimiter=","):
    """A fault for each line that is not UTF-8."""
    faults = []
    for number, line in enumerate(content.split(b"\n"), start=1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as error:
            column = ""
            if header and number > 1:
                before = next(csv.reader([line[: error.start].decode("latin-1") + "x"], delimiter=delimiter))
                column = f", column {header[len(before) - 1]!r}" if len(before) <= len(header) else ""
            byte = f"the byte 0x{line[error.start]:02x} is not UTF-8"
            faults.append(f"line {number}{column}: {byte}; save the file as UTF-8 (in a spreadsheet: 'CSV UTF-8')")
    return faults


def _read_json(path):
    """JSON Lines, or one JSON list of objects, whatever the file is called."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(path.name, _not_utf8(content)) from error
    if not text.strip():
        raise DataError(path.name, ["the file is empty; each line is one JSON object"])
    remedy = 'write one object a line, as {"text": "...", "labels": ["a"]}'
    whole = None
    if text.lstrip()[0] == "[" or path.suffix.lower() == ".json":
        with contextlib.suppress(ValueError, RecursionError):
            whole = json.loads(text)
    if isinstance(whole, dict):
        if not isinstance(whole.get("text"), str):
            what = f"the file is one JSON object with the keys {listed(whole)}, not one a text"
            raise DataError(path.name, [f"{what}; {remedy}"])
        whole = [whole]
    entries = enumerate(whole if isinstance(whole, list) else text.split("\n"), start=1)
    records, number, faults = [], [], []
    for i, entry in entries:
        record = entry
        if isinstance(entry, str) and not isinstance(whole, list):
            try:
                record = json.loads(entry) if entry.strip() else None
            except (ValueError, RecursionError):
                record = False
        if isinstance(record, dict):
            records.append(record)
            number.append(i)
        elif record is not None or isinstance(whole, list):
            faults.append((i, f"{shown(entry)} is not a JSON object; {remedy}"))
    notes = []
    if re.search(r"\\u[dD][89a-fA-F]", text):  # half of a pair, or a whole one
        mended = [_without_halves(record) for record in records]
        if n := sum(one != other for one, other in zip(records, mended, strict=True)):
            what = "half of a character that takes two, as emoji do; \N{REPLACEMENT CHARACTER} is in its place"
            notes.append(f"{n} rows hold {what}")
        records = mended
    columns = dict.fromkeys(name for record in records for name in record)
    frame = pd.DataFrame({c: pd.Series([r.get(c) for r in records], dtype=object) for c in columns})
    return _Found(frame, np.array(number, dtype=int), faults, notes)


def _without_halves(value):
    """JSON's value with lone surrogates replaced, which no encoding can write."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_without_halves(name): _without_halves(inner) for name, inner in value.items()}
    return [_without_halves(inner) for inner in value] if isinstance(value, list) else value


def _read_parquet(path):
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
        frame = table.to_pandas()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(path.name, ["this is not a whole Parquet file; write or download it again"]) from error
    except (TypeError, NotImplementedError):  # pandas cannot read its own note on Arrow's types
        frame = table.replace_schema_metadata(None).to_pandas()
    if frame.columns.nlevels > 1:
        raise DataError(path.name, ["a column's name has several levels; give each column one name"])
    ids = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    labels = ids.get("info", {}).get("features", {}).get("labels", {})
    frame, notes = _without_index(frame)
    return _Found(frame, np.arange(1, len(table) + 1), notes=notes, names=_class_names(labels))


def _without_index(frame):
    """(frame, notes): rows counted from 0, and an index that says something brought back among the columns."""
    index = frame.index
    names = [name for name in index.names if name is not None and name not in frame]
    if names:
        frame = frame.reset_index(level=names)
        index = frame.index if len(names) < index.nlevels else pd.RangeIndex(len(frame))
    notes = [f"the index {name!r} is read as a column" for name in names]
    if not names and "id" not in frame and index.is_unique and pd.api.types.infer_dtype(index) == "string":
        frame, notes = frame.assign(id=index), ["the index is read as the column 'id'"]
    return frame.reset_index(drop=True), notes


def _read_excel(path):
    """The first sheet of a workbook, as if it had been saved as a CSV."""
    try:
        sheets = pd.read_excel(path, sheet_name=None, header=None, dtype=object, keep_default_na=False)
        with zipfile.ZipFile(path) as book:
            merged = any(b"<mergeCell " in book.read(name) for name in book.namelist() if "worksheets/" in name)
    except ImportError as error:
        remedy = "pip install openpyxl, or save the sheet as 'CSV UTF-8'"
        raise DataError(path.name, [f"reading Excel's files takes the package openpyxl; {remedy}"]) from error
    except Exception as error:  # a zip file's or an XML parser's error
        raise DataError(path.name, ["this is not a whole Excel file; save it again, or as 'CSV UTF-8'"]) from error
    (name, frame), *others = sheets.items()
    full = (frame != "").any(axis=1).to_numpy(dtype=bool)
    number, frame = np.flatnonzero(full) + 1, frame.loc[full]
    header = [str(value).strip() for value in frame.iloc[0]] if len(frame) else []
    notes = [f"of {len(sheets)} sheets the first is read, {name!r}"] if others else []
    if merged:
        notes.append("merged cells hold their value in the first one only, the others are read as empty")
    for k, column in enumerate(header):
        if not column and (frame.iloc[1:, k] != "").any():
            notes.append(NO_NAME.format(k + 1))
    frame = frame.set_axis(header, axis=1).iloc[1:, [k for k, column in enumerate(header) if column]]
    return _Found(frame.reset_index(drop=True), number[1:], notes=notes)


def _class_names(feature):
    """The names in the description of a list of ClassLabels, as `datasets` keeps it; None for other features."""
    inner = feature.get("feature", feature) if isinstance(feature, dict) else feature[0] if feature else {}
    return list(inner["names"]) if isinstance(inner, dict) and inner.get("_type") == "ClassLabel" else None


def _read_hub(name):
    import datasets

    try:
        loaded = datasets.load_dataset(name)
    except datasets.exceptions.DatasetNotFoundError as error:
        fault = "there is no such file, and no such public data set on the hub; check DATASET"
        raise DataError(name, [fault]) from error
    except OSError as error:
        fault = "there is no such file, and the hub cannot be reached; check DATASET and the network"
        raise DataError(name, [fault]) from error
    except Exception as error:  # the client raises some twenty kinds; the reader needs one sentence
        fault = f"the hub data set cannot be loaded ({type(error).__name__}: {str(error).splitlines()[0][:200]})"
        raise DataError(name, [f"{fault}; save it as .parquet and give the file"]) from error
    used = {split: part for split, part in loaded.items() if split.lower() in SPLIT_NAMES}
    aside = [split for split in loaded if split not in used]
    if "train" not in {SPLIT_NAMES[split.lower()] for split in used}:
        raise DataError(name, [f"there is no train split (the splits are {', '.join(loaded)}); take another data set"])
    frame = pd.concat([part.to_pandas().assign(split=split) for split, part in used.items()], ignore_index=True)
    number = np.concatenate([np.arange(1, len(part) + 1) for part in used.values()])
    part = frame["split"].to_numpy()
    features = next(iter(used.values())).features.to_dict()
    notes = [f"split {split!r} is not used" for split in aside]
    return _Found(frame, number, notes=notes, names=_class_names(features.get("labels")), part=part)


# Checking -------------------------------------------------------------------------------------------------------------


class _Faults:
    """Collects (row, message); messages come out in the order of the rows, those about the whole file last."""

    def __init__(self, found):
        self.number, self.part = found.number, found.part
        self.found = [(n, f"row {n}: {text}") for n, text in found.faults]

    def add(self, positions, column, message, values=None):
        """One fault for each position; `message` may hold {} for the value."""
        for i in np.atleast_1d(positions):
            text = message if values is None else message.replace("{}", shown(values.iloc[i]))
            part = "" if self.part is None else f" of {self.part[i]}"
            self.found.append((self.number[i], f"row {self.number[i]}{part}, column {column!r}: {text}"))

    def add_whole(self, message):
        self.found.append((np.inf, message))

    def in_order(self):
        return [text for _, text in sorted(self.found, key=lambda fault: fault[0])]


def _check(source, found, chosen, left_out, tokenizer, unknown):
    """Check what was read, all of it, and return Rows; raise DataError with every fault."""
    faults, notes = _Faults(found), list(found.notes)
    frame = found.frame.rename(columns=lambda name: _plain(name, found.frame))
    if twice := list(dict.fromkeys(frame.columns[frame.columns.duplicated()])):
        what = "there are {} columns of this name, spaces around it left off; rename or remove all but one"
        raise DataError(source, [f"column {name!r}: {what.format((frame.columns == name).sum())}" for name in twice])
    columns = ", ".join(frame.columns) or "none"
    text_column = next((name for name in TEXT_COLUMNS if name in frame), None)
    text = None
    if text_column:
        text = frame[text_column]
        _check_texts(text, text_column, faults)
    elif "input_ids" in frame:
        from helpers.tokenization import decode_texts  # loads torch

        text = decode_texts(frame["input_ids"], tokenizer, faults, notes)
    elif len(frame):
        faults.add_whole(f"column 'text' is missing (the columns are {columns}); rename the one with the texts")
    ids = _check_ids(frame, faults, notes)
    split = None
    if "split" in frame:
        split = frame["split"].astype(str).str.strip().str.lower().map(SPLIT_NAMES)
        message = "{} is none of train, validation, test; write one of them or leave the column out"
        faults.add(np.flatnonzero(split.isna()), "split", message, frame["split"])
        if len(frame) and not (split == "train").any():
            faults.add_whole("column 'split': no row says train; mark the rows to learn from, or leave the column out")
        split = split.to_numpy(dtype=object)
    known = [name for name in (text_column, "id", "split", "input_ids", "attention_mask", "token_type_ids") if name]
    others = [name for name in frame.columns if name not in known]
    looked = {} if "labels" in frame else look_at_columns(frame[others])
    named = set(chosen or ()) <= set(looked) and bool(looked) and bool(chosen)
    column, said, doubts = (None, [], []) if named else label_column(frame, hold_labels(looked))
    notes += said
    if column:
        if column == "accept" and "answer" in frame:  # Prodigy's: what was rejected or skipped has no labels
            message = "{} means that the labels do not hold; keep the rows with 'accept'"
            faults.add(np.flatnonzero(frame["answer"] != "accept"), "answer", message, frame["answer"])
        names, matrix = labels_from_cells(frame[column], chosen, left_out, found.names, unknown, faults, notes)
        aside = [name for name in others if name != column]
        if aside:
            notes.append(f"columns not used: {listed(aside)}")
        for name in set(aside) & set(names):
            faults.add_whole(f"column {name!r} is also a name in column {column!r}; keep one of the two forms")
    elif doubts:
        names, matrix = [], np.zeros((len(frame), 0), dtype=np.float32)
        for doubt in doubts:
            faults.add_whole(doubt)
    else:
        names, matrix = labels_from_columns(looked, chosen, left_out, unknown, faults, notes)
    check_names(names, faults)
    if left_out and not names and not faults.found:
        faults.add_whole("every label is left out; leave out fewer")
    if not faults.found:
        _check_counts(names, matrix, faults, notes)
    if faults.found:
        raise DataError(source, faults.in_order())
    return Rows(ids, text.astype("str"), matrix, names, split, notes)


def _plain(name, frame):
    """A column's name without spaces around it; in small letters where it is one that is looked for."""
    plain = str(name).strip().strip("\ufeff\u200b")
    return plain.lower() if plain.lower() in KNOWN and plain.lower() not in frame else plain


def _check_ids(frame, faults, notes):
    """The ids as texts; rows are numbered where there are none."""
    numbers = pd.Series(np.arange(1, len(frame) + 1)).astype(str)
    if "id" not in frame:
        return numbers
    missing = frame["id"].isna()
    ids = frame["id"].astype(str)
    missing |= ids.str.strip() == ""
    if missing.all():
        notes.append("the column 'id' is empty; the rows are numbered")
        return numbers
    faults.add(np.flatnonzero(missing), "id", "there is no id; give the row its own, or leave the column out")
    if pc.count_distinct(pa.array(ids, pa.string())).as_py() < len(ids):
        again = ids.duplicated() & ~missing
        faults.add(np.flatnonzero(again), "id", "{} was used before; give each row its own", ids)
    return ids


def _check_texts(text, column, faults):
    missing = text.isna().to_numpy()
    wrong = np.zeros(len(text), dtype=bool)
    if not isinstance(text.dtype, pd.StringDtype):  # a column of strings holds nothing else
        text = text.astype(object)
        wrong = ~missing & ~text.map(lambda value: isinstance(value, str)).to_numpy(dtype=bool)
    faults.add(np.flatnonzero(missing), column, "there is no text; write one or delete the row")
    faults.add(np.flatnonzero(wrong), column, "{} is not a text; put it between quotes or delete the row", text)
    strings = pa.array(text.where(~(missing | wrong), "-"), pa.string())
    empty = pc.equal(pc.utf8_trim_whitespace(strings), "").to_numpy(zero_copy_only=False)
    faults.add(np.flatnonzero(empty), column, "the text is empty; write one or delete the row")
    length = pc.utf8_length(strings).to_numpy(zero_copy_only=False)
    for i in np.flatnonzero(length >= MAX_CHARACTERS):
        message = f"the text has {length[i]:,} characters, as many as a book; cut it into passages or delete the row"
        faults.add(i, column, message)


def _check_counts(names, matrix, faults, notes):
    """What only makes sense once every row is in order."""
    present = matrix == 1
    never = ~present.any(axis=0)
    aside = "".join(f" ({note})" for note in notes if note.startswith(("columns not used", "column number")))
    if never.all():
        faults.add_whole(f"no label is used in any row; check the labels{aside}")
    elif len(names) == 1:
        remedy = f"take a binary classifier, or add labels{aside}"
        faults.add_whole(f"there is only one label, {names[0]!r}, and multi-label data have two or more; {remedy}")
    elif len(matrix) < MIN_ROWS:
        faults.add_whole(f"{len(matrix)} rows are too few for train, validation and test; give at least {MIN_ROWS}")
    always = (matrix != 0).all(axis=0) & ~never
    where = "" if present[:, always].all() else " where it is known"
    if not faults.found and (always | never).all():
        faults.add_whole("no label can be learned: each is on every row or on none; check the labels")
    named = np.array(names)
    many = f"{{}} labels are on every row{where} ({{}}): there is nothing to learn for them"
    notes += label_notes(named[always], f"label {{}} is on every row{where}: there is nothing to learn for it", many)
    many = "{} labels are on no row ({}): they can't be learned"
    notes += label_notes(named[never], "label {} is on no row: it can't be learned", many)


def label_notes(names, one, many):
    """Notes on some labels, in one line however many: `one` names the label, `many` counts them and names three."""
    if len(names) < 2:
        return [one.format(repr(str(name))) for name in names]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [many.format(len(names), ", ".join(names[:3]) + more)]
