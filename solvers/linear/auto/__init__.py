"""The strategy that chooses, and the calibration of those that stop on a residual or an energy error."""
