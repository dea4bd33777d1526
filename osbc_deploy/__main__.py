"""Run the command line with ``python -m osbc_deploy``."""

from osbc_deploy.cli.main import main

if __name__ == "__main__":
    main()
