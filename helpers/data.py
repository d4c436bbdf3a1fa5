"""A data set in its one form, and split.

The one form is a `datasets.DatasetDict` with the splits train, validation and test and the columns

- `id` (str),
- `text` (str),
- `labels`: float32, one 0 or 1 for each label, in a fixed order; UNKNOWN (-100) where nobody has said which,
- `label_ids`: the positions of the labels that are present; its ClassLabel feature carries the label names, so that
  they survive saving, mapping and selecting.

`helpers.reading` reads and checks what comes in.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from helpers.labels import UNKNOWN, count_positives, known, label_shares  # noqa: F401
from helpers.reading import EMBEDDED, MIN_ROWS, SPLITS, DataError, embedded_path, read_rows  # noqa: F401

# Scripts that put no spaces between words (Thai, Lao, Chinese, Japanese): there a character counts as a word. For RE2.
NO_SPACES = r"\x{0e00}-\x{0eff}\x{3040}-\x{9fff}\x{f900}-\x{faff}"
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


# Duplicates and splits ------------------------------------------------------------------------------------------------


def equal_texts(texts):
    """Group numbers, int array of shape (n_examples,): texts that are equal up to case and spaces share one."""
    words = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(pc.utf8_lower(_strings(texts))))
    return pc.binary_join(words, " ").dictionary_encode().indices.to_numpy()


def _strings(texts):
    """Texts as one pyarrow.StringArray; without a copy where they are in Arrow already."""
    strings = pa.array(texts, pa.string())
    return strings.combine_chunks() if isinstance(strings, pa.ChunkedArray) else strings


def word_pairs(texts):
    """The pairs of neighbouring words of each text, as numbers, which are equal where the pairs are.

    A text of one word has that word alone; one without words is like no other.

    Parameters
    ----------
    texts : pyarrow.StringArray, length n_examples

    Returns
    -------
    (uint64 array of shape (n_pairs,), int64 array of shape (n_examples + 1,))
        The pairs of all texts in a row, well mixed as hashes are, and where each text's begin and end.
    """
    rows = np.linspace(0, len(texts), (os.cpu_count() or 1) + 1).astype(int)
    with ThreadPoolExecutor() as pool:  # Arrow lets go of the interpreter while it works
        parts = list(pool.map(_words, [texts[a:b] for a, b in pairwise(rows)]))
    words = pa.concat_arrays(parts)
    ends, coded = words.offsets.to_numpy().astype(np.int64), words.flatten().dictionary_encode()
    end = len(coded.dictionary)
    codes = coded.indices.to_numpy().astype(np.int64)
    last, alone = ends[1:] - 1, np.diff(ends) == 1
    pairs = codes * (end + 1) + np.roll(codes, -1)
    pairs[last] = codes[last] * (end + 1) + end
    wordless = np.flatnonzero(alone & (codes[last] == pc.index(coded.dictionary, "").as_py()))
    pairs[last[wordless]] = (end + 1) ** 2 + wordless
    is_pair = np.ones(len(pairs), dtype=bool)
    is_pair[last[~alone]] = False
    ends[1:] -= np.cumsum(~alone)
    return pd.util.hash_array(pairs[is_pair].view(np.uint64)), ends


def _words(texts):
    """Lists of the words of texts in small letters; of a text without words, one empty word."""
    text = pc.replace_substring_regex(pc.utf8_lower(texts), rf"[^\pL\pN_{NO_SPACES}]+", " ")
    if not pc.all(pc.string_is_ascii(text)).as_py():
        text = pc.replace_substring_regex(text, f"[{NO_SPACES}]", r" \0 ")
    return pc.ascii_split_whitespace(pc.ascii_trim_whitespace(text))


def near_duplicates(texts, threshold=0.8, equal=None):
    """Group numbers of texts that are nearly the same: int array of shape (n_examples,).

    Two texts are linked when they share at least `threshold` of their word pairs (Jaccard similarity of the sets), and
    linked texts are one group. Not all pairs are compared, only those that MinHash puts into one bucket (Broder, 1997,
    doi:10.1109/SEQUEN.1997.666900; banding: Leskovec et al., Mining of Massive Datasets, 3.4): time grows with the
    number of texts and not with its square. Of the pairs just above the threshold some are missed: one in eight at 0.8,
    one in three hundred at 0.9.

    Parameters
    ----------
    texts : sequence of str, length n_examples
    threshold : float
        From 0 to 1; well below 0.7 the buckets miss most pairs.
    equal : int array of shape (n_examples,), optional
        Their `equal_texts`, where these are known already.
    """
    from rensa import RMinHash, RMinHashLSH

    equal = equal_texts(texts) if equal is None else equal
    first = np.unique(equal, return_index=True)[1]  # of equal texts one is enough
    pairs, ends = word_pairs(_strings(texts).take(pa.array(first)))
    bands, width = 9, 7

    def digest(pairs, ends):
        return RMinHash.digest_matrix_from_flat_token_hashes(pairs, ends.astype(np.uint64), bands * width, 1)

    # Most texts are alone in all their buckets; the others are looked at closely.
    buckets = RMinHashLSH(threshold, bands * width, bands)
    close = np.flatnonzero(buckets.query_duplicate_flags_matrix_one_shot(digest(pairs, ends)))
    lengths, starts = np.diff(ends)[close], ends[close]
    ends = np.concatenate([[0], lengths.cumsum()])
    pairs = pairs[np.arange(ends[-1]) + np.repeat(starts - ends[:-1], lengths)]
    signatures = np.array(digest(pairs, ends).to_rows(), dtype=np.uint32).reshape(-1, bands * width)
    mix = np.random.default_rng(0).integers(2**63, size=width, dtype=np.uint64) | np.uint64(1)
    buckets = (signatures.reshape(-1, bands, width) * mix).sum(axis=2)
    found = [np.empty((2, 0), dtype=np.int64)]
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
            found.append(np.sort([one[alike], other[alike]], axis=0))
    one, other = np.unique(np.concatenate(found, axis=1), axis=1)
    if not len(one):
        return equal
    has = csr_array((np.ones(len(pairs), dtype=np.int32), pd.factorize(pairs)[0], ends))
    has.sum_duplicates()
    has.data[:] = 1  # a pair that a text holds twice counts once
    size, shared = has.sum(axis=1), has[one].multiply(has[other]).sum(axis=1)
    linked = shared >= threshold * (size[one] + size[other] - shared)
    one, other = close[one[linked]], close[other[linked]]
    graph = coo_array((np.ones(len(one)), (one, other)), shape=(len(first), len(first)))
    return connected_components(graph, directed=False)[1][equal]


def assign_splits(rows, equal=None, near=None):
    """The split of each row, and notes about it: the one the source names; what it lacks is taken out of train.

    Near-duplicates that are divided here stay on one side.

    Parameters
    ----------
    rows : Rows
    equal, near : int array of shape (n_examples,), optional
        The texts' `equal_texts` and `near_duplicates`, where these are known already.

    Returns
    -------
    (array of str of shape (n_examples,), list of str)
    """
    notes = []
    split = np.full(len(rows.text), "train", dtype=object) if rows.split is None else rows.split.copy()
    missing = [name for name in SPLITS if name not in set(split)]
    if missing:
        inside = np.flatnonzero(split == "train")
        groups = (near_duplicates(rows.text, equal=equal) if near is None else near)[inside]
        if (n_groups := len(set(groups))) < MIN_ROWS:
            what = f"{n_groups} different texts are too few to take {' and '.join(missing)} from"
            raise DataError("the data", [f"{what} (near-duplicates count once); give at least {MIN_ROWS}"])
        shares = {name: FRACTIONS[name] for name in missing}
        shares = {"train": 1 - sum(shares.values()), **shares}
        split[inside] = split_rows(rows.text.iloc[inside], rows.matrix[inside], shares, groups=groups)
    if rows.split is not None:
        if missing:
            notes.append(f"there was no {' and no '.join(missing)} split; it was taken out of train")
        equal = equal_texts(rows.text) if equal is None else equal
        pairs = pd.DataFrame({"text": equal, "split": split}).drop_duplicates()
        if shared := int((pairs["text"].value_counts() > 1).sum()):
            notes.append(f"{shared} texts are in more than one split: scores there reward memory")
    present = rows.matrix == 1
    for j, name in enumerate(rows.label_names):
        for part in SPLITS:
            if present[:, j].any() and not present[split == part, j].any():
                what = "it can't be learned" if part == "train" else "its scores there are undefined"
                notes.append(f"label {name!r} never appears in {part}: {what}")
    return split, notes


def split_rows(texts, matrix, fractions=FRACTIONS, seed=0, groups=None):
    """Split rows so that each label keeps its share and equal texts stay together.

    Iterative stratification (Sechidis et al., 2011, doi:10.1007/978-3-642-23808-6_10) over groups of texts; a group
    carries every label of its rows. An unknown cell counts as a no.

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
    np.maximum.at(grouped, group, matrix == 1)
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
