"""One file a model family, or a few that differ in a line: how each prepares its image and where its tokens lie."""
