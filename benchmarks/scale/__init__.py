"""Many workers: what is measured at 1 to 1,000 of them, and a model of 10,000."""
