"""One module for each revision, in a line: each names the one that it follows."""
