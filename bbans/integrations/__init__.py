"""bbans within other software: zarr, numcodecs and Dask. Each module needs its extra to be installed."""
