"""Bytes to waveform to features.

    decode.py      files and bytes of any container -> waveform
    pcm.py         raw PCM samples -> floats
    waveform.py    what a waveform is, and the check that one is
    fbank.py       waveform -> Kaldi log-mel filter-bank features

The libraries behind them are imported when first used, so importing this package costs nothing.
"""
