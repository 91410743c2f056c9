"""Learner ranks: processes that train one surrogate together."""
