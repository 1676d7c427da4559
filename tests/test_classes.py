"""Two colours or two PSFs in one movie: simulator, loss, training, and the columns of the table."""

import json

import numpy as np
import pytest
import torch

from smlm_pb import localize
from smlm_pb.errors import ConfigurationError
from smlm_pb.localization import load_model, localize_to_file
from smlm_pb.localization.classes import class_shares
from smlm_pb.localizations import Localizations
from smlm_pb.networks import PointField
from smlm_pb.simulation import Recipe, simulate
from smlm_pb.simulation.molecule_classes import MoleculeClass, checked_classes, labels_of_numbers
from smlm_pb.simulation.scene_settings import SceneSettings
from smlm_pb.simulation.scenes import draw_scene
from smlm_pb.training import train
from smlm_pb.training.batches import collate
from smlm_pb.training.class_objective import class_objective, of_class
from smlm_pb.training.experiment import Experiment, LossSettings
from smlm_pb.training.objective import objective

CLASSES = [{"name": "tall", "width_x": 0.8, "width_y": 1.4}, {"name": "wide", "width_x": 1.4, "width_y": 0.8}]
TINY = {
    "name": "two-psfs",
    "classes": CLASSES,
    "network": {"channels": 8, "blocks": 1, "n_candidates": 2, "start_logit": -3.0},
    "scenes": {"em_fraction": 0.0, "dense_density_per_px2": [0.005, 0.02]},
    "validation": {"scenes": 2, "every_steps": 100, "calibration_scenes": 0},
    "crop_px": 24,
    "batch_size": 2,
    "workers": 0,
}


def field_of(shape=(1, 2, 8, 8), **chosen):
    maps = {name: torch.zeros(shape) for name in PointField._fields}
    maps["background"] = torch.zeros(shape[0], *shape[2:])
    maps["logit"] = torch.full(shape, -9.0)
    maps["log_sigma_x"] = maps["log_sigma_y"] = torch.full(shape, -3.0)
    return PointField(**{**maps, **chosen})


# -- the simulator -----------------------------------------------------------------------------------------


def test_a_scene_tells_the_class_of_every_molecule_and_draws_its_psf():
    settings = SceneSettings(
        classes=CLASSES, psf_sigma_px=(1.2, 1.2), psf_spread=0, sparse_fraction=1.0, empty_fraction=0.0,
        sparse_density_per_px2=(0.002, 0.003), photons=(5000, 9000), background_e=(1, 2), em_fraction=0.0,
        sparse_structures={"uniform": 1.0},
    )  # fmt: skip
    ratio = {0: [], 1: []}
    for seed in range(60):
        scene = draw_scene(np.random.default_rng(seed), settings, 48)
        assert len(scene.label) == len(scene.x)
        for x, y, label in zip(scene.x, scene.y, scene.label, strict=True):
            others = np.hypot(scene.x - x, scene.y - y)
            if not (7 < x < 40 and 7 < y < 40) or np.sort(others)[1:2].min(initial=99) < 14:
                continue
            row, column = round(float(y)), round(float(x))
            patch = scene.electrons[row - 5 : row + 6, column - 5 : column + 6] - scene.background.mean()
            yy, xx = np.mgrid[row - 5 : row + 6, column - 5 : column + 6]
            ratio[int(label)].append((patch * (yy - y) ** 2).sum() / (patch * (xx - x) ** 2).sum())
    assert min(map(len, ratio.values())) > 10
    assert np.median(ratio[0]) > 1.5
    assert np.median(ratio[1]) < 1 / 1.5


def test_scenes_without_classes_are_what_they_were():
    plain = draw_scene(np.random.default_rng(3), SceneSettings(), 32)
    assert plain.label is None
    assert collate([plain]).label is None


def test_a_movie_keeps_the_class_of_a_molecule():
    recipe = Recipe.from_dict(
        {
            "frames": 30,
            "height": 48,
            "width": 48,
            "molecules": {
                "density_per_um2": 1.0,
                "blinking": {"on_frames": 3, "off_frames": 10},
                "classes": [{"name": "red", "share": 3}, {"name": "green", "width_x": 1.5, "width_y": 1.5}],
            },
        }
    )
    _, truth = simulate(recipe, seed=1)
    per_molecule = {}
    for molecule, label in zip(truth["molecule"], truth["class"], strict=True):
        assert per_molecule.setdefault(int(molecule), int(label)) == label
    assert np.mean(list(per_molecule.values())) == pytest.approx(0.25, abs=0.13)
    wide = truth["class"] == 1
    assert np.allclose(truth["psf_sigma_x"][wide].mean() / truth["psf_sigma_x"][~wide].mean(), 1.5, rtol=0.02)


def test_shares_decide_how_many_numbers_belong_to_a_class():
    classes = checked_classes([{"name": "a", "share": 1}, {"name": "b", "share": 4}])
    assert labels_of_numbers(classes, np.arange(1000)).mean() == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ([{"name": "a"}], "One class is none"),
        ([{"name": "a"}, {"name": "a"}], "different names"),
        ([{"name": "a"}, {"name": "b", "width_x": 9}], "width_x"),
        ([{"name": "a"}, {"colour": "b"}], "list of"),
        ([{"name": "a"}, MoleculeClass("b"), 3], "list of"),
    ],
)
def test_impossible_classes_are_refused(classes, words):
    with pytest.raises(ConfigurationError, match=words):
        checked_classes(classes)


