"""The Ray actors: a learner, solvers, and the stream between them."""
