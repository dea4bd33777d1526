"""Networks of torch frameworks, read by what they compute."""
