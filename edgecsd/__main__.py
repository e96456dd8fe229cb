"""`python -m edgecsd`: the same as the `edgecsd` command."""

from edgecsd.cli import main

if __name__ == "__main__":
    main()
