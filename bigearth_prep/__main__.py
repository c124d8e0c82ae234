"""`python -m bigearth_prep`, the same as the command `bigearth-prep`."""

from bigearth_prep.cli import main

main()
