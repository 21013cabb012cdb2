"""Requests of a stage as files for a provider's batch API: written, submitted, collected, through any kill."""
