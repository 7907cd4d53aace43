"""The executor of one machine: processes that decode, a process with the model for each device, and one that directs.

`executor.py` directs. Tables go from process to process as descriptors of memory files, which no kill leaves behind.
"""
