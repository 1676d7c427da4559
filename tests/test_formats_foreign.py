"""Tables as other programs write them, made by hand from what their files look like; values worked out by hand."""

import contextlib
import json
import zipfile

import h5py
import numpy as np
import pytest
import scipy.io

from smlm_pb.errors import TableError
from smlm_pb.formats import FORMATS, read_table, sniff, write_table
from smlm_pb.localizations import Localizations, MovieInfo


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def notes(locs):
    return " | ".join(locs.provenance[-1].get("notes", []))


# -- ThunderSTORM ------------------------------------------------------------------------------------------

RELEASE_13 = (
    '"id","frame","x [nm]","y [nm]","sigma [nm]","intensity [photon]","offset [photon]","bkgstd [photon]","chi2",'
    '"uncertainty [nm]"\n'
    "1.0,1.0,50.0,150.0,130.0,1000.5,20.25,4.5,1.2,10.0\n"
    "2.0,7.0,1234.5,2345.6,140.0,900.0,21.0,4.6,1.3,12.0\n"
)


def test_thunderstorm(tmp_path):
    path = write(tmp_path / "a.csv", RELEASE_13)
    assert sniff(path) == "thunderstorm"
    locs = read_table(path, pixel_size_nm=100)
    # The corner of the image is 0 nm: 50 nm is the centre of the first pixel.
    assert locs.x.tolist() == pytest.approx([0.0, 11.845])
    assert locs.y.tolist() == pytest.approx([1.0, 22.956])
    assert locs.frame.tolist() == [0, 6]
    assert locs.photons.tolist() == [1000.5, 900.0]
    assert locs.background.tolist() == [20.25, 21.0]
    assert locs.sigma_x.tolist() == locs.sigma_y.tolist() == pytest.approx([0.1, 0.12])
    assert locs.psf_sigma_x.tolist() == locs.psf_sigma_y.tolist() == pytest.approx([1.3, 1.4])
    assert locs["bkgstd [photon]"].tolist() == [4.5, 4.6]
    assert locs.id.tolist() == [1, 2]
    assert locs.info == MovieInfo(7, 24, 13, 100.0, "a")
    assert "taken from the outermost" in notes(locs)


def test_thunderstorm_3d_newer_names_and_merging(tmp_path):
    text = (
        '"frame","x [nm]","y [nm]","z [nm]","sigma1 [nm]","sigma2 [nm]","intensity [photon]",'
        '"uncertainty_xy [nm]","uncertainty_z [nm]","detections"\n'
        "3,150,250,-40,130,260,500,20,55,4\n"
    )
    locs = read_table(write(tmp_path / "a.csv", text), pixel_size_nm=100)
    assert (locs.x[0], locs.y[0], locs.z[0], locs.frame[0]) == (1.0, 2.0, -40.0, 2)
    assert locs.psf_sigma_x[0] == pytest.approx(1.3)
    assert locs.psf_sigma_y[0] == pytest.approx(2.6)
    assert locs.sigma_x[0] == pytest.approx(0.2)
    assert locs.sigma_z[0] == 55
    assert locs.n_localizations[0] == 4


@pytest.mark.parametrize(
    ("change", "encoding"),
    [
        (lambda text: text, "utf-8-sig"),
        (lambda text: text, "utf-16"),
        (lambda text: text.replace(",", ";"), "utf-8"),
        (lambda text: text.replace(",", "\t"), "utf-8"),
        (lambda text: text.replace("\n", "\r\n"), "utf-8"),
        (lambda text: text.replace(",", ";").replace(".", ","), "utf-8"),
        (lambda text: text.replace('"', ""), "utf-8"),
        (lambda text: text + "\n\n", "utf-8"),
        # every line quoted once more, as a spreadsheet does
        (lambda text: "".join('"' + line.replace('"', '""') + '"\n' for line in text.splitlines()), "utf-8"),
        # only the header quoted once more
        (lambda text: '"' + text.replace('"', '""').replace("\n", '"\n', 1), "utf-8"),
        (lambda text: text.replace("\n", ",\n"), "utf-8"),
    ],
    ids=[
        "byte-order mark",
        "utf-16",
        "semicolon",
        "tab",
        "windows",
        "decimal comma",
        "no quotes",
        "blank lines",
        "quoted twice",
        "header quoted twice",
        "trailing separator",
    ],
)
def test_thunderstorm_as_spreadsheets_leave_it(tmp_path, change, encoding):
    path = write(tmp_path / "a.csv", change(RELEASE_13), encoding)
    assert sniff(path) == "thunderstorm"
    locs = read_table(path, pixel_size_nm=100)
    assert locs.x.tolist() == pytest.approx([0.0, 11.845])
    assert locs.photons.tolist() == [1000.5, 900.0]
    assert locs.frame.tolist() == [0, 6]


