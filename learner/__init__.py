"""The learner: from a stream of samples to an exported surrogate.

It has the buffers, models, losses, the training loop, validation, checkpoints and export. It imports torch and NumPy,
but neither Ray nor PETSc.
"""
