"""An answer whose words have masks: attend-and-segment."""
