"""The bounded buffer: its slots, what they hold, and which ones a batch draws."""
