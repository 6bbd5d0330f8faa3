"""Random starts: minibatches, sums over all poses, and how well the starts agree."""