def test_units_in_the_header_win(tmp_path):
    text = '"frame","x [px]","y [um]","sigma [px]","uncertainty [um]"\n1,10.5,2.5,1.25,0.02\n'
    locs = read_table(write(tmp_path / "a.csv", text), pixel_size_nm=100)
    assert locs.x[0] == 10.0
    assert locs.y[0] == pytest.approx(24.5)
    assert locs.psf_sigma_x[0] == 1.25
    assert locs.sigma_x[0] == pytest.approx(0.2)


def test_camera_counts_are_not_taken_for_photons(tmp_path):
    text = '"frame","x [nm]","y [nm]","intensity [AD]"\n1,50,50,700\n'
    locs = read_table(write(tmp_path / "a.csv", text), pixel_size_nm=100)
    assert "photons" not in locs
    assert locs["intensity [AD]"].tolist() == [700]
    assert "intensity is in AD" in notes(locs)


def test_pixels_need_no_pixel_size_but_nm_do(tmp_path):
    in_px = write(tmp_path / "px.csv", '"frame","x [px]","y [px]"\n1,0.5,1.5\n')
    assert read_table(in_px).y.tolist() == [1.0]
    in_nm = write(tmp_path / "nm.csv", '"frame","x [nm]","y [nm]"\n1,50,50\n')
    with pytest.raises(TableError, match=r"x is in nm.*give pixel_size_nm, e\.g\."):
        read_table(in_nm)


def test_protocol_beside_the_table_tells_the_pixel_size(tmp_path):
    path = write(tmp_path / "a.csv", RELEASE_13)
    write(tmp_path / "a-protocol.txt", 'ThunderSTORM (1.3)\n\nCamera settings:\n{"offset":414.0,"pixelSize":80.0}\n')
    assert read_table(path).info.pixel_size_nm == 80.0
    assert read_table(path, pixel_size_nm=100).info.pixel_size_nm == 100


def test_frame_0_in_a_table_that_counts_from_1(tmp_path):
    text = '"frame","x [nm]","y [nm]"\n0,50,50\n4,50,50\n'
    locs = read_table(write(tmp_path / "a.csv", text), pixel_size_nm=100)
    assert locs.frame.tolist() == [0, 4]
    assert "frame 0" in notes(locs)


def test_the_user_knows_better_than_the_declaration(tmp_path):
    path = write(tmp_path / "a.csv", RELEASE_13)
    locs = read_table(path, pixel_size_nm=100, origin_px=0, first_frame=0, width=64, height=48, n_frames=99)
    assert locs.x[0] == 0.5
    assert locs.frame.tolist() == [1, 7]
    assert locs.info == MovieInfo(99, 48, 64, 100.0, "a")


def test_a_given_pixel_size_that_contradicts_the_file_is_told(tmp_path):
    path = write(tmp_path / "a.csv", RELEASE_13)
    write(tmp_path / "a-protocol.txt", '{"pixelSize": 133.0}')
    assert "pixels of 100 nm were given, and are used, not the file's 133 nm" in notes(
        read_table(path, pixel_size_nm=100)
    )
    assert "were given" not in notes(read_table(path, pixel_size_nm=133))


def test_rows_without_a_position_are_counted_not_hidden(tmp_path):
    text = RELEASE_13 + "3.0,8.0,NaN,1.0,1,1,1,1,1,1\n4.0,9.0,250,350,1,1,1,1,1,1\n"
    locs = read_table(write(tmp_path / "a.csv", text), pixel_size_nm=100)
    assert len(locs) == 3
    assert locs.id.tolist() == [1, 2, 4]
    assert "1 rows without a finite position and a valid frame are left out, the first is row 3" in notes(locs)


# -- SMAP --------------------------------------------------------------------------------------------------

SMAP_LOC = {
    "frame": [1.0, 3.0],
    "xnm": [104.0, 1040.0],
    "ynm": [208.0, 312.0],
    "phot": [500.0, 900.0],
    "bg": [3.0, 4.0],
    "locprecnm": [10.4, 20.8],
    "PSFxnm": [104.0, 130.0],
    "LLrel": [-1.0, -2.0],
    "filenumber": [1.0, 1.0],
}
SMAP_INFO = {
    "cam_pixelsize_um": [0.104, 0.104],
    "roi": [0.0, 0.0, 64.0, 48.0],
    "numberOfFrames": 200.0,
    "offset": 100.0,
}


def smap_v7(path, info=SMAP_INFO, loc=SMAP_LOC):
    columns = {name: np.array(values, np.float32)[:, np.newaxis] for name, values in loc.items()}
    file = {"name": "C:\\data\\cell1.tif", "info": {key: np.array(value) for key, value in info.items()}}
    scipy.io.savemat(path, {"saveloc": {"loc": columns, "file": file}, "fileformat": {"name": "sml"}})
    return path


