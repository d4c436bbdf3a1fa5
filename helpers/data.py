"""Reading, checking and splitting multi-label data: every form is brought to one.

The one form is a `datasets.DatasetDict` with the splits train, validation and test and the columns

- `id` (str),
- `text` (str),
- `labels`: float32, one 0 or 1 for each label, in a fixed order,
- `label_ids`: the positions of the labels that are present; its ClassLabel feature carries the label names, so that they
  survive saving, mapping and selecting.
"""

import ast
import csv
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

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
FRACTIONS = {"train": 0.70, "validation": 0.15, "test": 0.15}
EMBEDDED = ("movies", "comments")
SHOWN = 10


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


def embedded_path(name):
    """Path of an embedded data set, "movies" or "comments", in a clone or in an installed course."""
    here = Path(__file__).resolve().parent
    for folder in (here.parent / "data", here / "_data"):
        if (folder / f"{name}.csv").exists():
            return folder / f"{name}.csv"
    raise DataError(
        name,
        [
            "the embedded data set is not installed; reinstall the course: pip install --force-reinstall multilabel-course"
        ],
    )


def read_splits(source, allow_hub=True):
    """Read a data set into its one form.

    Parameters
    ----------
    source : str or path
        "movies" or "comments", a .csv, .jsonl or .parquet file, or the name of a hub data set ("owner/name").
    allow_hub : bool
        Whether a name that is no file is looked up on the hub.

    Returns
    -------
    datasets.DatasetDict
        See the module's docstring. A `split` column is obeyed; other files are split by `split_rows`. What the reader
        should know and need not mend, such as a label that a split lacks, is printed as a note.

    Raises
    ------
    DataError
        With every fault found: file, row, column, value and remedy.
    """
    import datasets

    frame = check_frame(source, *_load(source, allow_hub))
    for note in frame.attrs["notes"]:
        print(f"note: {note}")
    names = frame.attrs["label_names"]
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "text": datasets.Value("string"),
            "labels": datasets.Sequence(datasets.Value("float32")),
            "label_ids": datasets.Sequence(datasets.ClassLabel(names=names)),
        }
    )
    splits = datasets.DatasetDict()
    for split in SPLITS:
        part = frame[frame["split"] == split]
        matrix = np.stack(part["labels"].to_list())
        splits[split] = datasets.Dataset.from_dict(
            {
                "id": part["id"].to_list(),
                "text": part["text"].to_list(),
                "labels": matrix,
                "label_ids": [np.flatnonzero(row).tolist() for row in matrix],
            },
            features=features,
        )
    return splits


def label_names(splits):
    """The label names of a DatasetDict (or of one of its splits), in the order of the columns of `labels`."""
    part = splits[next(iter(splits))] if isinstance(splits, dict) else splits
    feature = part.features["label_ids"]
    return list(feature.feature.names)


def label_matrix(part):
    """The labels of one split: float32 array of shape (n_examples, n_labels)."""
    return np.asarray(part.with_format("numpy")["labels"][:], dtype=np.float32).reshape(len(part), -1)


# Reading files -------------------------------------------------------------------------------------------------------


def _load(source, allow_hub):
    """Return (frame as found, function from position to the row's name in that source)."""
    path = embedded_path(source) if source in EMBEDDED else Path(source)
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
    if path.is_dir() and not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)):
        raise DataError(source, ["this is a folder; give the file itself (.csv, .jsonl or .parquet)"])
    if path.suffix.lower() in readers:
        if not path.exists():
            raise DataError(source, [f"there is no such file (looked in {path.resolve().parent}); check DATASET"])
        try:
            frame = readers[path.suffix.lower()](path)
        except OSError as error:
            raise DataError(source, [f"the file cannot be read: {error.strerror}; check its permissions"]) from error
        if frame.empty:
            raise DataError(source, ["there are no rows below the header; the file needs at least ten texts"])
        return frame, (lambda i: f"row {i + 2}") if path.suffix.lower() == ".csv" else (lambda i: f"row {i + 1}")
    if path.exists() and path.is_file():
        raise DataError(source, [f"unknown extension {path.suffix!r}; save the file as .csv, .jsonl or .parquet"])
    if (
        not allow_hub
        or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(source))
        or path.suffix.lower() in {".tsv", ".txt", ".xlsx", ".json"}
    ):
        raise DataError(
            source,
            [
                'there is no such file; DATASET takes "movies", "comments", a .csv, .jsonl or .parquet file, '
                'or a hub name as in "owner/name"'
            ],
        )
    return _read_hub(str(source)), lambda i: f"row {i + 1}"


