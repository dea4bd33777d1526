"""``python -m osbc_deploy`` is ``osbc-deploy``."""

from osbc_deploy.cli.start import start

if __name__ == "__main__":
    start()
