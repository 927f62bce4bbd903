"""What holds for every ring: properties are judged by what they find, not by the time it took; and Ctrl-C is one."""

import signal

from hypothesis import settings

settings.register_profile("liferaft", deadline=None)
settings.load_profile("liferaft")

# Whoever starts the tests in the background of a shell has them ignore Ctrl-C, and so would all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
