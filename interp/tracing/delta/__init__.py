"""Gated DeltaNet layers: rows of them, their states in caches, and work done in their rule."""
