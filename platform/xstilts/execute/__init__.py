"""Running what a plan asks for and the store does not have yet."""
