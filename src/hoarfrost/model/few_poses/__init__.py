"""The likelihood of images near their few likely poses, at fine detail."""
