"""What a scenario says of https: its files, its faults, and a whole run against an https server."""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadbench import spec
from loadbench.errors import SpecError, TargetError
from loadbench.metricspec import MetricsSpec
from loadbench.plan import Endpoint, Tls
from loadbench.targets.ask import Asker
from loadbench.targets.scrape import Scraper
from loadbench.targets.tls import context
from loadbench.targetspec import TargetSpec
from tests.running import adds_up, loadbench, summary
from tests.secure import Papers, make_papers, scripted, server_context, terminated
from tests.served import serving


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return make_papers(tmp_path_factory.mktemp("papers"))


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Of a KServe server without TLS."""
    with serving("fake") as engine:
        yield engine.port


def own(folder: Path, target: str) -> Path:
    path = folder / "own.toml"
    load = 'arrivals = "constant"\nwarmup = "0s"\nphases = [{ rate = 100, for = "1s" }]\n'
    path.write_text(f"[target]\n{target}\n[load]\n{load}")
    return path


def test_a_scenario_says_who_is_believed(tmp_path: Path) -> None:
    path = own(tmp_path, 'url = "https://h"\nca = "ca.pem"\ncert = "c.pem"\nkey = "c.key"')
    assert spec.load(str(path)).spec.target.tls == Tls("ca.pem", "c.pem", "c.key")
    assert spec.load("steady").spec.target.tls == Tls(verify=True)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ('url = "https://h"\nkey = "c.key"', "a key needs its certificate"),
        ('url = "http://h"\nca = "ca.pem"', "for https:// targets only"),
        ('url = "http://h"\nverify = false', "for https:// targets only"),
        ('url = "https://h"\nca = 7', "target.ca"),
    ],
)
def test_settings_that_make_no_sense_are_named(tmp_path: Path, target: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec.load(str(own(tmp_path, target)))
    assert words in caught.value.message
    assert "own.toml" in caught.value.message


def test_files_that_cannot_be_used_are_named(papers: Papers, tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing\n")
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    absent = str(tmp_path / "absent.pem")
    expected = {
        Tls(absent): f"target.ca {absent!r}: No such file",
        Tls(str(tmp_path)): f"target.ca {str(tmp_path)!r}: Is a directory",
        Tls(str(empty)): f"target.ca {str(empty)!r} holds no certificate",
        Tls(str(broken)): f"target.ca {str(broken)!r} cannot be used",
        Tls(cert=absent): f"target.cert {absent!r}: No such file",
        Tls(cert=papers.key): f"target.cert {papers.key!r} holds no certificate",
        Tls(cert=papers.bare): f"target.cert {papers.bare!r} holds no private key",
        Tls(cert=papers.bare, key=absent): f"target.key {absent!r}: No such file",
        Tls(cert=papers.bare, key=papers.locked): f"target.key {papers.locked!r} is encrypted",
        Tls(cert=papers.bare, key=papers.server): "is not the certificate of the key",
        Tls(cert=str(broken), key=papers.key): f"target.cert {str(broken)!r} cannot be used",
    }
    for tls, words in expected.items():
        with pytest.raises(SpecError) as caught:
            context(tls)
        assert words in caught.value.message, tls


def test_an_intermediate_ca_is_believed_if_it_is_named(tmp_path: Path) -> None:
    import trustme

    root = trustme.CA()
    middle = root.create_child_ca()
    leaf = middle.issue_cert("127.0.0.1")
    (tmp_path / "middle.pem").write_bytes(middle.cert_pem.bytes())
    (tmp_path / "leaf.pem").write_bytes(leaf.private_key_and_cert_chain_pem.bytes())
    made = context(Tls(str(tmp_path / "middle.pem")))
    served = server_context(str(tmp_path / "leaf.pem"))

    def play(sock: socket.socket) -> None:
        served.wrap_socket(sock, server_side=True).close()

    with (
        scripted(play) as port,
        socket.create_connection(("127.0.0.1", port)) as sock,
        made.wrap_socket(sock, server_hostname="127.0.0.1") as stream,
    ):
        assert stream.version() == "TLSv1.3"


def test_a_target_is_asked_over_tls(papers: Papers, port: int) -> None:
    with terminated(papers.server, port, papers.ca) as secure:
        url = f"https://localhost:{secure}"
        tls = Tls(papers.ca, papers.bare, papers.key)
        with Asker(url, tls=tls) as asker:
            endpoint = asker.describe(TargetSpec(url=url))
            assert (endpoint.host, endpoint.port, endpoint.tls) == ("localhost", secure, tls)
            assert endpoint.protocol == "kserve"
            assert asker.statistics(endpoint)


@pytest.mark.parametrize(
    ("cert", "ca", "words", "hint"),
    [
        ("server", "other_ca", "cannot be verified: ", "[target] ca = "),
        ("elsewhere", "ca", "IP address mismatch", "by a name that its certificate has"),
        ("expired", "ca", "certificate has expired", "renewed"),
    ],
)
def test_a_target_that_cannot_be_verified_is_told_why(
    papers: Papers, port: int, cert: str, ca: str, words: str, hint: str
) -> None:
    with terminated(getattr(papers, cert), port) as secure:
        url = f"https://127.0.0.1:{secure}"
        with Asker(url, tls=Tls(getattr(papers, ca))) as asker, pytest.raises(TargetError) as told:
            asker.describe(TargetSpec(url=url))
        with Asker(url, tls=Tls(verify=False)) as asker:
            assert asker.describe(TargetSpec(url=url)).model == "fake"
    assert words in told.value.message
    assert hint in told.value.hint
    assert "target.verify = false" in told.value.hint


def test_a_target_without_tls_is_told_so(port: int) -> None:
    with (
        Asker(f"https://127.0.0.1:{port}", tls=Tls()) as asker,
        pytest.raises(TargetError, match="does not speak TLS"),
    ):
        asker.describe(TargetSpec())


def test_a_target_of_tls_alone_is_told_so(papers: Papers, port: int) -> None:
    with (
        terminated(papers.server, port) as secure,
        Asker(f"http://127.0.0.1:{secure}") as asker,
        pytest.raises(TargetError) as told,
    ):
        asker.describe(TargetSpec())
    assert told.value.hint.endswith("is it an https:// address?")


def test_a_target_that_speaks_of_something_else_is_told_so() -> None:
    def play(sock: socket.socket) -> None:
        sock.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
        sock.recv(1 << 16)

    with (
        scripted(play) as port,
        Asker(f"http://127.0.0.1:{port}") as asker,
        pytest.raises(TargetError) as told,
    ):
        asker.describe(TargetSpec())
    assert "does it speak HTTP there" in told.value.hint


def test_a_target_that_wants_to_know_us_is_told_so(papers: Papers) -> None:
    served = server_context(papers.server, papers.ca)
    served.maximum_version = ssl.TLSVersion.TLSv1_2  # it says so before anything is asked

    def play(sock: socket.socket) -> None:
        served.wrap_socket(sock, server_side=True).close()

    with (
        scripted(play) as secure,
        Asker(f"https://127.0.0.1:{secure}", tls=papers.tls) as asker,
        pytest.raises(TargetError, match="refused the TLS connection") as told,
    ):
        asker.describe(TargetSpec())
    assert "[target] cert = " in told.value.hint


def test_a_whole_run_over_https(papers: Papers, port: int, tmp_path: Path) -> None:
    busy = ("--on-no-verdict", "warn")  # as the machine may be
    with terminated(papers.server, port, papers.ca) as secure:
        target = f'url = "https://localhost:{secure}"\ncert = "{papers.client}"\n'
        found = summary(own(tmp_path, f'{target}ca = "{papers.ca}"'), *busy, cwd=tmp_path)
        doubted = summary(own(tmp_path, f"{target}verify = false"), *busy, cwd=tmp_path)
    for one in (found, doubted):
        assert adds_up(one)
        assert one["done"] == one["asked"] == 100
        assert one["server"]["source"] == "loadbench"  # its statistics came over https, too
    assert "unverified" not in {note["code"] for note in found["notes"]}
    assert "unverified" in {note["code"] for note in doubted["notes"]}


def test_a_run_that_cannot_be_made_says_why(papers: Papers, port: int, tmp_path: Path) -> None:
    with terminated(papers.server, port) as secure:
        url = f"https://127.0.0.1:{secure}"
        absent = loadbench(
            "run", "steady", "--target", url, "--set", "target.ca=no.pem", cwd=tmp_path, code=2
        )
        unknown = loadbench("run", "steady", "--target", url, cwd=tmp_path, code=3)
    assert "target.ca 'no.pem': No such file" in absent.stderr
    assert "its certificate cannot be verified" in unknown.stderr
    assert '[target] ca = "file.pem"' in unknown.stderr
    assert not (tmp_path / "results").exists()


def test_a_load_process_names_a_file_that_is_gone() -> None:
    from loadbench.load.tls import Shared

    endpoint = Endpoint(host="h", port=1, protocol="http", tls=Tls("gone.pem"))
    with pytest.raises(SpecError, match=r"target.ca 'gone.pem'"):
        Shared(endpoint)


def test_a_page_of_metrics_over_https_is_verified(papers: Papers, port: int) -> None:
    """Beside a target that speaks plain http."""
    where = Endpoint(host="127.0.0.1", port=port, protocol="http")
    with terminated(papers.server, port) as secure:
        page = MetricsSpec(url=f"https://127.0.0.1:{secure}/metrics")
        with Scraper(where, page) as scraper, pytest.raises(TargetError, match="CERTIFICATE"):
            scraper.find()
        for tls in (papers.tls, Tls(verify=False)):
            with Scraper(where, page, tls) as scraper:
                assert scraper.find()


@pytest.mark.parametrize("scheme", ["https", "HTTPS"])
def test_settings_of_tls_may_be_for_the_page_of_metrics_alone(tmp_path: Path, scheme: str) -> None:
    page = f'[target.metrics]\nurl = "{scheme}://h/metrics"'
    path = own(tmp_path, f'url = "http://h"\nverify = false\n{page}')
    assert not spec.load(str(path)).spec.target.tls.verify
