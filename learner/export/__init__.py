"""A trained surrogate as one file in one of three formats, and back."""
