"""The explorer: a page on this machine where a person clicks tokens, layers and heads, and edits attention."""

from interp.explore.exploration import Change, Exploration, Reading
from interp.explore.local_server import serve

__all__ = ["Change", "Exploration", "Reading", "serve"]
