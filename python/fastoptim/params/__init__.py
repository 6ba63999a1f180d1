"""Parameters: buffers, structures of arrays, averages and penalties."""
