"""Models on disk: found by name or folder, refused with one clear line when something is wrong with them."""

import hashlib
import json

import pytest
import torch
from hand_made_model import make_model
from safetensors.torch import load_file, save

from smlm_pb.errors import ModelError
from smlm_pb.localization import list_models, load_model
from smlm_pb.localization import model as model_files
from smlm_pb.localization.model_card import ModelCard


@pytest.fixture
def folder(tmp_path):
    return make_model(tmp_path / "mine")


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """Three shipped models."""
    for name in ("beads", "default", "astigmatic"):
        make_model(tmp_path / "shipped" / name, name=name)
    monkeypatch.setattr(model_files, "models_folder", lambda: tmp_path / "shipped")


def refused(folder, message):
    with pytest.raises(ModelError, match=message) as caught:
        load_model(folder, "cpu")
    assert "\n" not in str(caught.value)


def edit_card(folder, **changes):
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, **changes}))


def test_a_model_is_ready_to_predict(folder):
    model = load_model(folder, "cpu")
    assert model.card.name == "hand-made"
    assert model.device == torch.device("cpu")
    assert not model.network.training
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    stored = load_file(folder / "weights.safetensors")
    assert all(torch.equal(stored[name], value) for name, value in model.network.state_dict().items())


def test_shipped_models_by_name(shipped):
    assert [card.name for card in list_models()] == ["default", "astigmatic", "beads"]
    assert load_model(device="cpu").card.name == "default"
    assert load_model("beads", "cpu").card.name == "beads"


def test_unknown_models(shipped, tmp_path):
    refused("bead", "Unknown model 'bead': shipped models are default, astigmatic, beads; or give a model's folder")
    refused(tmp_path / "nowhere", "Unknown model .*nowhere")
    refused(tmp_path, r"is not a model: it holds no card\.json")


def test_nothing_shipped(tmp_path, monkeypatch):
    monkeypatch.setattr(model_files, "models_folder", lambda: tmp_path)
    assert list_models() == []
    refused("default", "shipped models are none")


def test_truncated_weights(folder):
    path = folder / "weights.safetensors"
    for content in (path.read_bytes()[:-10], b"", b"nonsense" * 100):
        path.write_bytes(content)
        refused(folder, r"Weights .* are damaged: reinstall or retrain")


def test_missing_and_unreadable_weights(folder):
    path = folder / "weights.safetensors"
    path.unlink()
    refused(folder, r"has no weights\.safetensors")
    path.mkdir()
    refused(folder, r"cannot be read \(.+\): check the file")


def test_weights_of_another_model(folder):
    path = folder / "weights.safetensors"
    tensors = load_file(path)
    tensors["head.bias"] += 1
    path.write_bytes(save(tensors))
    refused(folder, "are not those of the model's card")


def test_weights_of_another_program(folder):
    content = save({"conv1.weight": torch.zeros(3, 3)})
    (folder / "weights.safetensors").write_bytes(content)
    edit_card(folder, weights_sha256=hashlib.sha256(content).hexdigest())
    refused(folder, "do not fit the network on the card")
    edit_card(folder, weights_sha256="")
    refused(folder, "do not fit the network on the card")


def test_a_card_with_an_impossible_network(folder):
    edit_card(folder, network={"backbone": "unet"})
    refused(folder, "do not fit the network on the card")
    edit_card(folder, network=3)
    refused(folder, "do not fit the network on the card")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"name": "a"}', '{"psf_sigma_px": 3}', "\ufffd"], ids=range(7))
def test_damaged_cards(folder, text):
    (folder / "card.json").write_text(text)
    refused(folder, r"Model card .* is damaged \(.*\): reinstall or retrain")


def test_a_card_keeps_its_values(folder):
    card = ModelCard.load(folder)
    card.save(folder)
    assert ModelCard.load(folder) == card
    assert {path.name for path in folder.iterdir()} == {"card.json", "weights.safetensors"}
