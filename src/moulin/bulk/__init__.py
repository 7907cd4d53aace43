"""Transcription of more recordings than one command would finish: as Arrow tables, resumable, each recording once.

`schema.py`, `decode.py` and `transcriber.py` are the seam for whatever maps tables. `manifests/` reads what is to be
transcribed, `output/` writes parts, `local/` is the executor of one machine.
"""
