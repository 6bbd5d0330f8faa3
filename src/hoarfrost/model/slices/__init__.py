"""Central slices of a volume and their exact adjoint."""
