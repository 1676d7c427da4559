"""The package as a whole: light to import, complete when installed, its arrows pointing one way."""

import ast
import importlib
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.resources import files
from pathlib import Path

import pytest

import smlm_pb

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

#: docs/architecture.md: a room may import from its own layer and from those below it.
LAYERS = (
    {
        "_version",
        "bad_pixels",
        "camera",
        "columns",
        "compiled",
        "configuration",
        "devices",
        "errors",
        "formats",
        "localizations",
        "movies",
        "narrow_product",
        "pair_density",
        "pixel_size",
        "population",
        "psf",
    },
    {"losses", "networks", "refinement", "simulation"},
    {"analysis", "calibration", "evaluation", "localization", "training"},
    {"cli", "napari_plugin", "__main__"},
)


def layer(room):
    return next(number for number, rooms in enumerate(LAYERS) if room in rooms)


# -- the public names --------------------------------------------------------------------------------------


def test_importing_the_package_costs_nothing():
    code = """
import sys
before = set(sys.modules)
import smlm_pb
loaded = {name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
print("LOADED", sorted(loaded))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert "LOADED ['smlm_pb']" in done.stdout


@pytest.mark.parametrize("name", sorted(smlm_pb.__all__))
def test_every_public_name_is_there_and_documented(name):
    value = getattr(smlm_pb, name)
    assert name in dir(smlm_pb)
    if name != "__version__":
        assert value.__doc__


def test_public_names_agree_with_what_type_checkers_see():
    tree = ast.parse((ROOT / "smlm_pb" / "__init__.py").read_text(encoding="utf-8"))
    seen = {
        alias.name: node.module.removeprefix("smlm_pb.")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.startswith("smlm_pb.") and node.module != "smlm_pb._version"
        for alias in node.names
    }
    assert seen == smlm_pb._HOME
    assert {*seen, "__version__"} == set(smlm_pb.__all__)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'localise'"):
        _ = smlm_pb.localise


def test_version_is_that_of_the_distribution():
    assert importlib.metadata.version("smlm-pb") == smlm_pb.__version__
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {smlm_pb.__version__}" in changes
    assert f"\nversion: {smlm_pb.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


# -- the rooms ---------------------------------------------------------------------------------------------


def sources():
    for top in ("smlm_pb", "napari_plugin"):
        for path in sorted((ROOT / top).rglob("*.py")):
            if path != ROOT / "smlm_pb" / "__init__.py":
                yield path


def imported_rooms(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names = [node.module]
            if node.module == "smlm_pb":
                names = [f"smlm_pb.{alias.name}" for alias in node.names]
        for name in names:
            top, _, rest = name.partition(".")
            if top == "napari_plugin":
                yield top
            elif top == "smlm_pb" and rest:
                yield rest.partition(".")[0]


@pytest.mark.parametrize("path", list(sources()), ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_point_one_way(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    room = parts[0] if parts[0] == "napari_plugin" else parts[1]
    for imported in imported_rooms(path):
        imported = smlm_pb._HOME.get(imported, imported)
        assert layer(imported) <= layer(room), f"{room} imports {imported}, which lies above it"


def test_nothing_below_the_panel_knows_napari_or_qt():
    for path in sources():
        if path.is_relative_to(ROOT / "smlm_pb"):
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"^\s*(import|from) (napari|qtpy|superqt|magicgui|PySide6|PyQt\d)\b", text, re.M), path


# -- what is installed -------------------------------------------------------------------------------------


def test_every_package_in_the_tree_is_listed_for_installation():
    there = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "smlm_pb").rglob("__init__.py")}
    there |= {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "napari_plugin").rglob("__init__.py")}
    assert there | {"smlm_pb.models", "smlm_pb.sample_data"} == set(PROJECT["tool"]["setuptools"]["packages"])


def test_every_requirement_is_pinned_for_the_tests():
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pinned = set(re.findall(r"^([a-z0-9-]+)==\S+$", text, re.M))
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [*PROJECT["project"]["dependencies"], *extras["napari"], *extras["test"], *extras["distributed"]]
    names = {re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-") for requirement in wanted}
    assert names <= pinned


EXPECTED = {
    "smlm_pb": ["py.typed"],
    "smlm_pb.models": ["default/card.json", "default/weights.safetensors"],
    "smlm_pb.sample_data": ["filaments.tif", "filaments_truth.csv", "filaments.yaml"],
    "napari_plugin": ["napari.yaml"],
}


@pytest.mark.parametrize(
    ("package", "name"), [(package, name) for package, names in EXPECTED.items() for name in names]
)
def test_data_files_are_found_through_the_package(package, name):
    importlib.import_module(package)
    assert files(package).joinpath(name).is_file()


@pytest.mark.slow
def test_wheel_holds_everything_and_nothing_else(tmp_path):
    # A copy: building in place leaves a folder behind that would get into the next wheel.
    packed = (".git", ".venv", "build", "*.egg-info", "runs", "demo_output", ".*_cache", ".hypothesis")
    source = shutil.copytree(ROOT, tmp_path / "source", ignore=shutil.ignore_patterns(*packed))
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {f"{package.replace('.', '/')}/{name}" for package, kept in EXPECTED.items() for name in kept}
    assert wanted <= names
    assert {name.partition("/")[0] for name in names} == {
        "smlm_pb",
        "napari_plugin",
        f"smlm_pb-{smlm_pb.__version__}.dist-info",
    }
