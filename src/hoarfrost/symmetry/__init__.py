"""Point groups, and where a map has their axes."""
