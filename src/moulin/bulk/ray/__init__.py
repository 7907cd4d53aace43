"""The executor of a cluster: Ray Data hands tables from tasks that decode to actors with the model.

`executor.py` directs and writes, on the machine where the command runs. Ray's workers read recordings and the model
and write nothing.
"""
