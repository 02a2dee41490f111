"""One picture of one image and one question: maps, heads, the answer, and what speaks against trusting them."""