def smap_v73(path, info=SMAP_INFO, loc=SMAP_LOC):
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in loc.items():
            file[f"saveloc/loc/{name}"] = np.array(values)[np.newaxis]
        for name, values in info.items():
            file[f"saveloc/file/info/{name}"] = np.atleast_2d(values).T
        dataset = file.create_dataset("saveloc/file/name", data=np.array([[ord(c)] for c in "C:\\cell1.tif"], "u2"))
        dataset.attrs["MATLAB_class"] = np.bytes_("char")
        empty = file.create_dataset("saveloc/loc/empty", data=np.zeros(2, "u8"))
        empty.attrs["MATLAB_empty"] = np.uint8(1)
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file, Platform: PCWIN64")
    return path


@pytest.mark.parametrize("make", [smap_v7, smap_v73])
def test_smap(tmp_path, make):
    path = make(tmp_path / "a_sml.mat")
    assert sniff(path) == ("smap" if make is smap_v7 else "smap-v73")
    locs = read_table(path)
    # SMAP counts pixels from 1.
    assert locs.x.tolist() == pytest.approx([0.0, 9.0], abs=1e-5)
    assert locs.y.tolist() == pytest.approx([1.0, 2.0], abs=1e-5)
    assert locs.frame.tolist() == [0, 2]
    assert locs.sigma_x.tolist() == locs.sigma_y.tolist() == pytest.approx([0.1, 0.2])
    assert locs.psf_sigma_x.tolist() == pytest.approx([1.0, 1.25])
    assert locs.photons.tolist() == [500, 900]
    assert locs.LLrel.tolist() == [-1, -2]
    assert locs.info == MovieInfo(200, 48, 64, 104.0, "cell1.tif")
    assert locs.provenance[0]["camera"]["offset"] == 100
    assert read_table(path, pixel_size_nm=208).x[1] == pytest.approx(4.0)


@pytest.mark.parametrize("make", [smap_v7, smap_v73])
def test_smap_region_of_interest_is_taken_off(tmp_path, make):
    locs = read_table(make(tmp_path / "a_sml.mat", info={**SMAP_INFO, "roi": [4.0, 1.0, 64.0, 48.0]}))
    assert locs.x.tolist() == pytest.approx([-4.0, 5.0], abs=1e-5)
    assert locs.y.tolist() == pytest.approx([0.0, 1.0], abs=1e-5)
    assert "region of interest begins at camera pixel (4.0, 1.0)" in notes(locs)


def test_smap_of_several_movies(tmp_path):
    path = smap_v73(tmp_path / "a_sml.mat")
    with h5py.File(path, "a") as file:
        info = file["saveloc/file/info"]
        references = np.empty((2, 1), h5py.ref_dtype)
        for number in range(2):
            copy = file.create_group(f"#refs#/{number}")
            for name, item in info.items():
                copy[name] = item[()]
            references[number, 0] = copy.ref
        del file["saveloc/file"]
        file.create_dataset("saveloc/file/info", data=references, dtype=h5py.ref_dtype)
    locs = read_table(path)
    assert locs.info.pixel_size_nm == 104.0
    assert "2 movies" in notes(locs)


def test_smap_v73_is_what_matlab_writes(tmp_path):
    path = tmp_path / "a_sml.mat"
    columns = {"frame": [0, 4], "x": [1.0, 2.0], "y": [3.0, 4.0], "sigma_x": [0.1, 0.1], "sigma_y": [0.1, 0.1]}
    columns["µ /s"] = [0.5, 0.25]
    locs = Localizations(columns, MovieInfo(5, 8, 9, 104.0, "Zelle ä"))
    write_table(locs, path, "smap-v73")
    start = path.read_bytes()[:520]
    assert start.startswith(b"MATLAB 7.3 MAT-file, Platform: ")
    assert start[116:128] == bytes(8) + b"\x00\x02IM"
    assert start[512:] == b"\x89HDF\r\n\x1a\n"
    with h5py.File(path) as file:
        loc = file["saveloc/loc"]
        assert loc.attrs["MATLAB_class"] == b"struct"
        assert [b"".join(name) for name in loc.attrs["MATLAB_fields"]][:3] == [b"frame", b"xnm", b"ynm"]
        assert set(loc) == {b"".join(name).decode() for name in loc.attrs["MATLAB_fields"]}
        assert "f____s" in loc  # a name that MATLAB accepts
        assert (loc["xnm"].shape, loc["xnm"].dtype, loc["xnm"].attrs["MATLAB_class"]) == ((1, 2), "f4", b"single")
        assert (loc["frame"][()].tolist(), loc["frame"].attrs["MATLAB_class"]) == ([[1.0, 5.0]], b"double")
        name = file["saveloc/file/name"]
        assert (name.shape, name.dtype, name.attrs["MATLAB_class"], name.attrs["MATLAB_int_decode"]) == (
            (7, 1),
            "u2",
            b"char",
            2,
        )
        empty = file["saveloc/file/average"]
        assert (empty[()].tolist(), empty.attrs["MATLAB_empty"]) == ([0, 0], 1)
        assert file["saveloc/file/info/roi"].shape == (4, 1)
    again = read_table(path)
    assert again.info == locs.info
    assert again.x.tolist() == pytest.approx([1.0, 2.0], abs=1e-5)


