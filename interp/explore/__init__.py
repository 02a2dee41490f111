"""The explorer: a local page on which the user selects tokens, layers and heads, and edits attention."""

from interp.explore.exploration import Change, Exploration, Reading
from interp.explore.local_server import serve

__all__ = ["Change", "Exploration", "Reading", "serve"]
