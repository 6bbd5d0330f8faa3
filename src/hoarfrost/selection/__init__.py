"""A choice among the particles of a file, written as a file of its own, with smaller images if asked."""
