"""What routes answer with: pages, parts of files, streams, refusals."""
