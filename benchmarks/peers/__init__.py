"""Loops that solve the draws of our problems without penstock, by kind."""
