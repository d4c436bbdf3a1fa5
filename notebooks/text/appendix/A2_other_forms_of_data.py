# %% [markdown]
# # A2 · Other forms of data
#
# For a second reading, after notebooks 1 and 2. You need the first half if your data come from the Hugging Face hub as numbers: ids of labels, or texts that somebody has tokenized. You need the second half if you wonder about a tokenizer of your own, or about the fastest way to make batches. Whoever has texts and labels in a file needs none of it.
#
# **You will be able to**
# - read a data set whose labels are ids, and say what Parquet keeps that CSV and JSONL lose;
# - get texts back from a data set that comes tokenized, say what is lost in them, and when they can't be had back;
# - train a tokenizer on texts of your own, and say why no pre-trained checkpoint can use it;
# - choose between a `Dataset` in memory and `datasets.map`, by their speed on your texts.
#
# **Time:** half a minute on the built-in data, on a laptop with two CPU cores.

# %% [markdown]
# ## Set-up
# The first cell makes sure that the course is installed.

# %% tags=["setup"]
# Does nothing where the course is installed; elsewhere, as in Colab, installs this version of it.
import importlib, os, subprocess, sys

VERSION = "0.2.0"
ADDRESS = f"https://github.com/multilabel-course/multilabel-course/archive/refs/tags/v{VERSION}.zip"
try:
    assert importlib.import_module("helpers").__version__ == VERSION
except (ImportError, AttributeError, AssertionError):
    clone = [up for up in ("..", "../..") if os.path.exists(f"{up}/helpers/runtime.py")]
    source = os.environ.get("MULTILABEL_COURSE", [*clone, ADDRESS][0])
    command = [sys.executable, "-m", "pip", "install", "--quiet", source]
    if (pip := subprocess.run(command, capture_output=True, text=True)).returncode:
        raise RuntimeError(f"pip could not install the course from {source}:\n{pip.stderr[-2000:]}") from None
    sys.modules.pop("helpers", None)
    importlib.invalidate_caches()
helpers = importlib.import_module("helpers")
assert getattr(helpers, "__version__", None) == VERSION, f"another helpers is in the way: {helpers.__file__}"

# %% [markdown]
# The parameters. Change them here, or let papermill do it from outside. They are the same in every notebook; `None` means the profile's value; `start_run` prints it.

# %% tags=["parameters"]
PROFILE = "tiny"  # "tiny": built-in data and model, CPU. "full": data and checkpoint from the hub, for a GPU
DATASET = None  # None (the profile's), "movies", "comments", a file (.csv, .jsonl, .xlsx, ...), or a hub name
LABEL_NAMES = None  # None (all that are found), or a list of labels; ["-a"] takes all but a
UNKNOWN = None  # True: -1 and nothing in the place of a label mean that nobody looked
CHECKPOINT = None  # None (the profile's), a folder, or a hub name
MAX_LEN = None  # tokens after which a text is cut
TRAIN_BATCH_SIZE = None
VALID_BATCH_SIZE = None
EPOCHS = None
LEARNING_RATE = None
SEED = None
OUTPUT_DIR = None  # None: the folder build/ of the course

# %% [markdown]
# What this notebook imports:

# %%
import tempfile
import time
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.utils.data import DataLoader, Dataset
from transformers import CanineTokenizer

from helpers.checkpoints import embedded_checkpoint
from helpers.data import label_matrix, read_splits
from helpers.models import load_tokenizer
from helpers.notebooks import show_error
from helpers.runtime import start_run
from helpers.tokenization import MultiLabelCollator, MultiLabelDataset, tokenize_splits

# %% [markdown]
# The run has the parameters of notebook 3, and so its folder; nothing is written to it here.

# %%
run = start_run(
    "A2_other_forms_of_data",
    default_dataset="movies",
    profile=PROFILE,
    dataset=DATASET,
    label_names=LABEL_NAMES,
    unknown=UNKNOWN,
    checkpoint=CHECKPOINT,
    max_len=MAX_LEN,
    train_batch_size=TRAIN_BATCH_SIZE,
    valid_batch_size=VALID_BATCH_SIZE,
    epochs=EPOCHS,
    learning_rate=LEARNING_RATE,
    seed=SEED,
    output_dir=OUTPUT_DIR,
    recipe="loop",
)
print(run)

