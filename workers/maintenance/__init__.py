"""What is set right, removed or done while nobody waits."""
