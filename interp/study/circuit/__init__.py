"""Which edges between heads, MLPs, the image and the answer carry the answer: its study, task, result and page."""
