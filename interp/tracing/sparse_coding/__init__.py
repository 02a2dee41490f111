"""Sparse autoencoders of the residual stream: their arithmetic, their files, and the edits made with them."""
