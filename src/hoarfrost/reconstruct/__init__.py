"""The reconstruction loop and what it needs."""
