"""popperctl, the administrator's program: one module for each group of commands, found by the table in `admin.main`."""
