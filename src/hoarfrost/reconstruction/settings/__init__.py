"""What the user asked for, and what was chosen where he left it open."""
