"""One module for each revision; each names the one that it follows."""
