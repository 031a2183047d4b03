"""`python -m coderl`, as under `accelerate launch`."""

from coderl.cli import main

main()
