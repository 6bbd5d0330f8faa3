"""Optimisers, one method a file; they know tensors and closures, nothing of cryo-EM."""
