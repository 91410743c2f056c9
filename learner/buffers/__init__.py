"""The bounded buffer: slots, what a slot holds, and which slots a batch is drawn from."""
