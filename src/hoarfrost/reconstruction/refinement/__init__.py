"""Two halves refined apart, each image near its few likely poses, and the final passes."""