# %% [markdown]
# ## Ids in the place of names
# On the hub a data set is kept as Parquet, with a description of its columns. Labels are often lists of ids there, and `ClassLabel` is how the description names them. Twenty texts in that form:

# %%
folder = Path(tempfile.mkdtemp())
texts = [f"Example number {i}, nothing more" for i in range(20)]
names = ["a", "b", "c"]
ids = [[0], [0, 1], [], [1, 2]] * 5  # of a, b and c

# %% [markdown]
# With the description, to a file:

# %%
features = datasets.Features(
    text=datasets.Value("string"), labels=datasets.Sequence(datasets.ClassLabel(names=names))
)
hub = datasets.Dataset.from_dict({"text": texts, "labels": ids}, features=features)
_ = hub.to_parquet(folder / "ids.parquet")

# %% [markdown]
# `read_splits` finds the names in the description. It returns what it returns for every form, float32 labels in columns with names:

# %% tags=["nbval-check-output"]
read = read_splits(folder / "ids.parquet")
print(read["train"].features["label_ids"].feature.names)
print(label_matrix(read["train"])[:2], label_matrix(read["train"]).dtype)

# %% [markdown]
# What is Parquet good for? Here are the same rows as vectors in three kinds of file:

# %%
vectors = np.array([[k in row for k in range(3)] for row in ids], np.float32)
frame = pd.DataFrame({"text": texts, "labels": list(vectors)})
frame.to_csv(folder / "v.csv", index=False)
frame.to_json(folder / "v.jsonl", orient="records", lines=True)
frame.to_parquet(folder / "v.parquet")

# %% [markdown]
# And the type of a row's labels as pandas reads it back:

# %% tags=["nbval-check-output"]
back = (
    pd.read_csv(folder / "v.csv"),
    pd.read_json(folder / "v.jsonl", lines=True),
    pd.read_parquet(folder / "v.parquet"),
)
for kind, table in zip(("CSV", "JSONL", "Parquet"), back, strict=True):
    labels = table["labels"][0]
    print(f"{kind:<8} {type(labels).__name__:<8} of {type(labels[0]).__name__:<8} {labels!r}")

# %% [markdown]
# CSV knows text only: the vector has become a string. JSONL keeps lists and numbers, but not which numbers. Parquet keeps the type, and the names of ids with it; besides, it is stored by columns, so that one can be read without the others. What it lacks is that a person can open it in an editor. For data that you label or mend by hand CSV or JSONL is the better form, for data that machines pass on it is Parquet.

# %% [markdown]
# ## Tokenized by somebody else
# Some data sets, `zcamz/toxic` on the hub among them, hold no texts. Somebody chose a tokenizer and a length, every row is padded, and the labels are vectors without names. Here it is, for the same texts:

# %% tags=["nbval-check-output"]
maker = load_tokenizer(embedded_checkpoint())
encoded = maker(texts, padding="max_length", max_length=12, return_token_type_ids=False)
tokenized = datasets.Dataset.from_dict({**encoded, "labels": vectors.tolist()})
_ = tokenized.to_parquet(folder / "tokenized.parquet")
print(tokenized[1])

# %% [markdown]
# Ids of one tokenizer mean nothing to another checkpoint, and nobody can read them. So `read_splits` decodes them, and the texts are then tokenized afresh for the checkpoint of the run. The names of the labels have to come from you:

# %% tags=["nbval-check-output"]
read = read_splits(folder / "tokenized.parquet", label_names=names)
print("as written:", texts[0])
print("decoded, the first of train:", read["train"]["text"][0])

# %% [markdown]
# The text is back, but not as it was. This tokenizer is an uncased one, so capitals are gone; what was cut off at its length stays cut off, and what was `[UNK]` stays unknown. If the original texts can be had, take them.
#
# ### Decoded with the wrong tokenizer
# The built-in tokenizer decodes any id below its size, whoever made it: the result is words in a row that nobody wrote. To see what happens then, we number the pieces in another way, as another tokenizer would have done:

