"""loadbench's terminal dashboard: reads run folders, starts runners, never measures."""
