"""Ray, the command line and metrics: the only part that knows both the solvers and the learner."""
