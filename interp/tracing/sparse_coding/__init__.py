"""Sparse autoencoders and transcoders: their arithmetic, their files, and the edits made with them."""
