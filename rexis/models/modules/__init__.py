"""Torch modules of the families: `build` makes one from a config, `describe` reads the config off one."""