def test_smap_table_too_large_for_v7_is_written_as_v73(tmp_path, monkeypatch):
    monkeypatch.setattr("smlm_pb.formats.smap._LARGEST_V7", 10)
    locs = Localizations({"frame": [0, 4], "x": [1.0, 2.0], "y": [3.0, 4.0]}, MovieInfo(5, 8, 9, 104.0))
    write_table(locs, tmp_path / "a_sml.mat", "smap")
    assert sniff(tmp_path / "a_sml.mat") == "smap-v73"


def test_smap_damaged(tmp_path):
    path = smap_v7(tmp_path / "a_sml.mat")
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(TableError, match="damaged MATLAB file"):
        read_table(path)
    scipy.io.savemat(path, {"image": np.zeros(3)})
    with pytest.raises(TableError, match="no variable saveloc"):
        read_table(path)
    scipy.io.savemat(path, {"saveloc": {"file": 1.0}})
    with pytest.raises(TableError, match=r"no saveloc\.loc"):
        read_table(path)


def test_smap_csv(tmp_path):
    path = write(tmp_path / "a.csv", "xnm,ynm,znm,frame,locprecnm,phot,bg\n100,200,50,1,10,700,3\n")
    assert sniff(path) == "smap-csv"
    locs = read_table(path, pixel_size_nm=100)
    assert (locs.x[0], locs.y[0], locs.z[0], locs.frame[0], locs.photons[0]) == (0, 1, 50, 0, 700)


# -- SMAPpy ------------------------------------------------------------------------------------------------


def test_smappy(tmp_path):
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        file.attrs["format"] = "smappy-localizations"
        file.attrs["metadata"] = json.dumps(
            {"pixelsize_nm": 100.0, "camera": {"roi": [10, 20, 64, 48], "pixelsize_um": 0.1}}
        )
        for name, values in {
            "frame": [0, 5],
            "x_nm": [1000.0, 1150.0],
            "y_nm": [2000.0, 2200.0],
            "x_err_nm": [10.0, 11.0],
            "y_err_nm": [12.0, 13.0],
            "photons": [500.0, 600.0],
            "sigma_nm": [110.0, 120.0],
            "logl_rel": [-1.0, -2.0],
        }.items():
            file[f"locs/{name}"] = values
    assert sniff(path) == "smappy"
    locs = read_table(path)
    assert locs.x.tolist() == pytest.approx([0.0, 1.5])
    assert locs.y.tolist() == pytest.approx([0.0, 2.0])
    assert locs.frame.tolist() == [0, 5]
    assert locs.sigma_y.tolist() == pytest.approx([0.12, 0.13])
    assert locs.psf_sigma_y.tolist() == pytest.approx([1.1, 1.2])
    assert (locs.info.width, locs.info.height, locs.info.pixel_size_nm) == (64, 48, 100.0)
    assert locs.logl_rel.tolist() == [-1, -2]
    with h5py.File(path, "a") as file:
        del file["locs/photons"]
        file["locs/photons"] = [1.0]
    with pytest.raises(TableError, match="differ in length"):
        read_table(path)


# -- DECODE ------------------------------------------------------------------------------------------------


def decode_h5(path, unit="px", factor=(1.0, 1.0)):
    xyz = np.array([[3.25, 10.5, -100.0], [-0.25, 7.0, 50.0]], np.float32)
    xyz[:, :2] *= factor
    with h5py.File(path, "w") as file:
        file.create_group("meta").attrs.update({"xy_unit": unit, "px_size": np.array([127.0, 117.0], np.float32)})
        file.create_group("decode").attrs["version"] = "0.10.0"
        data = file.create_group("data")
        data["xyz"] = xyz
        data["xyz_sig"] = np.array([[0.1, 0.2, 30.0], [0.3, 0.4, 40.0]], np.float32) * [*factor, 1]
        data["xyz_cr"] = h5py.Empty("f")
        data["phot"], data["bg"], data["prob"] = [500.0, 600.0], [5.0, 6.0], [0.9, 0.8]
        data["frame_ix"], data["id"] = [0, 12], [-1, -1]
        data["phot_sig"] = h5py.Empty("f")
    return path


@pytest.mark.parametrize(("unit", "factor"), [("px", (1.0, 1.0)), ("nm", (127.0, 117.0))])
def test_decode_calls_the_row_x(tmp_path, unit, factor):
    path = decode_h5(tmp_path / "a.h5", unit, factor)
    assert sniff(path) == "decode"
    locs = read_table(path)
    assert locs.y.tolist() == pytest.approx([3.25, -0.25])
    assert locs.x.tolist() == pytest.approx([10.5, 7.0])
    assert locs.sigma_y.tolist() == pytest.approx([0.1, 0.3])
    assert locs.sigma_x.tolist() == pytest.approx([0.2, 0.4])
    assert locs.z.tolist() == [-100, 50]
    assert locs.sigma_z.tolist() == [30, 40]
    assert locs.frame.tolist() == [0, 12]
    assert locs.probability.tolist() == pytest.approx([0.9, 0.8])
    assert "sigma_photons" not in locs
    assert "117 × 127 nm (x × y)" in notes(locs)


