"""Sparse autoencoders and transcoders: their files and their features; their arithmetic is in `sparse_coder`."""
