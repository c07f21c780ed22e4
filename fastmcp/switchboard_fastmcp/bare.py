"""Starts a catalogue program with exactly the environment its entry names, and nothing else.

Run as a file: `python -I bare.py '["NAME", ...]' /absolute/command [argument ...]`. It replaces
itself with the command, so signals and pipes reach the program directly.
"""

import json
import os
import sys

if __name__ == "__main__":
    _, names, command, *arguments = sys.argv
    environment = {name: os.environ[name] for name in json.loads(names)}
    os.execve(command, [command, *arguments], environment)  # noqa: S606 (the operator's program)
