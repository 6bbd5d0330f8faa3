"""How good is a map: alignment, FSC, pose errors."""
