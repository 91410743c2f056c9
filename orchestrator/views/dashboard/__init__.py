"""The dashboard: the report's page while a run goes on, served to this machine alone."""
