"""Times a program from outside: it writes a byte into a pipe when something begins and when it ends, and this process, with a clock and
a runtime of its own, notes when the bytes arrive. Prints the times from each first byte to its second, in ms, as JSON.

    python3 bench/outside_timer.py COMMAND ...

The pipe's descriptor is in the variable TINYAI_MARKS of the command's environment.
"""

import json
import os
import subprocess
import sys
import time

reading, writing = os.pipe()
child = subprocess.Popen(
    sys.argv[1:], env={**os.environ, "TINYAI_MARKS": str(writing)}, pass_fds=[writing], stdout=sys.stderr
)
os.close(writing)
arrivals_ns = []
# One byte at a time: each has a time of its own, however late this process is woken.
while os.read(reading, 1):
    arrivals_ns.append(time.monotonic_ns())
status = child.wait()
print(json.dumps([(end - begin) / 1e6 for begin, end in zip(arrivals_ns[::2], arrivals_ns[1::2])]))
sys.exit(status)
