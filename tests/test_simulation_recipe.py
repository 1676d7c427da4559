"""Recipe files: what is read, and how wrong ones are answered."""

import pytest
import yaml

from smlm_pb.errors import ConfigurationError
from smlm_pb.simulation import Recipe

MINIMAL = {"frames": 3, "molecules": {"density_per_um2": 1}}


def test_defaults_fill_in_what_is_not_said():
    recipe = Recipe.from_dict(MINIMAL)
    assert recipe.shape == (64, 64)
    assert recipe.structure.kind == "uniform"
    assert recipe.camera.camera().offset_adu == 100
    assert recipe.area_um2 == pytest.approx(40.96)


def test_every_structure_can_be_named():
    for kind in ("empty", "uniform", "filaments", "rings", "clusters", "star", "grid"):
        assert Recipe.from_dict({**MINIMAL, "structure": {"kind": kind}}).structure.kind == kind
    parts = [{"share": 1, "structure": {"kind": "rings"}}, {"share": 2, "structure": {"kind": "uniform"}}]
    mixture = Recipe.from_dict({**MINIMAL, "structure": {"kind": "mixture", "parts": parts}}).structure
    assert [part.structure.kind for part in mixture.parts] == ["rings", "uniform"]


def test_a_recipe_survives_its_own_file(tmp_path):
    recipe = Recipe.from_dict(
        {**MINIMAL, "structure": {"kind": "rings", "radius_nm": [40, 60]}, "background": {"shape": "haze"}}
    )
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(recipe.as_dict()), encoding="utf-8")
    assert Recipe.from_yaml(path) == recipe


def test_exponents_without_a_dot_are_numbers(tmp_path):
    """YAML 1.1 reads 1e4 as a text; a microscopist means ten thousand."""
    path = tmp_path / "r.yaml"
    path.write_text("frames: 2\nmolecules: {density_per_um2: 1, photons: 1e4}\n", encoding="utf-8")
    assert Recipe.from_yaml(path).molecules.photons == 10_000


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"molecules": {"density_per_um2": 1}}, r"the key frames is missing; e\.g\. frames: 300"),
        ({**MINIMAL, "frames": 0}, r"frames = 0 must be greater than or equal to 1; e\.g\. frames: 300"),
        ({**MINIMAL, "frames": "many"}, "frames = many must be a valid integer"),
        ({**MINIMAL, "frame": 3}, r"unknown key frame; did you mean frames\?"),
        ({**MINIMAL, "zebra": 3}, "unknown key zebra; known keys here are name, seed, frames"),
        ({**MINIMAL, "camera": {"gain": 3}}, r"unknown key camera.gain; did you mean em_gain\?"),
        ({**MINIMAL, "camera": {"e_per_adu": -2}}, r"camera.e_per_adu = -2 must be greater than 0; .*ADU"),
        ({**MINIMAL, "structure": {"kind": "filament"}}, r"structure.kind = filament .*did you mean filaments\?"),
        ({**MINIMAL, "structure": {}}, "structure.kind is missing"),
        ({**MINIMAL, "structure": "rings"}, "structure = rings must hold 'key: value' lines"),
        ({**MINIMAL, "structure": {"kind": "rings", "count": -1}}, r"structure.count = -1 must be .* 1; e\.g\."),
        ({**MINIMAL, "structure": {"kind": "rings", "radius_nm": [9, 1]}}, r"radius_nm = \[9, 1\]"),
        ({**MINIMAL, "structure": {"kind": "rings", "radius_nm": [9]}}, r"structure.radius_nm\[1\] is missing"),
        (
            {
                **MINIMAL,
                "structure": {"kind": "mixture", "parts": [{"share": 1, "structure": {"kind": "star", "arms": 1}}]},
            },
            r"structure.parts\[0\].structure.arms = 1 must be",
        ),
        ({**MINIMAL, "molecules": {}}, "either density_per_um2 or per_frame"),
        ({**MINIMAL, "molecules": {"per_frame": 1, "blinking": {}}}, "give density_per_um2 with blinking"),
        ({**MINIMAL, "psf": {"sigma_px": float("nan")}}, "psf.sigma_px = nan must be a finite number"),
        ({**MINIMAL, "background": {"shape": "cloudy"}}, "background.shape = cloudy must be 'flat', 'gradient'"),
    ],
)
def test_wrong_recipes_name_key_value_rule_and_remedy(values, message):
    with pytest.raises(ConfigurationError, match=message) as error:
        Recipe.from_dict(values, source="cells.yaml")
    assert str(error.value).startswith("cells.yaml: ")
    assert "\n" not in str(error.value)
    assert "pydantic" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"frames: [1, 2", "not valid YAML"),
        (b"frames: 3\nframes: 4\n", "line 2: .*'frames' is given twice"),
        (b"- 1\n- 2\n", "holds a list; it must hold 'key: value' lines"),
        (b"", "holds nothing"),
        (b"\xff\xfe\x00\x01\xc3", "not a text file"),
        (b"!!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_files_that_are_no_recipe(tmp_path, content, message):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=message) as error:
        Recipe.from_yaml(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"none\.yaml cannot be read: No such file"):
        Recipe.from_yaml(tmp_path / "none.yaml")
