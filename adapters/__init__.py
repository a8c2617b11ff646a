"""One runtime, one file. Imported as `calibwrap.adapters`; nothing here is imported before it is asked for."""
