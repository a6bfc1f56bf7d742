"""How videos are taken in and looked at: their rows, decoding in threads, turns, kept clips."""
