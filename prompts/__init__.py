"""The prompts of the build as package data: one Jinja template per step, and their history in CHANGELOG.md."""
