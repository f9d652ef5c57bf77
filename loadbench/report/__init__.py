"""What a finished run looks like outside of the dashboard: as text for terminals and CI logs."""
