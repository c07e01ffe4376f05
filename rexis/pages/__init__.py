"""Reports as HTML pages that need nothing else: one file each, with its style, its plots and its data inside."""