def _read_csv(path):
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), None)
        if not header:
            raise DataError(path.name, ["the file is empty; it needs a header and at least ten rows"])
        twice = sorted({name for name in header if header.count(name) > 1})
        if twice:
            raise DataError(
                path.name,
                [
                    f"row 1, column {name!r}: the column appears {header.count(name)} times; rename or remove one"
                    for name in twice
                ],
            )
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            # "NA", "None" and "null" are texts that people write; only an empty field is empty.
            return pd.read_csv(
                path, dtype=str, keep_default_na=False, na_filter=False, index_col=False, encoding="utf-8-sig"
            )
    except UnicodeDecodeError as error:
        raise DataError(path.name, [_where_not_utf8(path)]) from error
    except (pd.errors.ParserError, pd.errors.ParserWarning, csv.Error) as error:
        found = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error))
        what = (
            f"row {found[2]}: {found[3]} fields where the header has {found[1]}"
            if found
            else f"the rows do not fit the header ({str(error).strip()})"
        )
        raise DataError(
            path.name, [f"{what}; put texts that hold commas or line breaks between double quotes"]
        ) from error


def _where_not_utf8(path):
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as error:
            if number == 1:
                header, field = [], 0
            else:
                header = path.read_bytes().split(b"\n")[0].decode("utf-8-sig", "replace").strip().split(",")
                field = len(next(csv.reader([line[: error.start].decode("latin-1") + "x"]))) - 1
            column = f", column {header[field]!r}" if field < len(header) else ""
            return (
                f"row {number}{column}: the byte 0x{line[error.start]:02x} is not UTF-8; save the file as UTF-8 "
                "(in a spreadsheet: 'CSV UTF-8')"
            )
    return "the file is not UTF-8; save it as UTF-8"


def _read_jsonl(path):
    records, faults = [], []
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    record = json.loads(line)
                    if not isinstance(record, dict):
                        raise ValueError("not an object")
                    records.append(record)
                except ValueError:
                    faults.append(
                        f'row {number}: not a JSON object; each line is one, as {{"text": "...", "labels": ["a"]}}'
                    )
    except UnicodeDecodeError as error:
        raise DataError(path.name, [_where_not_utf8(path)]) from error
    if faults:
        raise DataError(path.name, faults)
    return pd.DataFrame.from_records(records)


def _read_parquet(path):
    import pyarrow

    try:
        return pd.read_parquet(path)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError) as error:
        raise DataError(path.name, ["this is not a whole Parquet file; write it again"]) from error


def _read_hub(name):
    import datasets

    try:
        loaded = datasets.load_dataset(name)
    except Exception as error:  # the hub client raises some twenty kinds; the reader needs one sentence
        raise DataError(
            name,
            [
                f"no such file, and the hub data set could not be loaded ({type(error).__name__}: "
                f"{str(error).splitlines()[0][:200]}); check the name and the network"
            ],
        ) from error
    frames = []
    for split, part in loaded.items():
        frame = part.to_pandas()
        feature = part.features.get("labels")
        inner = getattr(feature, "feature", None)
        if isinstance(inner, datasets.ClassLabel):
            frame["labels"] = [[inner.int2str(int(i)) for i in ids] for ids in frame["labels"]]
            frame.attrs["label_names"] = inner.names
        frame["split"] = split
        frames.append(frame)
    joined = pd.concat(frames, ignore_index=True)
    joined.attrs = frames[0].attrs
    return joined


# Checking ------------------------------------------------------------------------------------------------------------


