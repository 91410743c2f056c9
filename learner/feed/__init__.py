"""Batches from the buffer to the training device, ahead of the step."""
