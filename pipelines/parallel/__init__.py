"""Work on many files by many processes, of this machine or of a Dask cluster."""
