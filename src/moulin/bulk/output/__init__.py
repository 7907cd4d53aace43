"""The folder of a job: parts that appear complete, what the job is, and who works on it."""
