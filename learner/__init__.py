"""Training: buffers, models, the training loop, checkpoints, export. Torch and NumPy; no Ray, no PETSc."""
