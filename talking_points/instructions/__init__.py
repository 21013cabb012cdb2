"""Instructions: questions about one region of an image that give one of text, point, box and mask, and ask another."""