def test_decode_csv(tmp_path):
    head = '# DECODE EmitterSet\n# {"version": "0.10.0"}\n# {"xy_unit": "px", "px_size": [100.0, 100.0]}\n'
    rows = "x,y,z,phot,frame_ix,id,prob,bg,x_cr,x_sig,y_sig,z_sig\n3.25,10.5,-100,500,4,-1,0.9,5,,0.1,0.2,30\n"
    path = write(tmp_path / "a.csv", head + rows)
    assert sniff(path) == "decode-csv"
    locs = read_table(path)
    assert (locs.y[0], locs.x[0], locs.frame[0]) == (3.25, 10.5, 4)
    assert locs.sigma_x[0] == pytest.approx(0.2)
    assert "x_cr" not in locs
    assert locs.info.pixel_size_nm == 100
    write(path, head.replace("{", "[") + rows)
    with pytest.raises(TableError, match="line 2: the metadata are no JSON"):
        read_table(path)


def test_decode_without_rows_and_damaged(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["data/xyz"] = np.zeros((0, 3))
        file["data/frame_ix"] = np.zeros(0, int)
    locs = read_table(path)
    assert len(locs) == 0
    assert "does not say its unit" in notes(locs)
    with h5py.File(path, "a") as file:
        file["data/phot"] = np.zeros(4)
    with pytest.raises(TableError, match="data/phot has 4 rows, data/xyz has 0"):
        read_table(path)


# -- SMLM Challenge ----------------------------------------------------------------------------------------


def test_challenge_truth(tmp_path):
    path = write(tmp_path / "activations.csv", "Ground-truth,frame,xnano,ynano,znano,intensity \n7,1,50,150,-20,4000\n")
    assert sniff(path) == "challenge-truth"
    locs = read_table(path)
    assert (locs.x[0], locs.y[0], locs.z[0], locs.frame[0], locs.photons[0]) == (0, 1, -20, 0, 4000)
    assert locs["Ground-truth"].tolist() == [7]
    assert locs.info.pixel_size_nm == 100
    assert "100 nm is the format's standard" in notes(locs)


def test_challenge_submission(tmp_path):
    path = write(tmp_path / "MT1.N1.LD____2D____Us.csv", "1,50,150,0,4000\n2,6350.0,75,0,3000\n")
    assert sniff(path) == "challenge"
    locs = read_table(path)
    assert locs.x.tolist() == [0, 63]
    assert locs.frame.tolist() == [0, 1]
    assert locs.photons.tolist() == [4000, 3000]


# -- rapidSTORM --------------------------------------------------------------------------------------------

RAPIDSTORM_FIELDS = [
    ("Position-0-0", "nanometer", 'min="0 m" max="6.3e-06 m"'),
    ("Position-1-0", "nanometer", 'min="0 m" max="4.7e-06 m"'),
    ("ImageNumber-0-0", "frame", 'min="0 fr" max="99 fr"'),
    ("Amplitude-0-0", "A/D count", ""),
    ("PSFWidth-0-0", "nanometer", ""),
    ("Position-0-0-uncertainty", "nanometer", ""),
    ("TwoKernelImprovement-0-0", "dimensionless", ""),
]


def rapidstorm(path, fields=RAPIDSTORM_FIELDS, rows="100 250.5 3 1.5e+04 235.482 10 0.5\n"):
    described = "".join(
        f'<field identifier="{name}" syntax="floating point" semantic="{name}" unit="{unit}" {limits} />'
        for name, unit, limits in fields
    )
    return write(path, f'# <localizations insequence="true" repetitions="variable">{described}</localizations>\n{rows}')


def test_rapidstorm(tmp_path):
    path = rapidstorm(tmp_path / "a.txt")
    assert sniff(path) == "rapidstorm"
    locs = read_table(path, pixel_size_nm=100)
    assert (locs.x[0], locs.y[0], locs.frame[0]) == (1.0, np.float32(2.505), 3)
    assert locs.sigma_x[0] == pytest.approx(0.1)
    # widths are full widths at half maximum: 2.35482 sigma
    assert locs.psf_sigma_x[0] == pytest.approx(1.0, rel=1e-5)
    assert "photons" not in locs
    assert locs["Amplitude-0-0 [A/D count]"][0] == 15000
    assert locs["TwoKernelImprovement-0-0"][0] == 0.5
    # the header's range ends at the centre of the last pixel
    assert (locs.info.width, locs.info.height, locs.info.n_frames) == (64, 48, 100)


def test_rapidstorm_columns_in_any_order_and_photons(tmp_path):
    fields = [("Amplitude-0-0", "photons", ""), ("Position-1-0", "um", ""), ("Position-0-0", "nanometer", "")]
    locs = read_table(rapidstorm(tmp_path / "a.txt", fields, "700 1.5 200\n"), pixel_size_nm=100)
    assert (locs.photons[0], locs.y[0], locs.x[0], locs.frame[0]) == (700, 15, 2, 0)
    assert "no frame column" in notes(locs)


def test_rapidstorm_damaged(tmp_path):
    with pytest.raises(TableError, match="line 1: the header is no XML"):
        read_table(write(tmp_path / "a.txt", "# <localizations><field\n1 2 3\n"))
    with pytest.raises(TableError, match="line 1: this is no header"):
        read_table(write(tmp_path / "b.txt", "# <localizations><!ENTITY a 'b'></localizations>\n1 2 3\n"))
    with pytest.raises(TableError, match="line 3: the row has 4 of 7 cells"):
        read_table(rapidstorm(tmp_path / "c.txt", rows="100 250 3 1 2 3 4\n100 250 3 1\n"), pixel_size_nm=100)


# -- vendors -----------------------------------------------------------------------------------------------

ELYRA = (
    "Index\tFirst Frame\tNumber Frames\tFrames Missing\tPosition X [nm]\tPosition Y [nm]\tPrecision [nm]\t"
    "Number Photons\tBackground variance\tChi square\tPSF half width [nm]\tChannel\tZ Slice\r\n"
    "1\t1\t2\t0\t50.0\t150.0\t8.6\t472\t5.33\t0.28\t110.0\t1\t1\r\n"
    "2\t9\t1\t0\t1050.0\t2150.0\t9.5\t529\t4.38\t0.31\t129.8\t1\t1\r\n"
)
ELYRA_END = (
    "\x00\r\r\nVoxelSizeX : 0.1000000000 µm\r\r\nVoxelSizeY : 0.1000000000 µm\r\r\nResolutionX : 0.1000000000\r\r\n"
    "ResolutionY : 0.1000000000\r\r\nSizeX : 640\r\r\nSizeY : 480\r\r\n\r\nROI List : \r\r\n"
)


def test_elyra_stops_where_the_table_ends(tmp_path):
    path = write(tmp_path / "a.txt", ELYRA + ELYRA_END, "latin-1")
    assert sniff(path) == "elyra"
    locs = read_table(path)
    assert len(locs) == 2
    assert locs.x.tolist() == pytest.approx([0, 10])
    assert locs.y.tolist() == pytest.approx([1, 21])
    assert locs.frame.tolist() == [0, 8]
    assert locs.photons.tolist() == [472, 529]
    assert locs.sigma_x.tolist() == locs.sigma_y.tolist() == pytest.approx([0.086, 0.095])
    assert locs.on_frames.tolist() == [2, 1]
    assert locs["PSF half width [nm]"].tolist() == [110.0, 129.8]
    assert (locs.info.pixel_size_nm, locs.info.width, locs.info.height) == (100.0, 64, 48)
    assert len(read_table(write(tmp_path / "b.txt", ELYRA), pixel_size_nm=100)) == 2
    only_header = write(tmp_path / "c.txt", ELYRA.splitlines()[0] + "\r\n" + ELYRA_END, "latin-1")
    assert len(read_table(only_header)) == 0


def test_nstorm_takes_the_drift_corrected_positions(tmp_path):
    names = "Channel Name,X,Y,Xc,Yc,Height,Area,Width,Phi,Ax,BG,I,Frame,Length,Link,Valid,Z,Zc,Photons,"
    names += "Lateral Localization Accuracy,Xw,Yw,Xwc,Ywc"
    row = ["Cy5", 1, 2, 160, 320, 9, 9, 250, 0, 1, 7, 8, 5, 2, 0, 1, 11, 12, 900, 16, 3, 4, 5, 6]
    text = names.replace(",", "\t") + "\n" + "\t".join(map(str, row)) + "\n"
    path = write(tmp_path / "a.txt", text)
    assert sniff(path) == "nstorm"
    locs = read_table(path, pixel_size_nm=160)
    assert (locs.x[0], locs.y[0], locs.z[0], locs.frame[0]) == (0.5, 1.5, 12, 4)
    assert (locs.photons[0], locs.on_frames[0]) == (900, 2)
    assert locs.sigma_x[0] == pytest.approx(0.1)
    assert locs["Channel Name"].tolist() == ["Cy5"]
    assert locs["X"].tolist() == [1]
    raw = text.replace("Xc", "Xd").replace("Yc", "Yd").replace("Zc", "Zd")
    locs = read_table(write(tmp_path / "b.txt", raw), "nstorm", pixel_size_nm=1)
    assert (locs.x[0], locs.y[0], locs.z[0]) == (0.5, 1.5, 11)


def test_nanoimager(tmp_path):
    old = "Channel,Frame,X (nm),Y (nm),Z (nm),Photons,Background\n1,0,58.5,175.5,0.0,549.3,17.87\n"
    path = write(tmp_path / "a.csv", old)
    assert sniff(path) == "nanoimager"
    locs = read_table(path, pixel_size_nm=117)
    assert (locs.x[0], locs.y[0], locs.frame[0], locs.channel[0]) == (0, 1, 0, 1)
    assert locs.background[0] == np.float32(17.87)
    new = (
        "Channel,Frame,X (nm),Y (nm),Z (nm),X precision (nm),Y precision (nm),X (pix),Y (pix),Z (pix),"
        "X precision (pix),Photons,Background,PSF Sigma X (pix),PSF Sigma Y (pix),p-value\n"
        "0,3,1170,2340,0,11.7,23.4,10,20,0,0.1,800,4,1.1,1.2,0.99\n"
    )
    locs = read_table(write(tmp_path / "b.csv", new))
    assert locs.info.pixel_size_nm == 117
    assert (locs.x[0], locs.y[0], locs.frame[0]) == (9.5, 19.5, 3)
    assert locs.sigma_y[0] == pytest.approx(0.2)
    assert locs.psf_sigma_y[0] == np.float32(1.2)


# -- .smlm -------------------------------------------------------------------------------------------------


def smlm(path, *, rows=2, drop=False, tables=1, units=("", "nm", "um", "photon")):
    headers = ["frame", "x", "y", "intensity"]
    dtype = np.dtype([("frame", "<u4"), ("x", "<f4"), ("y", "<f4"), ("intensity", "<u2")])
    data = np.array([(1, 50, 0.15, 700), (4, 250, 0.35, 800)], dtype)
    layout = {"type": "table", "mode": "binary", "columns": 4, "headers": headers, "units": list(units)}
    layout |= {"dtype": ["uint32", "float32", "float32", "uint16"], "shape": [1, "1", 1, 1]}
    files = [
        {
            "name": f"t{k}.bin",
            "type": "table",
            "format": "f",
            "channel": f"c{k}",
            "rows": rows,
            "offset": {"x": 100 * k},
        }
        for k in range(tables)
    ]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "manifest.json", json.dumps({"format_version": "0.2", "formats": {"f": layout}, "files": files})
        )
        for k in range(tables):
            if not drop:
                archive.writestr(f"t{k}.bin", data.tobytes())
    return path


