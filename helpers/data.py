"""A data set in its one form, and split.

The one form is a `datasets.DatasetDict` with the splits train, validation and test and the columns

- `id` (str),
- `text` (str),
- `labels`: float32, one 0 or 1 for each label, in a fixed order,
- `label_ids`: the positions of the labels that are present; its ClassLabel feature carries the label names, so that they
  survive saving, mapping and selecting.

`helpers.reading` reads and checks what comes in.
"""

import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from helpers.reading import EMBEDDED, MIN_ROWS, SPLITS, DataError, embedded_path, read_rows  # noqa: F401

# A word; in scripts that put no spaces between words (Thai, Lao, Chinese, Japanese), a character.
WORD = re.compile(r"[\u0e00-\u0eff\u3040-\u9fff\uf900-\ufaff]|[^\W\u0e00-\u0eff\u3040-\u9fff\uf900-\ufaff]+")
FRACTIONS = {"train": 0.70, "validation": 0.15, "test": 0.15}


def read_splits(source, allow_hub=True, label_names=None, tokenizer=None):
    """Read a data set into its one form: `read_rows`, whose parameters these are, then `assign_splits`.

    The notes are printed.

    Returns
    -------
    datasets.DatasetDict
        See the module's docstring.

    Raises
    ------
    DataError
        With every fault found.
    """
    import datasets

    rows = read_rows(source, allow_hub, label_names, tokenizer)
    split, notes = assign_splits(rows)
    for note in rows.notes + notes:
        print(f"note: {note}")
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "text": datasets.Value("string"),
            "labels": datasets.Sequence(datasets.Value("float32")),
            "label_ids": datasets.Sequence(datasets.ClassLabel(names=rows.label_names)),
        }
    )
    splits = datasets.DatasetDict()
    for name in SPLITS:
        inside = np.flatnonzero(split == name)
        matrix = rows.matrix[inside]
        present = matrix == 1
        columns = {
            "id": pa.array(rows.id.iloc[inside], pa.string()),
            "text": pa.array(rows.text.iloc[inside], pa.string()),
            "labels": _lists(matrix.ravel(), np.full(len(matrix), matrix.shape[1])),
            "label_ids": _lists(np.nonzero(present)[1], present.sum(axis=1)),
        }
        table = pa.table(columns).cast(features.arrow_schema)
        splits[name] = datasets.Dataset(table, info=datasets.DatasetInfo(features=features))
    return splits


def _lists(values, lengths):
    """Arrow lists of the given lengths over one flat array."""
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], lengths.cumsum()]), pa.int32()), pa.array(values))


def label_names(splits):
    """The label names of a DatasetDict (or of one of its splits), in the order of the columns of `labels`."""
    part = splits[next(iter(splits))] if isinstance(splits, dict) else splits
    feature = part.features["label_ids"]
    return list(feature.feature.names)


def label_matrix(part):
    """The labels of one split: float32 array of shape (n_examples, n_labels)."""
    labels = part.with_format("numpy")["labels"][:]
    return np.asarray(labels, dtype=np.float32).reshape(-1, len(label_names(part)))


# Duplicates and splits -----------------------------------------------------------------------------------------------


def equal_texts(texts):
    """Group numbers, int array of shape (n_examples,): texts that are equal up to case and spaces share one."""
    words = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(pc.utf8_lower(pa.array(texts, pa.string()))))
    return pd.factorize(pc.binary_join(words, " ").to_pandas())[0]


