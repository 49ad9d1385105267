"""`python -m tuneful` is the `tuneful` command."""

from tuneful.cli.main import main

if __name__ == "__main__":
    main()
