"""What is made of several runs: each is a whole run of the runner, in an order that is kept."""
