"""The forward model and its likelihood: CTF, slices, shifts, quadrature, prior."""
