"""Head ranking: its study, task, result and page."""
