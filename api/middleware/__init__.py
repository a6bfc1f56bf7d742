"""What happens to every request and connection, whatever its route."""
