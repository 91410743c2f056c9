"""What limits training, as a page. Torch and NumPy alone."""
