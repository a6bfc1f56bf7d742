"""What the commands print: tables, facts, progress, pictures."""
