"""PDE problems and the linear solves behind them. Imports neither torch nor Ray."""
