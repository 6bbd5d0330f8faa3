"""Particles that come with the package, to try it on."""
