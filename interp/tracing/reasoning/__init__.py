"""Models that think before they answer: which tokens are the thought's, and given thoughts."""
