"""What a process of the API makes once and every request uses: media roots, waiting, readiness."""
