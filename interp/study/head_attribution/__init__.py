"""Head attribution: its study, task, result and page."""
