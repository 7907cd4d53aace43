"""`python -m moulin` is the `moulin` command."""

from moulin.cli import main

if __name__ == "__main__":
    main()