# %% tags=["nbval-check-output"]
renumbered = [[(i * 7919) % 30_000 for i in row] for row in encoded["input_ids"]]
print(maker.decode(encoded["input_ids"][0][:8]))
print(maker.decode(renumbered[0][:8]))

# %% [markdown]
# A model would train on that without a complaint. `read_splits` refuses it. It looks whether the rows begin as this tokenizer begins them, and whether decoded texts, tokenized again, give the same ids:

# %% tags=["nbval-check-output"]
foreign = datasets.Dataset.from_dict({"input_ids": renumbered, "labels": vectors.tolist()})
foreign.to_parquet(folder / "foreign.parquet")
with show_error():
    read_splits(folder / "foreign.parquet", label_names=names)

# %% [markdown]
# With `tokenizer=`, a folder or a hub name, the one that made them does the decoding. If nobody knows which one it was, the texts can't be had back.

# %% [markdown]
# ## A tokenizer of your own
# Three kinds of tokenizer are common. **WordPiece** (BERT, DistilBERT) builds words from a fixed list of pieces. **Byte-level BPE** (RoBERTa, ModernBERT) starts from the 256 bytes and joins frequent neighbours. CANINE reads **characters**. The latter two have nothing that is unknown to them. How a BPE comes to its pieces is quickly shown: we let one learn 4,000 from our own training texts.

# %%
train = run.splits["train"]
bpe = Tokenizer(models.BPE())
bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
bpe.decoder = decoders.ByteLevel()
alphabet = pre_tokenizers.ByteLevel.alphabet()
trainer = trainers.BpeTrainer(vocab_size=4000, initial_alphabet=alphabet, show_progress=False)
bpe.train_from_iterator(train["text"], trainer)

# %% [markdown]
# A sentence through all three:

# %%
tokenizer, characters = load_tokenizer(run.checkpoint), CanineTokenizer()
sentence = "Zoë's naïve robot, 10/10 🚀🚀 ¡olé!"
pieces = tokenizer.tokenize(sentence)
in_bytes = bpe.encode(sentence)
in_characters = characters(sentence, add_special_tokens=False)["input_ids"]

# %% [markdown]
# And back. Predict first: which of them return it whole, and which needs the most tokens?

# %%
back = {
    "the checkpoint's": tokenizer.convert_tokens_to_string(pieces),
    "byte-level BPE": bpe.decode(in_bytes.ids),
    "characters": "".join(map(chr, in_characters)),
}
kinds = pd.DataFrame({"what comes back": back})
kinds.insert(0, "tokens", [len(pieces), len(in_bytes.ids), len(in_characters)])
kinds

# %% tags=["nbval-check-output"]
assert back["byte-level BPE"] == back["characters"] == sentence
print("bytes and characters lose nothing")

# %% [markdown]
# The price is length, and time grows with tokens (notebook 2). Our BPE needs many here because accents and emoji are rare in what it has read. Does it do better on the kind of text that it was made for? Tokens a text, over the validation texts, which it has not seen:

# %%
valid = run.splits["validation"]["text"][:1000]
lengths = {
    "the checkpoint's": [len(tokenizer.tokenize(text, verbose=False)) for text in valid],
    "our BPE": [len(bpe.encode(text).ids) for text in valid],
}

# %% [markdown]
# The mean of each:

# %%
per_text = pd.DataFrame(lengths).mean().round(1).to_frame("tokens a text")
per_text["pieces it knows"] = [len(tokenizer), bpe.get_vocab_size()]
per_text

# %% [markdown]
# On the built-in film plots it does not: few texts are enough for few pieces only, and more of them would have been seen once or twice. And which pieces has it that the checkpoint's tokenizer has not? The five longest (`Ġ`, a space, stands before the start of a word):

# %%
known = {piece.strip("Ġ▁#").casefold() for piece in tokenizer.get_vocab()}
own = [piece for piece in bpe.get_vocab() if piece.startswith("Ġ") and piece[1:].casefold() not in known]
print(len(own), "words or beginnings of words, among them", *sorted(own, key=lambda p: (-len(p), p))[:5])

