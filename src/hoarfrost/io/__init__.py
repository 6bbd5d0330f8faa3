"""Files: MRC maps and stacks, RELION STAR, atomic writes."""
