"""What all tests share."""

from hypothesis import settings

# No deadline: the first call of a kernel starts threads, and test machines are shared.
settings.register_profile("fastoptim", deadline=None)
settings.load_profile("fastoptim")
