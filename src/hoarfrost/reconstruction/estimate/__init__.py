"""Maps from summed statistics, and how well maps explain particles."""
