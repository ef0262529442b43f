"""TLS: versions, resumption, and a certificate that changes under open connections."""

import os
import ssl
import threading

import pytest

from ippd import certificate
from ippd.errors import SettingsError
from ippd.server import tls
from serverkit import Served, answer, get, read_answer, trusting


def app(environ, start_response):
    return answer(start_response, "fine")


@pytest.fixture
def served(tmp_path):
    running = Served(app, tmp_path)
    yield running
    running.stop()


def presented(served, context=None):
    with served.tls(context) as connection:
        return connection.getpeercert(True)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_good_versions_are_spoken_with_alpn(served, version):
    context = trusting()
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2", "http/1.1"])
    with served.tls(context) as connection:
        connection.sendall(get())
        assert read_answer(connection).status == 200
        assert connection.selected_alpn_protocol() == "http/1.1"
        assert "GCM" in connection.cipher()[0] or "CHACHA20" in connection.cipher()[0]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_versions_and_weak_ciphers_are_refused(served):
    old, weak = trusting(), trusting()
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = ssl.TLSVersion.TLSv1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    weak.set_ciphers("AES256-SHA:ECDHE-ECDSA-AES128-SHA")
    for context in (old, weak):
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            served.tls(context)
    assert served.get().status == 200


def test_a_session_is_resumed(served):
    context = trusting()
    with served.tls(context) as first:
        first.sendall(get())
        assert read_answer(first).status == 200
        session = first.session
    with context.wrap_socket(served.raw_tls(), server_hostname="localhost", session=session) as second:
        assert second.session_reused
        second.sendall(get())
        assert read_answer(second).status == 200


def test_a_new_certificate_is_used_at_once_and_open_connections_go_on(served):
    before = presented(served)
    with served.tls() as connection:
        certificate.make(["new.example"], served.cert, served.key)
        changed = threading.Event()
        served.server.call(lambda: (tls.load(served.context, served.cert, served.key), changed.set()))
        assert changed.wait(5)
        assert presented(served) != before
        connection.sendall(get())
        assert read_answer(connection).status == 200
        assert connection.getpeercert(True) == before


def test_a_bad_pair_changes_nothing_and_says_why(served, tmp_path):
    before = presented(served)
    other = str(tmp_path / "other.pem"), str(tmp_path / "other-key.pem")
    certificate.make(["other.example"], *other)
    (tmp_path / "junk.pem").write_text("junk")
    for pair in ((served.cert, other[1]), (str(tmp_path / "junk.pem"), served.key), (served.cert, str(tmp_path / "none.pem"))):
        with pytest.raises(SettingsError, match=os.path.basename(pair[0]) + "|" + os.path.basename(pair[1])):
            tls.load(served.context, *pair)
    assert presented(served) == before


def test_a_client_that_trusts_the_certificate_is_content(served):
    context = ssl.create_default_context(cafile=served.cert)
    with served.tls(context) as connection:
        connection.sendall(get())
        assert read_answer(connection).status == 200
