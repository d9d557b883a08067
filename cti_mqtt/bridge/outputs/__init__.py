"""What the bridge's internal stream becomes: each module reads the stream and knows nothing of cyclers or commands."""
