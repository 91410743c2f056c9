"""The peers' loops: what a good user of NumPy, exponax or DOLFINx writes for one problem."""
