"""Particle images: lazy stacks, normalisation, splits and minibatches."""
