"""What bodies and answers look like, as pydantic models, and the clock of their seconds."""
