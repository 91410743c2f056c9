"""The strategy that chooses among others, and their calibration to an accuracy."""
