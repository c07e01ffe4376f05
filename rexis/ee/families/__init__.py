"""One module per model family: its sites, and the keyed form of its module."""
