"""What comes with penstock: problems and models, listed and shown."""
