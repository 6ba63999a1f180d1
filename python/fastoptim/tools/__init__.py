"""Tools for training: gradient checks, learning rate search, history, minibatches."""
