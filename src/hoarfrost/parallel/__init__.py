"""Threads within a process, and processes within a team."""
