"""Gradients: clipping, accumulation and loss scaling."""
