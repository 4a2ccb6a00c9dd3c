"""python -m popper"""

from popper.launch import run

run()
