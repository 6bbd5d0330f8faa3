"""Non-uniform FFTs: the interpolation window, and sums of a grid under it."""
