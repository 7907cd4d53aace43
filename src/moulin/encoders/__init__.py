"""The networks of Icefall's transducers as PyTorch modules for inference, with Icefall's parameter names.

Imports the standard library and torch only.
"""
