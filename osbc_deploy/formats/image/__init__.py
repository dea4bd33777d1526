"""The binary chip image, core by core: its layout, writing and reading."""
