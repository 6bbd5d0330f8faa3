"""A point group found in the map, and imposed on it."""
