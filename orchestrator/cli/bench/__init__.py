"""`penstock bench`: what limits a run, measured."""
