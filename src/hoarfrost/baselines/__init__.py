"""What minibatch methods are compared with: iterations over all images, on the same operators."""
