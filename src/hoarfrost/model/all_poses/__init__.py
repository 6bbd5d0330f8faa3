"""The likelihood of images summed over every pose of a quadrature."""
