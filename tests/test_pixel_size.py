"""What can be a pixel size is asked alike of movies, tables and users."""

import numpy as np
import pytest
import tifffile

from smlm_pb.formats import read_table
from smlm_pb.movies import open_movie
from smlm_pb.pixel_size import PLAUSIBLE_PIXEL_SIZE_NM, is_plausible, tell_implausible

LOW, HIGH = PLAUSIBLE_PIXEL_SIZE_NM


@pytest.mark.parametrize(
    ("size_nm", "plausible"), [(LOW, True), (HIGH, True), (100, True), (0.1, False), (0.99 * LOW, False), (6500, False)]
)
def test_movies_and_tables_are_asked_alike(tmp_path, size_nm, plausible):
    assert is_plausible(size_nm) == plausible
    assert tell_implausible(size_nm) == [] or not plausible
    path = tmp_path / "a.ome.tif"
    told = {"axes": "TYX", "PhysicalSizeX": size_nm, "PhysicalSizeXUnit": "nm"}
    tifffile.imwrite(path, np.zeros((2, 8, 8), np.uint16), photometric="minisblack", ome=True, metadata=told)
    with open_movie(path) as movie:
        assert (movie.pixel_size_nm is not None) == plausible
    table = tmp_path / "a.csv"
    table.write_text("frame,x [nm],y [nm]\n1,50,150\n", encoding="utf-8")
    notes = read_table(table, "thunderstorm", pixel_size_nm=size_nm).provenance[-1]["notes"]
    assert any("pixels are 10 to 2000 nm in the sample" in note for note in notes) != plausible


def test_no_number_is_no_pixel_size():
    assert not is_plausible(float("nan"))
    assert not is_plausible(float("inf"))
    assert "nan" in tell_implausible(float("nan"))[0]
