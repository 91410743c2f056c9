"""From the buffer to the device, ahead of the step."""
