"""Models by name and by folder: the right one, whole, or one clear line."""

import hashlib
import json
import shutil

import pytest
import torch
from hand_made_model import make_model

from smlm_pb.errors import ConfigurationError, ModelError
from smlm_pb.localization import list_models, load_model
from smlm_pb.localization import model as models
from smlm_pb.localization.job import get_model
from smlm_pb.localization.model import find_model
from smlm_pb.localization.model_card import ModelCard


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """Two shipped models, in a folder that stands for that of the package."""
    folder = tmp_path / "shipped"
    make_model(folder / "astigmatic", name="astigmatic")
    make_model(folder / "default", name="default")
    monkeypatch.setattr(models, "models_folder", lambda: folder)
    return folder


def test_the_default_comes_first(shipped):
    assert [card.name for card in list_models()] == ["default", "astigmatic"]
    assert load_model(device="cpu").card.name == "default"


def test_a_model_is_ready_to_predict(shipped):
    model = load_model("astigmatic", "cpu")
    assert model.device == torch.device("cpu")
    assert not model.network.training
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    with torch.inference_mode():
        field = model.network(torch.zeros(1, 1, 8, 8), torch.tensor([1.1]))
    assert field.logit.shape == (1, 1, 8, 8)


def test_weights_survive_the_file_exactly(tmp_path):
    one, two = (load_model(make_model(tmp_path / name), "cpu") for name in ("one", "two"))
    for a, b in zip(one.network.parameters(), two.network.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_folder_or_that_of_the_run_that_made_it(shipped, tmp_path):
    make_model(tmp_path / "run" / "mine", name="mine")
    for place in (tmp_path / "run" / "mine", str(tmp_path / "run" / "mine"), tmp_path / "run"):
        assert load_model(place, "cpu").card.name == "mine"
    make_model(tmp_path / "run" / "other", name="other")
    with pytest.raises(ModelError, match=r"holds no card\.json"):
        find_model(tmp_path / "run")


def test_a_shipped_name_wins_over_a_folder_in_the_way(shipped, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_model(tmp_path / "default", name="impostor")
    assert load_model("default", "cpu").card.name == "default"
    assert load_model("./default", "cpu").card.name == "impostor"


def test_an_unknown_name_lists_the_known_ones(shipped):
    with pytest.raises(ModelError, match=r"Unknown model 'defualt': shipped models are default, astigmatic"):
        load_model("defualt")


def damage_weights(folder):
    content = bytearray((folder / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(content)


def other_network(folder):
    card = json.loads((folder / "card.json").read_text())
    card["network"]["channels"] = 14
    (folder / "card.json").write_text(json.dumps(card))


def unknown_network(folder):
    card = json.loads((folder / "card.json").read_text())
    card["network"]["backbone"] = "transformer"
    (folder / "card.json").write_text(json.dumps(card))


def foreign_card(folder):
    (folder / "card.json").write_text('{"architectures": ["BertModel"]}')


def pickled_weights(folder):
    torch.save({"weight": torch.zeros(3)}, folder / "weights.safetensors")
    card = json.loads((folder / "card.json").read_text())
    card["weights_sha256"] = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    (folder / "card.json").write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_weights, "are not those of the model's card"),
        (lambda folder: (folder / "weights.safetensors").write_bytes(b"\0" * 7), "are damaged"),
        (lambda folder: (folder / "weights.safetensors").unlink(), "has no weights"),
        (other_network, "do not fit the network on the card"),
        (unknown_network, "do not fit the network on the card"),
        (foreign_card, r"card .* is damaged"),
        (lambda folder: (folder / "card.json").write_text("{"), r"card .* is damaged"),
        (lambda folder: (folder / "card.json").unlink(), r"holds no card\.json"),
        (pickled_weights, "are damaged"),
        (shutil.rmtree, "Unknown model"),
    ],
)
def test_damaged_and_foreign_models_are_one_clear_line(tmp_path, damage, message):
    folder = make_model(tmp_path / "mine")
    damage(folder)
    with pytest.raises(ModelError, match=message) as refused:
        load_model(folder, "cpu")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("device", ["tpu", "cuda:99", "mps:5x"])
def test_an_absent_device_is_one_clear_line(tmp_path, device):
    with pytest.raises(ConfigurationError, match=f"Device '{device}'"):
        load_model(make_model(tmp_path / "mine"), device)


def test_a_loaded_model_is_not_loaded_again(tmp_path):
    model = load_model(make_model(tmp_path / "mine"), "cpu")
    assert get_model(model, "auto") is model
    assert get_model(model, "cpu") is model


def test_cards_survive_their_file(tmp_path):
    card = ModelCard(
        "x", "for µm", {"channels": 4}, (0.8, 1.6), (200, 1e4), (0, 200), (0, 0.08), {"seed": 1}, {"J": 0.9}
    )
    card.save(tmp_path)
    assert ModelCard.load(tmp_path) == card
    assert [path.name for path in tmp_path.iterdir()] == ["card.json"]


def test_the_list_tells_how_good_a_model_is(shipped, capsys):
    from smlm_pb.cli import main as cli

    make_model(shipped / "default", name="default", accuracy={"validation": {"jaccard": 0.91234, "rmse_px": None}})
    assert cli.main(["models"]) == 0
    out = capsys.readouterr().out
    assert "  accuracy   validation: jaccard 0.912\n" in out
    assert out.index("accuracy") < out.index("astigmatic")