def check_frame(source, frame, row_name):
    """Check a frame as read and bring it to the columns id, text, labels (a float32 vector a row) and split.

    Parameters
    ----------
    source : str
        Named in messages.
    frame : pandas.DataFrame
        With a text column (`text` or `comment_text`), and either a `labels` column (lists, or strings joined by
        | ; or ,) or one 0/1 column a label. `id` and `split` are optional.
    row_name : callable
        From a position to the row's name in messages.

    Returns
    -------
    pandas.DataFrame
        `attrs["label_names"]` and `attrs["notes"]` (list of str: what the reader should know) are set.
    """
    source = Path(str(source)).name if Path(str(source)).suffix else source
    faults, notes = [], []
    text = next((name for name in TEXT_COLUMNS if name in frame.columns), None)
    if text is None:
        raise DataError(
            source,
            [
                f"column 'text' is missing; the columns are {', '.join(map(str, frame.columns))}: rename the one with the texts to 'text'"
            ],
        )
    for i, value in enumerate(frame[text]):
        if not isinstance(value, str):
            faults.append(f"{row_name(i)}, column {text!r}: {value!r} is not a text; write one or delete the row")
        elif not value.strip():
            faults.append(f"{row_name(i)}, column {text!r}: the text is empty; write one or delete the row")
    ids = frame["id"].astype(str) if "id" in frame else pd.Series([str(i) for i in range(1, len(frame) + 1)])
    for i in np.flatnonzero(ids.duplicated()):
        faults.append(f"{row_name(i)}, column 'id': {ids.iloc[i]!r} was used before; ids must differ")
    if "labels" in frame:
        names, matrix = _labels_from_lists(frame, row_name, faults)
    else:
        names, matrix = _labels_from_columns(frame, row_name, faults, notes, text)
    split = None
    if "split" in frame:
        split = frame["split"].astype(str).str.strip().str.lower().map(SPLIT_NAMES)
        for i in np.flatnonzero(split.isna()):
            faults.append(
                f"{row_name(i)}, column 'split': {frame['split'].iloc[i]!r} is none of train, validation, test; write one of them or leave the column out"
            )
    if not faults and len(names) == 1:
        faults.append(
            f"there is only one label, {names[0]!r}; multi-label data have at least two (use a binary classifier)"
        )
    if not faults and not matrix.any():
        faults.append("no label is used in any row; check the label columns")
    if not faults and len(frame) < 10:
        faults.append(f"{len(frame)} rows cannot be split into train, validation and test; give at least ten")
    if faults:
        raise DataError(source, faults)

    out = pd.DataFrame({"id": ids.to_list(), "text": frame[text].to_list(), "labels": list(matrix)})
    missing = [name for name in SPLITS if split is None or name not in set(split)]
    if "train" in missing:
        if split is not None:
            raise DataError(
                source,
                ["column 'split' has no train row; mark the rows to learn from with train, or leave the column out"],
            )
        out["split"] = split_rows(out["text"], matrix)
    else:
        out["split"] = split.to_list()
        if missing:  # carve what is missing out of train
            inside = np.flatnonzero(out["split"] == "train")
            parts = split_rows(
                out["text"].iloc[inside],
                matrix[inside],
                {"train": 1 - 0.15 * len(missing), **dict.fromkeys(missing, 0.15)},
            )
            out.loc[inside, "split"] = parts
            notes.append(f"there was no {' and no '.join(missing)} split; it was taken out of train")
    for k, name in enumerate(names):
        for part in SPLITS:
            if not matrix[(out["split"] == part).to_numpy(), k].any():
                notes.append(f"label {name!r} never appears in {part}: its scores there are undefined")
        if matrix[:, k].all():
            notes.append(f"label {name!r} is on every row: there is nothing to learn for it")
    out.attrs = {"label_names": names, "notes": notes}
    return out


