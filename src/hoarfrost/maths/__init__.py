"""Fourier transforms, rotations, shells, FSC, random generators: mathematics that knows no images."""
