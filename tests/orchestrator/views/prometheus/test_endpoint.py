"""Who sees the endpoint, by a token and TLS, and what is refused."""

import logging
import socket
import ssl
import subprocess
import urllib.error
import urllib.request

import pytest

from penstock.errors import PenstockError
from penstock.orchestrator.config.complaints import validated
from penstock.orchestrator.config.metrics import MetricsSection
from penstock.orchestrator.views.prometheus.metrics import Metrics
from tests.support.prometheus import certificate_in

TOKEN = "abcdefghijklmnopqrstuvwxyz012345"


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    return str(path)


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    """The files of a certificate for 127.0.0.1 and of its key."""
    return certificate_in(tmp_path_factory.mktemp("pem"))


def scrape(url: str, authorization: str | None = None, context: ssl.SSLContext | None = None) -> tuple[int, bytes]:
    """The status that a scrape gets, and the text."""
    headers = {} if authorization is None else {"Authorization": authorization}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), context=context) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_a_token_is_asked_for_and_nothing_is_said_without_it(token_file, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    url = Metrics(MetricsSection(token_file=token_file)).url
    for other in (None, TOKEN, f"Basic {TOKEN}"):
        assert scrape(url, other) == (401, b"")
    for other in ("Bearer", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", f"Bearer {TOKEN.upper()}", "Bearer é"):
        assert scrape(url, other) == (403, b"")
    for right in (f"Bearer {TOKEN}", f"bearer  {TOKEN}"):
        code, text = scrape(url, right)
        assert code == 200 and b"penstock_workers" in text
    assert TOKEN not in caplog.text + "".join(capfd.readouterr())


def test_tls_by_a_certificate_and_a_client_that_says_nothing_holds_nobody_up(pem, token_file, capfd):
    certificate, key = pem
    url = Metrics(MetricsSection(certificate=certificate, key=key, token_file=token_file)).url
    assert url.startswith("https://127.0.0.1:")
    context = ssl.create_default_context(cafile=certificate)
    with socket.create_connection(("127.0.0.1", int(url.split(":")[2].split("/")[0]))):  # never shakes hands
        assert scrape(url, f"Bearer {TOKEN}", context)[0] == 200
    with pytest.raises(urllib.error.URLError):  # its maker is unknown
        scrape(url, f"Bearer {TOKEN}", ssl.create_default_context())
    with pytest.raises(OSError):  # not encrypted
        scrape(url.replace("https", "http"), f"Bearer {TOKEN}")
    assert not "".join(capfd.readouterr())


def test_without_a_token_it_stays_on_this_machine(token_file):
    for address in ("0.0.0.0", "192.0.2.1", "::"):
        with pytest.raises(PenstockError, match="can be reached by other machines: give token_file"):
            validated(MetricsSection, {"address": address}, "x.yaml")
        MetricsSection(address=address, token_file=token_file)
    for address in ("127.0.0.1", "127.0.0.2", "::1"):
        assert MetricsSection(address=address).is_local
    url = Metrics(MetricsSection(address="0.0.0.0", token_file=token_file)).url
    host, _, port = url.removeprefix("http://").partition(":")
    assert host == socket.gethostname()
    assert scrape(f"http://127.0.0.1:{port}", f"Bearer {TOKEN}")[0] == 200


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"address": "localhost"}, "address = localhost is no IP address"),
        ({"certificate": "a.pem"}, "give certificate and key together"),
        ({"key": "a.pem"}, "give certificate and key together"),
    ],
)
def test_poor_sections_are_one_line(values, expected):
    with pytest.raises(PenstockError, match=expected):
        validated(MetricsSection, values, "x.yaml")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "can't be read: No such file"),
        ("\n", "holds no token"),
        ("two words", "holds no token"),
        ("ü", "holds no token"),
    ],
)
def test_files_without_a_token_are_one_line(tmp_path, content, expected):
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
    with pytest.raises(PenstockError, match=rf"^metrics\.token_file: {path} {expected}[^\n]*$"):
        Metrics(MetricsSection(token_file=str(path)))


def test_a_poor_certificate_is_one_line(pem, tmp_path):
    certificate, key = pem
    poor, absent, locked = (str(tmp_path / name) for name in ("poor.pem", "absent.pem", "locked.pem"))
    (tmp_path / "poor.pem").write_text("poor")
    lock = ["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:secret", "-out", locked]
    subprocess.run(lock, check=True, capture_output=True)
    for pair in ((poor, key), (certificate, poor), (certificate, absent), (certificate, locked)):
        with pytest.raises(PenstockError, match=r"^metrics\.certificate: .* can't be used \([^\n]*$"):
            Metrics(MetricsSection(certificate=pair[0], key=pair[1]))


def test_an_address_of_another_machine_is_one_line(token_file):
    with pytest.raises(PenstockError, match=r"metrics\.address: this machine has no address 192\.0\.2\.1"):
        Metrics(MetricsSection(address="192.0.2.1", token_file=token_file))


def test_a_port_in_use_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PenstockError, match=f"metrics.port: {port} is in use"):
            Metrics(MetricsSection(port=port))


def test_a_port_that_this_user_may_not_take_is_named(monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("penstock.orchestrator.views.prometheus.endpoint.make_server", refuse)
    with pytest.raises(
        PenstockError, match=r"metrics\.port: 80 can't be listened on \(Permission denied\) on localhost"
    ):
        Metrics(MetricsSection(port=80))
