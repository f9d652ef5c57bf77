"""Whoever starts the tests in the background or by nohup has signals ignored that runs are told by;
programs inherit that."""

import signal

for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(
            number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        )
