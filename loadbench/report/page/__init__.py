"""The parts of a report's page, in the order in which it has them: values in, markup out."""
