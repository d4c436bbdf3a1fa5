"""Reading and checking multi-label data: every form in which they come is brought to `Rows`.

In the order of the file: reading (CSV, JSONL, Parquet, the hub), checking, labels.
"""

import ast
import contextlib
import csv
import gzip
import io
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from helpers.labels import UNKNOWN  # noqa: F401

SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
TEXT_COLUMNS = ("text", "comment_text")
SEPARATORS = "|;,"
EMBEDDED = ("movies", "comments")
FILE_KINDS = (".csv", ".csv.gz", ".jsonl", ".parquet")
SHOWN, MIN_ROWS, MAX_LABELS, MAX_CHARACTERS = 10, 10, 512, 1_000_000
LISTS = (list, tuple, np.ndarray)
FEW = pa.dictionary(pa.int32(), pa.string())  # few different values among many rows, as labels and splits have
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
    raise DataError(
        name,
        ["the embedded data set is not installed; mend: pip install --force-reinstall multilabel-course"],
    )


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


def read_rows(source, allow_hub=True, label_names=None, tokenizer=None):
    """Read a data set and check all of it.

    Parameters
    ----------
    source : str or path
        "movies" or "comments"; a .csv, .csv.gz, .jsonl or .parquet file; or the name of a hub data set ("owner/name").
        It has a column `text` (or `comment_text`), or `input_ids` where it is tokenized already; and either a column
        `labels` (lists of names; names joined by | ; or ,; label ids; vectors of 0 and 1) or one 0/1 column a label.
        `id` and `split` are optional.
    allow_hub : bool
        Whether a name that is no file is looked up on the hub.
    label_names : list of str, optional
        The labels and their order: needed for ids and vectors that come without names, a check for all others.
    tokenizer : str, optional
        With `input_ids`: the folder or hub name of the tokenizer that made them. Default: the embedded one, whose
        vocabulary is bert-base-uncased's.

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
    name = path.name if path.name.endswith(FILE_KINDS) else str(source)
    return _check(name, _load(str(source), path, allow_hub), label_names, tokenizer)


def _load(source, path, allow_hub):
    kind = next((kind for kind in FILE_KINDS if path.name.lower().endswith(kind)), None)
    if path.is_dir() and not re.fullmatch(HUB_NAME, source):
        raise DataError(source, ["this is a folder; give the file itself (.csv, .jsonl or .parquet)"])
    if kind:
        if not path.exists() and not path.is_symlink():
            raise DataError(source, [f"there is no such file (looked in {path.resolve().parent}); check the name"])
        try:
            if path.is_dir():
                raise DataError(source, ["this is a folder; give the file itself (.csv, .jsonl or .parquet)"])
            read = {".jsonl": _read_jsonl, ".parquet": _read_parquet}.get(kind, _read_csv)
            found = read(path)
        except OSError as error:
            reason = error.strerror or error
            raise DataError(path.name, [f"the file cannot be read ({reason}); check its permissions"]) from error
        if found.frame.empty and not found.faults:
            raise DataError(path.name, ["the file has no rows; give at least ten texts"])
        return found
    if path.is_file():
        raise DataError(source, [f"unknown extension {path.suffix!r}; save the file as .csv, .jsonl or .parquet"])
    if not allow_hub or not re.fullmatch(rf"{HUB_NAME}|[\w-]+", source):
        what = '"movies", "comments", a .csv, .jsonl or .parquet file, or a hub name as in "owner/name"'
        raise DataError(source, [f"there is no such file; DATASET takes {what}"])
    return _read_hub(source)


def _read_csv(path):
    """Every field as a string: "NA", "None" and "null" are texts that people write, only an empty field is empty."""
    import pyarrow.csv

    gzipped = path.name.lower().endswith(".gz")
    content = pa.py_buffer(gzip.decompress(path.read_bytes())) if gzipped else _on_disk(path)
    start = content[:1_000_000].to_pybytes()
    lines = csv.reader(io.StringIO(start.decode("utf-8-sig", "replace"), newline=""))
    header, first = next(lines, None), []
    with contextlib.suppress(csv.Error):  # its first field is longer than 131,072 characters
        first = next(lines, [])
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(path.name, ["the file is UTF-16; save it as UTF-8 (in a spreadsheet: 'CSV UTF-8')"])
    if not header:
        raise DataError(path.name, ["the file is empty; it needs a header row and at least ten texts"])
    if len(header) == 1 and (found := re.search(r"[;\t]", header[0])):
        what = f"the columns are separated by {found[0]!r}; save the file with commas between them"
        raise DataError(path.name, [f"row 1: {what}, or give it as .parquet or .jsonl"])
    twice = [name for name in dict.fromkeys(header) if header.count(name) > 1]
    if twice:
        where = "row 1, column {!r}: there are {} columns of this name; rename or remove all but one"
        raise DataError(path.name, [where.format(name, header.count(name)) for name in twice])
    faults, ragged = [], []

    def refuse(row):
        ragged.append(row.number)
        fields = "1 field" if row.actual_columns == 1 else f"{row.actual_columns} fields"
        remedy = "put texts that hold commas, quotes or line breaks between double quotes, and close each quote"
        faults.append((row.number, f"{fields} where the header has {row.expected_columns}; {remedy}"))
        return "skip"

    as_text = dict.fromkeys((*TEXT_COLUMNS, "id"), pa.string())
    # first as if all were well: columns that start with 0 or 1 hold numbers, on all cores; then to see what is wrong
    hopeful = {name: pa.int8() if value in ("0", "1") else FEW for name, value in zip(header, first, strict=False)}

    def parse(types, use_threads, handler=None):
        return pyarrow.csv.read_csv(
            pa.BufferReader(content),
            # a block has to hold the longest row
            pyarrow.csv.ReadOptions(use_threads=use_threads, block_size=max(content.size // 8, 1 << 24)),
            pyarrow.csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=handler),
            pyarrow.csv.ConvertOptions(column_types=types | as_text, null_values=[], strings_can_be_null=False),
        )

    try:
        try:
            table = parse(dict.fromkeys(header, FEW) | hopeful, use_threads=True)
        except pa.ArrowInvalid:
            table = parse(dict.fromkeys(header, FEW), use_threads=False, handler=refuse)  # one thread counts the rows
    except pa.ArrowInvalid as error:
        faults = _not_utf8(content.to_pybytes(), header) or [f"this is not a CSV file ({error})"]
        raise DataError(path.name, faults) from error
    frame = pd.DataFrame({name: table[name].to_pandas() for name in header})
    number = np.delete(np.arange(2, len(table) + len(ragged) + 2), np.array(ragged, dtype=int) - 2)
    blank = np.ones(len(frame), dtype=bool)
    for name in header:
        if blank.any():
            blank &= (frame[name] == "").to_numpy(dtype=bool)
    return _Found(frame[~blank].reset_index(drop=True) if blank.any() else frame, number[~blank], faults)


def _on_disk(path):
    """The bytes of a file, as a buffer that takes no memory of its own."""
    with open(path, "rb") as file:  # Python's errors say more than Arrow's
        if not file.read(1):
            return pa.py_buffer(b"")
    with pa.memory_map(str(path)) as file:
        return file.read_buffer()


def _not_utf8(content, header=None):
    """A fault for each line that is not UTF-8."""
    faults = []
    for number, line in enumerate(content.split(b"\n"), start=1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as error:
            column = ""
            if header and number > 1:
                before = next(csv.reader([line[: error.start].decode("latin-1") + "x"]))
                column = f", column {header[len(before) - 1]!r}" if len(before) <= len(header) else ""
            byte = f"the byte 0x{line[error.start]:02x} is not UTF-8"
            faults.append(f"line {number}{column}: {byte}; save the file as UTF-8 (in a spreadsheet: 'CSV UTF-8')")
    return faults


def _read_jsonl(path):
    content = path.read_bytes()
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(path.name, _not_utf8(content)) from error
    if not content.strip():
        raise DataError(path.name, ["the file is empty; each line is one JSON object"])
    records, number, faults = [], [], []
    for i, line in enumerate(lines, start=1):
        try:
            record = json.loads(line) if line.strip() else None
        except ValueError:
            record = False
        if isinstance(record, dict):
            records.append(record)
            number.append(i)
        elif record is not None:
            remedy = 'write one object a line, as {"text": "...", "labels": ["a"]}'
            faults.append((i, f"{_shown(line)} is not a JSON object; {remedy}"))
    columns = dict.fromkeys(name for record in records for name in record)
    frame = pd.DataFrame({c: pd.Series([r.get(c) for r in records], dtype=object) for c in columns})
    return _Found(frame, np.array(number, dtype=int), faults)


def _read_parquet(path):
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(path.name, ["this is not a whole Parquet file; write or download it again"]) from error
    ids = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    labels = ids.get("info", {}).get("features", {}).get("labels", {})
    return _Found(table.to_pandas(), np.arange(1, len(table) + 1), names=_class_names(labels))


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


def _shown(value):
    """A value as it is quoted in a message: short, on one line."""
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= 60 else text[:56] + "..." + text[-1]


class _Faults:
    """Collects (row, message); messages come out in the order of the rows, those about the whole file last."""

    def __init__(self, found):
        self.number, self.part = found.number, found.part
        self.found = [(n, f"row {n}: {text}") for n, text in found.faults]

    def add(self, positions, column, message, values=None):
        """One fault for each position; `message` may hold {} for the value."""
        for i in np.atleast_1d(positions):
            text = message if values is None else message.replace("{}", _shown(values[i]))
            part = "" if self.part is None else f" of {self.part[i]}"
            self.found.append((self.number[i], f"row {self.number[i]}{part}, column {column!r}: {text}"))

    def add_whole(self, message):
        self.found.append((np.inf, message))

    def in_order(self):
        return [text for _, text in sorted(self.found, key=lambda fault: fault[0])]


def _check(source, found, wanted, tokenizer):
    """Check what was read, all of it, and return Rows; raise DataError with every fault."""
    frame, faults, notes = found.frame, _Faults(found), list(found.notes)
    columns = ", ".join(map(str, frame.columns)) or "none"
    text_column = next((name for name in TEXT_COLUMNS if name in frame), None)
    text = None
    if text_column:
        text = frame[text_column]
        _check_texts(text, text_column, faults)
    elif "input_ids" in frame:
        text = _decode(frame, tokenizer, faults, notes)
    elif len(frame):
        faults.add_whole(f"column 'text' is missing (the columns are {columns}); rename the one with the texts")
    ids = frame["id"].astype(str) if "id" in frame else pd.Series(np.arange(1, len(frame) + 1)).astype(str)
    if "id" in frame and pc.count_distinct(pa.array(ids, pa.string())).as_py() < len(ids):
        faults.add(np.flatnonzero(ids.duplicated()), "id", "{} was used before; give each row its own", ids)
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
    if "labels" in frame:
        names, matrix = _labels_from_lists(frame["labels"], wanted, found.names, faults, notes)
        if aside := [name for name in others if name != "labels"]:
            notes.append(f"columns not used: {', '.join(map(str, aside))}")
        for name in set(aside) & set(names):
            faults.add_whole(f"column {name!r} is also a name in column 'labels'; keep one of the two forms")
    else:
        names, matrix = _labels_from_columns(frame[others], wanted, columns, faults, notes)
    _check_names(names, faults)
    if not faults.found:
        _check_counts(names, matrix, faults, notes)
    if faults.found:
        raise DataError(source, faults.in_order())
    return Rows(ids, text.astype("str"), matrix, names, split, notes)


def _check_texts(text, column, faults):
    missing = text.isna().to_numpy()
    wrong = np.zeros(len(text), dtype=bool)
    if text.dtype == object:  # a column of strings holds nothing else
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


def _decode(frame, tokenizer, faults, notes):
    """Texts of a data set that comes as `input_ids`, with the special tokens and the padding taken off."""
    from helpers import checkpoints, models

    name = tokenizer or "the embedded tokenizer"
    tokenizer = models.load_tokenizer(tokenizer or checkpoints.embedded_checkpoint())
    remedy = "name the one they were made with: read_splits(..., tokenizer=...)"
    rows = frame["input_ids"].to_list()
    if any(not isinstance(ids, LISTS) for ids in rows):
        faults.add_whole("column 'input_ids' does not hold lists of ids; give the data as .parquet or .jsonl")
        return None
    outside = [i for i, ids in enumerate(rows) if not len(ids) or min(ids) < 0 or max(ids) >= len(tokenizer)]
    for i in outside:
        what = f"id {max(rows[i])} is not" if len(rows[i]) else "there is no id"
        faults.add(i, "input_ids", f"{what} in the vocabulary of {name} ({len(tokenizer):,} pieces); {remedy}")
    if outside or not rows:
        return None
    starts = {int(ids[0]) for ids in rows}
    if len(rows) > 1 and len(starts) == 1 and starts != {tokenizer.cls_token_id}:
        piece = tokenizer.convert_ids_to_tokens(starts.pop())
        what = f"every row starts with what is {piece!r} there, not with {tokenizer.cls_token}"
        faults.add_whole(f"column 'input_ids': these are not the ids of {name} ({what}); {remedy}")
        return None
    special = {tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id}
    rows = [[i for i in ids if i not in special] for ids in rows]
    text = pd.Series(tokenizer.batch_decode(rows), dtype="str")
    sample = np.linspace(0, len(rows) - 1, min(len(rows), 200)).astype(int)
    again = tokenizer(text.iloc[sample].to_list(), add_special_tokens=False, verbose=False)["input_ids"]
    kept = np.mean([list(rows[i]) == ids for i, ids in zip(sample, again, strict=True)])
    if kept < 0.8:
        what = f"of {len(sample)} rows, decoded and tokenized again, {kept:.0%} give the same ids"
        faults.add_whole(f"column 'input_ids': these are not the ids of {name} ({what}); {remedy}")
    empty = (text.str.strip() == "").to_numpy()
    faults.add(np.flatnonzero(empty), "input_ids", "the text is empty; delete the row")
    notes.append(f"the texts were decoded from ids with {name}: capitals and cut ends are not in them")
    return text


# Labels ---------------------------------------------------------------------------------------------------------------


def _labels_from_lists(column, wanted, class_names, faults, notes):
    """Label names and matrix of a column of lists, joined strings, ids or vectors. Each different cell is read once."""
    values = [tuple(v.tolist() if isinstance(v, np.ndarray) else v) if isinstance(v, LISTS) else v for v in column]
    try:
        codes, cells = pd.factorize(pd.Series(values, dtype=object), use_na_sentinel=False)
    except TypeError:  # a dictionary or a list of lists: no cell can be compared with another
        codes, cells = np.arange(len(values)), values
    cells = [None if not isinstance(cell, (str, tuple)) and pd.isna(cell) else cell for cell in cells]
    order = np.argsort(codes, kind="stable")
    ends = np.searchsorted(codes[order], np.arange(len(cells)), side="right")

    def bad(k, message):
        faults.add(order[ends[k - 1] if k else 0 : ends[k]], "labels", message)

    written = {k for k, cell in enumerate(cells) if isinstance(cell, str) and cell.strip().startswith("[")}
    for k in written:
        try:
            cells[k] = tuple(ast.literal_eval(cells[k].strip()))
        except (ValueError, SyntaxError, TypeError):
            bad(k, f'{_shown(cells[k])} is not a list; write it as ["a", "b"] or a|b')
            cells[k] = ()
    lists = [cell for cell in cells if isinstance(cell, tuple)]
    if class_names is None and _are_vectors(lists, wanted):
        names, small = _labels_from_vectors(cells, np.diff(ends, prepend=0), wanted, bad, notes)
        return names, small[codes]

    joined = [cell for cell in cells if isinstance(cell, str) and cell.strip()]
    separator = next((s for s in SEPARATORS if any(s in cell for cell in joined)), SEPARATORS[0])
    mixed = bool(joined) and (any(lists) or bool(written))
    names_of_ids = class_names or wanted
    sets = []
    for k, cell in enumerate(cells):
        items = ()
        if isinstance(cell, tuple):
            items = cell
        elif isinstance(cell, str):
            items = tuple(part for part in cell.split(separator) if part.strip())
            if mixed and items:
                bad(k, f"{_shown(cell)} is joined text and other rows hold lists; use one form")
        elif cell is None:
            bad(k, "there is no value; write an empty list for no label")
        else:
            bad(k, f"{_shown(cell)} is neither a list nor a text; write a list of label names")
        names = []
        for item in items:
            if isinstance(item, int) and not isinstance(item, bool) and names_of_ids:
                if 0 <= item < len(names_of_ids):
                    names.append(names_of_ids[item])
                else:
                    bad(k, f"label id {item} has no name (there are {len(names_of_ids)}); give all label_names")
            elif not isinstance(item, str):
                bad(k, f"{_shown(item)} is not a label name; write names, or give label_names for ids")
            elif not item.strip():
                bad(k, "a label has an empty name; write its name or take it out")
            elif class_names is None and (inside := next((s for s in SEPARATORS if s in item), None)):
                bad(k, f"label {_shown(item.strip())} holds the separator {inside!r}; split it in two or rename it")
            else:
                names.append(item.strip())
        if len(items) > len(set(items)):
            bad(k, f"{_shown(list(items))} names a label twice; write each once")
        sets.append(names)
    names = list(wanted or class_names or sorted({name for labels in sets for name in labels}))
    unknown = {name for labels in sets for name in labels} - set(names)
    for k, labels in enumerate(sets):
        for name in sorted(unknown & set(labels)):
            bad(k, f"{name!r} is not among the label names given ({', '.join(names)})")
    position = {name: j for j, name in enumerate(names)}
    small = np.zeros((len(cells), len(names)), dtype=np.float32)
    for k, labels in enumerate(sets):
        small[k, [position[name] for name in labels if name in position]] = 1
    return names, small[codes]


def _are_vectors(lists, wanted):
    """Whether lists hold 0 or 1 a label, and not label ids: floats, or all of one length and nothing but 0 and 1."""
    numbers = [x for cell in lists for x in cell]
    if not numbers or not all(isinstance(x, (int, float)) for x in numbers):
        return False
    lengths = {len(cell) for cell in lists}
    alike = len(lengths) == 1 and set(numbers) <= {0, 1} and len(wanted or lists[0]) == len(lists[0]) > 1
    return alike or all(isinstance(x, float) for x in numbers)


def _labels_from_vectors(cells, counts, wanted, bad, notes):
    lengths = np.array([len(cell) if isinstance(cell, tuple) else 0 for cell in cells])
    width = len(wanted) if wanted else int(np.bincount(lengths, weights=counts * (lengths > 0)).argmax())
    small = np.zeros((len(cells), width), dtype=np.float32)
    for k, cell in enumerate(cells):
        if not isinstance(cell, tuple):
            bad(k, f"{_shown(cell)} is not a vector of 0 and 1, as other rows have")
        elif len(cell) != width:
            whose = "{} label names were given" if wanted else "most have {}"
            bad(k, f"a vector of length {len(cell)}, but {whose.format(width)}; write one number a label")
        elif set(cell) - {0.0, 1.0}:
            value = next(x for x in cell if x not in (0.0, 1.0))
            bad(k, f"{value!r} is neither 0 nor 1; a label vector holds nothing else")
        else:
            small[k] = cell
    if not wanted:
        notes.append(f"the {width} labels have no names; give them: read_splits(..., label_names=[...])")
    return list(wanted or [f"label_{k}" for k in range(width)]), small


def _labels_from_columns(frame, wanted, columns, faults, notes):
    """Label names and matrix of 0/1 columns. A column of mostly 0 and 1 is meant as a label; others are set aside."""
    numbers = {name: _zeros_and_ones(column) for name, column in frame.items()}
    odd = {name: np.flatnonzero(np.isnan(values)) for name, values in numbers.items()}

    def is_label(name):  # mostly 0 and 1, or nothing but 0, 1 and gaps
        strange = frame[name].iloc[odd[name]]
        gaps = (strange.isna() | (strange.astype(str).str.strip() == "")).sum()
        return len(strange) <= len(frame) / 2 or gaps == len(strange) < len(frame)

    names = [name for name in frame.columns if len(frame) and is_label(name)]
    if wanted:
        for name in wanted:
            if name not in numbers:
                faults.add_whole(f"label name {name!r} was given, but there is no such column (there are {columns})")
        names = [name for name in wanted if name in numbers]
    elif not names and len(frame):
        remedy = "add labels joined by |, or one 0/1 column a label"
        faults.add_whole(f"there is neither a column 'labels' nor one of 0 and 1 (the columns are {columns}); {remedy}")
    if aside := [name for name in frame.columns if name not in names]:
        why = "not among the label names given" if wanted else "a label column holds 0 and 1"
        notes.append(f"columns not used: {', '.join(map(str, aside))} ({why})")
    for name in names:
        message = "{} is neither 0 nor 1; a label column holds nothing else"
        faults.add(odd[name], name, message, frame[name])
    matrix = np.array([numbers[name] for name in names], dtype=np.float32).reshape(len(names), len(frame)).T
    return [str(name) for name in names], matrix


def _zeros_and_ones(column):
    """A column as float32, nan where it holds neither 0 nor 1. Each different value is looked at once."""
    if pd.api.types.is_numeric_dtype(column.dtype):
        values = column.to_numpy(dtype=np.float32, na_value=np.nan)
        return np.where((values == 0) | (values == 1), values, np.float32(np.nan))
    if isinstance(column.dtype, pd.CategoricalDtype) and not column.hasnans:
        codes, values = column.cat.codes.to_numpy(), column.cat.categories
    else:
        codes, values = pd.factorize(column, use_na_sentinel=False)
    return np.array([_zero_or_one(value) for value in values], dtype=np.float32)[codes]


def _zero_or_one(value):
    if isinstance(value, str):
        value = {"true": 1, "false": 0}.get(value.strip().lower(), value)
    try:
        return number if (number := float(value)) in (0, 1) else np.nan
    except (TypeError, ValueError):
        return np.nan


def _check_names(names, faults):
    alike = {}
    for name in names:
        alike.setdefault("".join(name.lower().split()), []).append(name)
    for group in alike.values():
        if len(group) > 1:
            faults.add_whole(
                f"labels {' and '.join(map(repr, group))} differ by case or spaces only; write one of them"
            )
    if len(names) > MAX_LABELS:
        what = "are these label names, and not free text? Keep the commonest"
        faults.add_whole(f"{len(names)} labels are more than {MAX_LABELS}; {what}")


def _check_counts(names, matrix, faults, notes):
    """What only makes sense once every row is in order."""
    if not matrix.any():
        faults.add_whole("no label is used in any row; check the labels")
    elif len(names) == 1:
        remedy = "take a binary classifier, or add labels"
        faults.add_whole(f"there is only one label, {names[0]!r}, and multi-label data have two or more; {remedy}")
    elif len(matrix) < MIN_ROWS:
        what = "too few for train, validation and test"
        faults.add_whole(f"{len(matrix)} rows are {what}; give at least {MIN_ROWS}")
    always, never = matrix.all(axis=0), ~matrix.any(axis=0)
    if not faults.found and (always | never).all():
        faults.add_whole("no label can be learned: each is on every row or on none; check the labels")
    notes += [f"label {names[j]!r} is on every row: there is nothing to learn for it" for j in np.flatnonzero(always)]
    notes += [f"label {names[j]!r} is on no row: it can't be learned" for j in np.flatnonzero(never)]
