"""Load scenarios: *.toml says what load, *.py are Locust users. Copy one to begin your own."""
