"""Audio: from bytes to a waveform, from a waveform to features.

    decode.py      files and bytes of any container -> waveform
    pcm.py         raw PCM samples -> floats
    waveform.py    the definition of a waveform, and the check for it
    fbank.py       waveform -> Kaldi log-mel filter-bank features

The decoding and feature libraries are imported at their first use, so importing this package costs nothing.
"""
