"""``smlm-pb models``: the cards of the models, for people and for scripts."""

import json

import pytest

from smlm_pb.cli import main as cli
from smlm_pb.localization import model as models
from smlm_pb.localization.model_card import ModelCard


def card(name, **values):
    ranges = {"psf_sigma_px": (0.8, 1.6), "photons": (200, 10_000), "background_e": (0, 200)}
    ranges["density_per_px2"] = (0, 0.08)
    return ModelCard(name=name, description=f"For {name} data.", network={"channels": 40}, **{**ranges, **values})


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    for one in (card("astigmatic"), card("default", accuracy={"validation": {"jaccard": 0.9}})):
        (tmp_path / one.name).mkdir()
        one.save(tmp_path / one.name)
    monkeypatch.setattr(models, "models_folder", lambda: tmp_path)
    return tmp_path


def test_list_shows_the_default_first_with_its_range(shipped, capsys):
    assert cli.main(["models"]) == 0
    out = capsys.readouterr().out
    assert out.index("default\n  For default data.") < out.index("astigmatic\n")
    assert "PSF sigma  0.8 to 1.6 px" in out
    assert "photons    200 to 10000 e⁻" in out


def test_json_holds_the_whole_cards(shipped, capsys):
    assert cli.main(["models", "--json"]) == 0
    cards = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in cards] == ["default", "astigmatic"]
    assert cards[0]["accuracy"] == {"validation": {"jaccard": 0.9}}


def test_one_model_by_name_or_folder_is_told_in_full(shipped, capsys):
    for name in ("default", str(shipped / "default")):
        assert cli.main(["models", name]) == 0
        out = capsys.readouterr().out
        assert "channels: 40" in out
        assert "jaccard: 0.9" in out


def test_unknown_model_lists_the_known_ones(shipped, capsys):
    assert cli.main(["models", "defualt"]) == 2
    err = capsys.readouterr().err
    assert "default, astigmatic" in err
    assert err.count("\n") == 1


def test_damaged_card_is_one_line(shipped, capsys):
    (shipped / "default" / "card.json").write_text("{")
    assert cli.main(["models", "default"]) == 2
    assert "damaged" in capsys.readouterr().err
