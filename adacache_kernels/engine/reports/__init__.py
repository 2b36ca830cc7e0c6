"""Summarize generations for the user, and give user warnings."""
