"""Learner ranks: processes that train one surrogate together, each on batches of a separate buffer."""
