"""Speed, memory and quality over time, always against a plain transcription of Algorithm 2 and in the same run."""
