"""Train the bundled fully connected network: ``python examples/train_digits_mlp.py``."""

from _training import main

from osbc_deploy.bundled.models import digits_mlp

if __name__ == "__main__":
    main(digits_mlp, epochs=40, rate=2e-3, gain=0.7)
