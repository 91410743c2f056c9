"""The dashboard: reports that follow their runs, served to this machine alone."""
