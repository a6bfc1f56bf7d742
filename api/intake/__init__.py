"""What clients send, checked and put in: uploads, batches, labels, files in place."""