def test_smlm(tmp_path):
    path = smlm(tmp_path / "a.smlm")
    assert sniff(path) == "smlm"
    locs = read_table(path, pixel_size_nm=100)
    assert locs.x.tolist() == [0, 2]
    assert locs.y.tolist() == pytest.approx([1, 3])
    assert locs.frame.tolist() == [0, 3]
    assert locs.photons.tolist() == [700, 800]


def test_smlm_without_units_and_with_several_tables(tmp_path):
    locs = read_table(smlm(tmp_path / "a.smlm", units=("", "", "um", "")), pixel_size_nm=100)
    assert locs.x.tolist() == [0, 2]
    assert "no unit is given for x, intensity" in notes(locs)
    locs = read_table(smlm(tmp_path / "b.smlm", tables=2), pixel_size_nm=100)
    assert locs.x.tolist() == [0, 2, 1, 3]
    assert locs.channel.tolist() == [0, 0, 1, 1]


def test_smlm_damaged(tmp_path):
    with pytest.raises(TableError, match=r"t0\.bin has 28 bytes, 3 rows need 42"):
        read_table(smlm(tmp_path / "a.smlm", rows=3), pixel_size_nm=100)
    with pytest.raises(TableError, match=r"lacks t0\.bin"):
        read_table(smlm(tmp_path / "b.smlm", drop=True), pixel_size_nm=100)
    path = smlm(tmp_path / "c.smlm")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(TableError, match="damaged zip archive"):
        read_table(path, pixel_size_nm=100)
    with zipfile.ZipFile(tmp_path / "d.smlm", "w") as archive:
        archive.writestr("manifest.json", "{")
    with pytest.raises(TableError, match=r"manifest\.json is damaged"):
        read_table(tmp_path / "d.smlm")