# %% [markdown]
# These are words of the subject, which is what one hopes for. Still, no pre-trained checkpoint can use them: its embeddings are a table with a row for each id of *its* tokenizer, trained together with all other weights. With other ids each word would get some other word's row. A tokenizer of one's own makes sense where a model is pre-trained from nothing, with far more text than is labelled here: for a language, a script or a notation that no checkpoint knows. For fine-tuning the rule is short: the tokenizer comes with the checkpoint.

# %% [markdown]
# ## Three ways to batches
# Notebook 2 tokenizes once and pads late. A tutorial of 2020 that is still copied a lot, *the article* in this course, does it the other way round: each text is tokenized when it is asked for, and padded to the full length at once.


# %%
class ArticleDataset(Dataset):
    def __init__(self, texts, labels, tokenizer, max_len):
        self.texts, self.labels = texts, labels
        self.tokenizer, self.max_len = tokenizer, max_len

    def __len__(self):
        return len(self.texts)

    def __getitem__(self, index):
        text = " ".join(self.texts[index].split())
        encoded = self.tokenizer(text, padding="max_length", truncation=True, max_length=self.max_len)
        return {
            "input_ids": torch.tensor(encoded["input_ids"]),
            "attention_mask": torch.tensor(encoded["attention_mask"]),
            "labels": torch.tensor(self.labels[index], dtype=torch.float32),
        }


# %% [markdown]
# It is right, and wasteful twice: every epoch tokenizes everything again, one text at a time, and the padding is fixed before anyone knows which texts will share a batch. How fast is it beside the two ways of notebook 2, for a first epoch and for a second?


# %%
def examples_per_second(make_loader):
    speeds, start = [], time.perf_counter()
    loader = make_loader()
    for _ in range(2):
        examples = sum(len(batch["labels"]) for batch in loader)
        speeds.append(examples / (time.perf_counter() - start))
        start = time.perf_counter()
    return speeds


# %% [markdown]
# At most 2,000 texts, in batches as for training:

# %%
columns = ["input_ids", "attention_mask", "labels"]
settings, collator = run.settings, MultiLabelCollator(tokenizer)
some = train.select(range(min(2000, len(train))))
texts, labels, size = some["text"][:], label_matrix(some), settings.train_batch_size


def article_loader():
    return DataLoader(ArticleDataset(texts, labels, tokenizer, 256), size)


def our_loader():
    return DataLoader(
        MultiLabelDataset(texts, labels, tokenizer, settings.max_len), size, collate_fn=collator
    )


def mapped_loader():
    tokenized = tokenize_splits({"train": some}, tokenizer, settings.max_len)["train"]
    return DataLoader(tokenized.select_columns(columns), size, collate_fn=collator)


# %% [markdown]
# Two passes of each:

# %%
makers = {
    "one text at a time, padded to 256": article_loader,
    "MultiLabelDataset and collator": our_loader,
    "datasets.map and collator": mapped_loader,
}
speeds = {name: examples_per_second(make) for name, make in makers.items()}
pd.DataFrame(speeds, index=["first epoch", "later epochs"]).T.round(-1).astype(int)

# %% [markdown]
# The first way tokenizes in every epoch; the other two only once, which shows in the second column. `MultiLabelDataset` keeps everything in memory. `datasets.map` writes to disk first, which small data feel in the first epoch and a million rows need; from 40,000 rows up `tokenize_splits` shares the work among processes. Before you choose by these numbers, compare them with the texts per second of a forward pass in notebook 2: on a laptop the model is what takes the time, and there the *width* of the batches counts.

# %% [markdown]
# ## In short
# - Ids of labels need their names: in Parquet they come along, as `ClassLabel`. Parquet keeps types; CSV makes text of everything.
# - Texts that come tokenized can be decoded by the tokenizer that made them, without what it dropped, and by no other.
# - A tokenizer of one's own belongs to a model that is pre-trained from nothing; a checkpoint understands its own only.
# - Tokenize once, whether in memory or on disk.
#
# **Back:** [1 · Data formatting](../01_data_formatting.ipynb), [2 · Tokenization](../02_tokenization.ipynb). **Also for a second reading:** [A1 · What a recipe buys](A1_what_a_recipe_buys.ipynb), [A3 · Many processes](A3_many_processes.ipynb).
