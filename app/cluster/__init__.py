"""Work shared out by Dask: to processes of this machine, or to the workers of a scheduler that is there already."""
