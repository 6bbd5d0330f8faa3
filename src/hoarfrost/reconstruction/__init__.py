"""From particles to maps: starts, symmetry, refinement and final passes."""
