"""What outlives a process: rows and blobs. Knows no model, queue or web server."""
