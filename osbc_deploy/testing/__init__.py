"""What authors of plugins test them with; see ``docs/writing-a-backend.md`` and its sister.

Every function raises an AssertionError that shows the first difference. Needs hypothesis:
``pip install 'osbc-deploy[testing]'``.
"""

from osbc_deploy.testing.backends import assert_backend_conforms, assert_same_bits
from osbc_deploy.testing.frameworks import assert_framework_exact
from osbc_deploy.testing.networks import Case, cases, random_networks

__all__ = [
    "Case",
    "assert_backend_conforms",
    "assert_framework_exact",
    "assert_same_bits",
    "cases",
    "random_networks",
]
