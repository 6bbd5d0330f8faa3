"""What a user sees while a run goes on: events, maps, matches, progress."""
