"""Where messages are kept. One contract (`popper.maildrop`), one module for each kind of store."""