# -- napari and our own CSV --------------------------------------------------------------------------------


def test_napari_points(tmp_path):
    path = write(tmp_path / "a.csv", "index,axis-0,axis-1,axis-2,probability,name\n0,3.0,20.5,10.25,0.9,bead\n")
    assert sniff(path) == "napari"
    locs = read_table(path)
    assert (locs.frame[0], locs.y[0], locs.x[0]) == (3, 20.5, 10.25)
    assert locs.probability[0] == np.float32(0.9)
    assert locs["name"].tolist() == ["bead"]
    locs = read_table(write(tmp_path / "b.csv", "index,axis-0,axis-1\n0,20.5,10.25\n"))
    assert (locs.frame[0], locs.y[0], locs.x[0]) == (0, 20.5, 10.25)
    with pytest.raises(TableError, match="has 4 axes"):
        read_table(write(tmp_path / "c.csv", "index,axis-0,axis-1,axis-2,axis-3\n0,1,2,3,4\n"))


def test_csv_with_picassos_names(tmp_path):
    path = write(tmp_path / "a.csv", "frame,x,y,photons,sx,sy,bg,lpx,lpy\n11,5.5,5.25,5788,0.85,0.86,249,0.018,0.019\n")
    assert sniff(path) == "csv"
    locs = read_table(path)
    assert (locs.frame[0], locs.x[0]) == (11, 5.5)
    assert locs.sigma_y[0] == np.float32(0.019)
    assert locs.psf_sigma_x[0] == np.float32(0.85)
    assert locs.background[0] == 249
    assert "states no convention" in notes(locs)


