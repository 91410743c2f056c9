"""Ray, the command line and the views: the part that knows both others."""
