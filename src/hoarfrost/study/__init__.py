"""Optimisers compared on one data set from the same random starts, and how fast a machine computes."""
