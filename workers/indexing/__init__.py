"""How videos are looked at: decoded in threads, run through the model, stored."""
