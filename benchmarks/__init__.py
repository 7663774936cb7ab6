"""Speed, memory and quality over time, always against a plain transcription of Algorithm 2 in the same run."""
