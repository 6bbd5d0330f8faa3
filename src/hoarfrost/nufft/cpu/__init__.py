"""The sums of a grid under a window, compiled for the CPU."""
