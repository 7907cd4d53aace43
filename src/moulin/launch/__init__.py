"""tritonserver as a process: found, started, watched and stopped; with the gateway beside it."""
