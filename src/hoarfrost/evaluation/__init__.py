"""How good is a map: alignment, FSC, half maps, masks, pose errors."""
