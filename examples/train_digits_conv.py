"""Train the bundled convolutional network: ``python examples/train_digits_conv.py``."""

from _training import main

from osbc_deploy.bundled.models import digits_conv

if __name__ == "__main__":
    main(digits_conv, epochs=40, rate=2e-3, gain=0.5)