def test_classes_and_a_measured_psf_are_refused_together():
    molecules = {"per_frame": 3, "classes": [{"name": "a"}, {"name": "b"}]}
    with pytest.raises(ConfigurationError, match=r"psf\.file"):
        Recipe.from_dict({"frames": 2, "molecules": molecules, "psf": {"file": "psf.tif", "samples_per_px": 2}})
    with pytest.raises(ConfigurationError, match="psf_file"):
        SceneSettings(classes=[{"name": "a"}, {"name": "b"}], psf_file="psf.tif")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"network": {"n_candidates": 3}}, "multiple of the 2 classes"),
        ({"classes": [{"name": "a"}]}, "One class is none"),
        ({"classes": [{"name": "a"}, {"name": "b", "width_x": 0.1}]}, "width_x"),
        ({"method": "count-mse"}, "default method only"),
    ],
)
def test_an_experiment_whose_parts_do_not_fit_is_refused(change, words):
    with pytest.raises(ConfigurationError, match=words):
        Experiment.from_dict({**TINY, **change})


# -- the loss ----------------------------------------------------------------------------------------------


def batch_of_classes():
    settings = SceneSettings(classes=CLASSES, empty_fraction=0.0, sparse_fraction=0.0)
    return collate([draw_scene(np.random.default_rng(k), settings, 24) for k in range(3)])


def test_every_class_is_compared_with_its_own_molecules():
    torch.manual_seed(0)
    batch = batch_of_classes()
    field = field_of((3, 4, 24, 24), logit=torch.randn(3, 4, 24, 24) - 3)
    loss = LossSettings(background_weight=0.0)
    terms = class_objective(field, batch, loss, 2, progress=0.5, reach_px=0.6)
    expected = 0.0
    for number in range(2):
        mine = batch.label == number
        part = batch._replace(position=batch.position[mine], photons=batch.photons[mine], item=batch.item[mine])
        expected += float(objective(of_class(field, number, 2), part, loss, progress=0.5, reach_px=0.6)["total"])
    assert float(terms["total"]) == pytest.approx(expected, rel=1e-5)


def test_the_wrong_class_costs_more_than_the_right_one():
    batch = batch_of_classes()
    logit = torch.full((3, 2, 24, 24), -12.0)
    dy, dx = torch.zeros(3, 2, 24, 24), torch.zeros(3, 2, 24, 24)
    row, column = torch.floor(batch.position + 0.5).long().clamp(0, 23).unbind(1)
    logit[batch.item, batch.label, row, column] = 6.0
    dy[batch.item, batch.label, row, column] = batch.position[:, 0] - row
    dx[batch.item, batch.label, row, column] = batch.position[:, 1] - column
    right = field_of((3, 2, 24, 24), logit=logit, dy=dy, dx=dx)
    wrong = field_of((3, 2, 24, 24), logit=logit.flip(1), dy=dy.flip(1), dx=dx.flip(1))
    cost = [
        float(class_objective(field, batch, LossSettings(), 2, progress=1.0, reach_px=0.6)["matching"])
        for field in (right, wrong)
    ]
    assert cost[0] < 0.5 * cost[1]


# -- training and the table --------------------------------------------------------------------------------


def test_shares_of_classes_are_added_up_around_a_molecule():
    logit = torch.full((2, 2, 8, 8), -20.0)
    logit[1, 0, 4, 4], logit[1, 1, 4, 5] = torch.logit(torch.tensor([0.2, 0.7]))
    dx = torch.zeros(2, 2, 8, 8)
    dx[1, 0, 4, 4], dx[1, 1, 4, 5] = 0.45, -0.45
    shares = class_shares(
        field_of((2, 2, 8, 8), logit=logit, dx=dx), np.array([1, 0]), *np.array([[4.5, 4.5], [4, 4]]), 2
    )
    assert shares[0] == pytest.approx([0.2, 0.7], abs=1e-4)
    assert shares[1].sum() < 1e-6


def test_from_the_experiment_to_the_columns(tmp_path):
    result = train(Experiment.from_dict({**TINY, "steps": 12}), tmp_path / "run")
    model = load_model(result.model_folder)
    assert model.card.classes == ["tall", "wide"]
    movie = np.random.default_rng(0).poisson(100, (6, 24, 24)).astype(np.uint16)
    how = {"e_per_adu": 1.0, "offset_adu": 0.0, "psf_sigma_px": 1.2, "pixel_size_nm": 100.0, "threshold": 0.02}
    how["floor"] = 0.01
    with pytest.warns(UserWarning, match="."):
        table = localize(movie, model=model, **how)
    assert len(table) > 0
    assert set(np.unique(table["class"])) <= {0, 1}
    assert ((table["class_probability"] >= 0.49) & (table["class_probability"] <= 1)).all()
    assert table.provenance[-1]["model"]["classes"] == ["tall", "wide"]
    np.save(tmp_path / "movie.npy", movie)
    with pytest.warns(UserWarning, match="."):
        written = localize_to_file(tmp_path / "movie.npy", tmp_path / "out", model=str(result.model_folder), **how)
    again = Localizations.load(written.path if hasattr(written, "path") else written)
    assert np.array_equal(again["class"], table["class"])
    assert json.loads((result.model_folder / "card.json").read_text())["classes"] == ["tall", "wide"]
