"""Pages and pictures of runs and studies, made from their folders alone."""
