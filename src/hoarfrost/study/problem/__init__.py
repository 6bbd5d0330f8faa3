"""The objective of a reconstruction as an object that any optimiser can take, on data sets that stay the same."""