def near_duplicates(texts, threshold=0.8):
    """Group numbers of texts that are nearly the same: int array of shape (n_examples,).

    Two texts are linked when they share at least `threshold` of their word pairs (Jaccard similarity of the sets), and linked
    texts are one group. Not all pairs are compared, only those that MinHash puts into one bucket (Broder, 1997,
    doi:10.1109/SEQUEN.1997.666900; banding: Leskovec et al., Mining of Massive Datasets, 3.4): time grows with the number of
    texts and not with its square. Of the pairs just above the threshold some are missed: one in eight at 0.8, one in three hundred at 0.9.

    Parameters
    ----------
    texts : sequence of str, length n_examples
    threshold : float
        From 0 to 1; well below 0.7 the buckets miss most pairs.
    """
    from datasketch import MinHash

    texts, equal = list(texts), equal_texts(texts)
    first = np.unique(equal, return_index=True)[1]  # of equal texts one is enough
    bands, width = 9, 7

    def word_pairs(i):
        text = texts[first[i]].lower()
        words = WORD.findall(text)
        return {" ".join(pair) for pair in zip(words, words[1:], strict=False)} or {" ".join(words) or text.strip()}

    encoded = ([pair.encode() for pair in word_pairs(i)] for i in range(len(first)))
    signatures = np.empty((len(first), bands * width), dtype=np.uint32)
    for i, signature in enumerate(MinHash.generator(encoded, num_perm=bands * width)):
        signatures[i] = signature.hashvalues
    mix = np.random.default_rng(0).integers(2**63, size=width, dtype=np.uint64) | np.uint64(1)
    buckets = (signatures.reshape(-1, bands, width) * mix).sum(axis=2)
    candidates = set()
    for band in range(bands):
        # within a bucket, texts that share the next bands as well lie side by side; up to 32 neighbours are looked at
        order = np.lexsort(np.roll(buckets, -band, axis=1)[:, 2::-1].T)
        for apart in range(1, 33):
            one, other = order[:-apart], order[apart:]
            same = buckets[one, band] == buckets[other, band]
            if not same.any():
                break
            one, other = one[same], other[same]
            alike = (signatures[one] == signatures[other]).mean(axis=1) > threshold - 0.15  # estimates their similarity
            candidates.update(zip(one[alike].tolist(), other[alike].tolist(), strict=True))
    links = [
        (i, j)
        for i, j in candidates
        if len(word_pairs(i) & word_pairs(j)) >= threshold * len(word_pairs(i) | word_pairs(j))
    ]
    rows, columns = np.array(links, dtype=int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(links)), (rows, columns)), shape=(len(first), len(first)))
    return connected_components(graph, directed=False)[1][equal]


def assign_splits(rows):
    """The split of each row, and notes about it: the one the source names; what it lacks is taken out of train.

    Near-duplicates that are divided here stay on one side.

    Parameters
    ----------
    rows : Rows

    Returns
    -------
    (array of str of shape (n_examples,), list of str)
    """
    notes = []
    split = np.full(len(rows.text), "train", dtype=object) if rows.split is None else rows.split.copy()
    missing = [name for name in SPLITS if name not in set(split)]
    if missing:
        inside = np.flatnonzero(split == "train")
        groups = near_duplicates(rows.text.iloc[inside])
        if (n_groups := len(set(groups))) < MIN_ROWS:
            what = f"{n_groups} different texts are too few to take {' and '.join(missing)} from"
            raise DataError("the data", [f"{what} (near-duplicates count once); give at least {MIN_ROWS}"])
        shares = {name: FRACTIONS[name] for name in missing}
        shares = {"train": 1 - sum(shares.values()), **shares}
        split[inside] = split_rows(rows.text.iloc[inside], rows.matrix[inside], shares, groups=groups)
    if rows.split is not None:
        if missing:
            notes.append(f"there was no {' and no '.join(missing)} split; it was taken out of train")
        pairs = pd.DataFrame({"text": equal_texts(rows.text), "split": split}).drop_duplicates()
        if shared := int((pairs["text"].value_counts() > 1).sum()):
            notes.append(f"{shared} texts are in more than one split: scores there reward memory")
    for j, name in enumerate(rows.label_names):
        for part in SPLITS:
            if rows.matrix[:, j].any() and not rows.matrix[split == part, j].any():
                what = "it can't be learned" if part == "train" else "its scores there are undefined"
                notes.append(f"label {name!r} never appears in {part}: {what}")
    return split, notes


def split_rows(texts, matrix, fractions=FRACTIONS, seed=0, groups=None):
    """Split rows so that each label keeps its share and equal texts stay together.

    Iterative stratification (Sechidis et al., 2011, doi:10.1007/978-3-642-23808-6_10) over groups of texts; a group
    carries every label of its rows.

    Parameters
    ----------
    texts : sequence of str, length n_examples
    matrix : float32 array of shape (n_examples, n_labels)
    fractions : dict
        From the split's name to its share; the shares add up to 1.
    seed : int
        Not the training's seed: the split stays the same over training seeds.
    groups : int array of shape (n_examples,), optional
        Rows with one number stay together; default: `equal_texts`. `near_duplicates` is stricter.

    Returns
    -------
    numpy array of str, shape (n_examples,)
    """
    from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit

    group = equal_texts(texts) if groups is None else pd.factorize(groups)[0]
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
