"""What limits training: the step alone, fed, and fed while samples come in."""
