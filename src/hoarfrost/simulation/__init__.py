"""Images of a known map, by the same forward model."""