def _labels_from_lists(frame, row_name, faults):
    values = frame["labels"].to_list()
    strings = [v for v in values if isinstance(v, str)]
    separator = next((s for s in SEPARATORS if any(s in v and not v.startswith("[") for v in strings)), SEPARATORS[0])
    sets = []
    for i, value in enumerate(values):
        if isinstance(value, str):
            text = value.strip()
            if text.startswith("["):
                try:
                    value = ast.literal_eval(text)
                except (ValueError, SyntaxError):
                    faults.append(
                        f'{row_name(i)}, column \'labels\': {text!r} is not a list; write it as ["a", "b"] or a|b'
                    )
                    value = []
            else:
                value = [part for part in text.split(separator) if part.strip()]
        elif isinstance(value, (list, tuple, set, np.ndarray)):
            value = list(value)
        else:
            faults.append(
                f"{row_name(i)}, column 'labels': {value!r} is neither a list nor a text; write [] for no label"
            )
            value = []
        wrong = [item for item in value if not isinstance(item, str)]
        if wrong:
            faults.append(f"{row_name(i)}, column 'labels': {wrong[0]!r} is not a label name; give names, not numbers")
        sets.append({str(item).strip() for item in value})
    names = frame.attrs.get("label_names") or sorted(set().union(*sets))
    if not names:
        faults.append("column 'labels': no label is used in any row; check the file")
        return [], np.zeros((len(frame), 0), dtype=np.float32)
    from sklearn.preprocessing import MultiLabelBinarizer

    return list(names), MultiLabelBinarizer(classes=names).fit_transform(sets).astype(np.float32)


def _labels_from_columns(frame, row_name, faults, notes, text):
    others = [name for name in frame.columns if name not in (text, "id", "split")]
    numbers = {name: pd.to_numeric(frame[name], errors="coerce") for name in others}
    # A column that is mostly 0 and 1 is meant as a label; one that never is, is something else and left aside aloud.
    labels = [name for name in others if numbers[name].isin([0, 1]).mean() >= 0.5]
    aside = [name for name in others if name not in labels]
    if aside:
        notes.append(f"columns not used: {', '.join(aside)} (a label column holds 0 and 1)")
    if not labels:
        raise DataError(
            frame.attrs.get("source", "the data"),
            [
                f"there is neither a 'labels' column nor a column of 0 and 1 (the columns are {', '.join(map(str, frame.columns))}); "
                "add labels joined by | or one 0/1 column a label"
            ],
        )
    for name in labels:
        for i in np.flatnonzero(~numbers[name].isin([0, 1])):
            faults.append(
                f"{row_name(i)}, column {name!r}: {frame[name].iloc[i]!r} is neither 0 nor 1; a label column holds nothing else"
            )
    matrix = np.stack([numbers[name].fillna(0) for name in labels], axis=1).astype(np.float32)
    return labels, matrix


# Splitting -----------------------------------------------------------------------------------------------------------


def split_rows(texts, matrix, fractions=FRACTIONS, seed=0):
    """Split rows so that label combinations keep their shares and equal texts stay together.

    Iterative stratification (Sechidis et al., 2011, doi:10.1007/978-3-642-23808-6_10) over groups of texts that are
    equal up to case and spaces; a group carries every label of its rows.

    Parameters
    ----------
    texts : sequence of str, length n_examples
    matrix : float32 array of shape (n_examples, n_labels)
    fractions : dict
        From the split's name to its share; the shares add up to 1.
    seed : int
        Not the training's seed: the split stays the same over training seeds.

    Returns
    -------
    numpy array of str, shape (n_examples,)
    """
    from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit

    keys = pd.Series(list(texts)).str.lower().str.split().str.join(" ")
    group = pd.factorize(keys)[0]
    grouped = np.zeros((group.max() + 1, matrix.shape[1]))
    np.maximum.at(grouped, group, matrix)
    # A row without a label is a kind of its own, to be spread evenly like the others.
    grouped = np.hstack([grouped, ~grouped.any(axis=1, keepdims=True)]).astype(int)
    names = list(fractions)
    assigned = np.full(len(grouped), names[0], dtype=object)
    rest, share_left = np.arange(len(grouped)), 1.0
    for name in names[1:]:
        splitter = MultilabelStratifiedShuffleSplit(
            n_splits=1, test_size=fractions[name] / share_left, random_state=seed
        )
        keep, taken = next(splitter.split(rest, grouped[rest]))
        assigned[rest[taken]] = name
        rest, share_left = rest[keep], share_left - fractions[name]
    return assigned[group].astype(str)