# -- damaged text ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frame,x,y,photons\n1,2,3,4\n1,2,3\n", "line 3: the row has 3 of 4 cells; the file was cut off"),
        ("frame,x,y,photons\n1,2,3,4\n\n\n1,2\n", "line 5: the row has 2 of 4 cells"),
        ("frame,x,y\n1,2,3\n1,2,3\n1,2,3,4\n", "line 4 has 4 cells, the table has 3 columns"),
        ("frame,x,y\n1,2,3,4\n", "line 2: more cells than the 3 column names"),
        ("frame,x,y\n1,2,3\n1,abc,3\n1,2,3\n", "line 3: 'abc' in column x is no number"),
        ("frame,x,y\n1,2,3\n1.5,2,3\n", None),
        ("frame,x,y,x\n1,2,3,4\n", "line 1: the column x occurs twice"),
        ("frame,x,y,tag\n1,left,3,a\n", "column x holds text|'left' in column x|must hold numbers"),
        ("a,b,c\n1,2,3\n", "no table of a known format .its first line is 'a,b,c'"),
        ("\x00\x01\x02", "binary file that begins with"),
    ],
)
def test_damaged_text_names_the_line(tmp_path, text, message):
    path = write(tmp_path / "a.csv", text)
    if message is None:
        assert "1 rows without a finite position and a valid frame" in notes(read_table(path))
        return
    with pytest.raises(TableError, match=message) as caught:
        read_table(path)
    assert "\n" not in str(caught.value)
    assert "a.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("cells", "name", "kept"), [('"1,000"', "photons", "1,000"), ("1.5", "group", 1.5), ("red", "channel", "red")]
)
def test_what_cannot_stand_in_our_column_is_kept_beside_it(tmp_path, cells, name, kept):
    locs = read_table(write(tmp_path / "a.csv", f"frame,x,y,{name}\n0,1.5,2.5,{cells}\n"))
    assert name not in locs
    assert locs[f"csv {name}"].tolist() == [kept]
    assert "it is kept as it stands" in notes(locs)


def test_an_impossible_frame_is_left_out_and_told(tmp_path):
    locs = read_table(write(tmp_path / "a.csv", "frame,x,y\n0,1,2\n99999999999,1,2\n"))
    assert locs.frame.tolist() == [0]
    assert locs.info.n_frames == 1
    assert "1 rows without a finite position and a valid frame are left out, the first is row 2" in notes(locs)


def test_missing_cells_written_as_such_are_no_damage(tmp_path):
    locs = read_table(write(tmp_path / "a.csv", "frame,x,y,photons\n1,2,3,\n1,2,3,NaN\n1,2,3,7\n"))
    assert np.isnan(locs.photons[:2]).all()
    assert locs.photons[2] == 7


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "parquet"])
def test_a_damaged_file_ends_in_our_error_or_in_a_table(tmp_path, name):
    n = 20
    columns = {column: np.linspace(1, 40, n) for column in ("x", "y", "photons", "sigma_x", "sigma_y", "z")}
    locs = Localizations({"frame": np.arange(n), **columns}, MovieInfo(n, 50, 50, 100.0))
    path = tmp_path / f"a{FORMATS[name].extensions[0]}"
    write_table(locs, path, name)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for number in range(25):
        damaged = bytearray(whole[: rng.integers(1, len(whole))] if number % 3 == 0 else whole)
        for _ in range(number % 3 * 3):
            damaged[rng.integers(min(len(damaged), 3000))] = rng.integers(256)
        path.write_bytes(damaged)
        with contextlib.suppress(TableError):
            assert isinstance(read_table(path, name, pixel_size_nm=100), Localizations)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "parquet"])
def test_no_reader_lets_garbage_through_as_a_crash(tmp_path, name):
    for number, content in enumerate(
        (b"garbage", b"\x89HDF\r\n\x1a\n" + bytes(90), b"PK\x03\x04oops", b"1,2\n", b"\n\n")
    ):
        path = tmp_path / f"{number}.bin"
        path.write_bytes(content)
        with pytest.raises(TableError, match=r"\.bin"):
            read_table(path, name, pixel_size_nm=100)
