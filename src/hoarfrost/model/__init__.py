"""The forward model of an image and its likelihood."""
