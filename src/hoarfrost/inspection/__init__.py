"""A look at particles before any long work: what file and images say, what looks wrong, what it will take."""
