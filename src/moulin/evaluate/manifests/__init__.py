"""One file a form in which recordings and their transcripts are kept."""
