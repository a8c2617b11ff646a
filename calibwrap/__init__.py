"""calibwrap."""
