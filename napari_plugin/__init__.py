"""The napari door: collects parameters, starts a worker, shows results. No science in here."""
