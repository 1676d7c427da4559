"""Localize the sample movie and save the table: Python's door in five lines."""

from importlib.resources import files

import smlm_pb

movie = files("smlm_pb.sample_data") / "filaments.tif"
molecules = smlm_pb.localize(movie, frames=(0, 50))
print(molecules)
print(molecules.to_dataframe().head())
molecules.save("filaments_locs.hdf5", overwrite=True)
