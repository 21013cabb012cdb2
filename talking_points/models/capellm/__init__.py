"""CapeLLM: the place of a keypoint from its name and description, as text."""
