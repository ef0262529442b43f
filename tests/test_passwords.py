"""Password hashes on their thread. Bad input: a daemon that was started under nice."""

import os
import traceback

import pytest

from ippd.domain.passwords import PATIENCE, Passwords

NOBODY = 65534


@pytest.mark.parametrize("nice", [0, 15, 19])
def test_no_hash_was_made_in_a_daemon_that_was_started_under_nice(nice):
    """The thread took 10 for its nice value, and an account that is not root may not go down from 15 to 10."""
    child = os.fork()
    if not child:  # its nice value, and its account, are for good
        status = 1
        try:
            if os.geteuid() == 0:
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            before = os.nice(max(0, nice - os.nice(0)))
            passwords = Passwords(4, 2)
            digest = passwords.hash("secret")
            assert passwords.matches("secret", digest) and not passwords.matches("other", digest)
            assert passwords._turn(lambda: os.nice(0)) == min(19, before + PATIENCE)
            assert os.nice(0) == before, "the other threads are as patient as they were"
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
