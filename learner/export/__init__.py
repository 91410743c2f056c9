"""A trained surrogate as one file that torch alone can load."""
